"""Where a node's books of usage are read, to be held against one another by `telemetry.reconciling`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import LazySettings
from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import TruncHour
from django.utils import timezone

from billing._gate import Gate, Usage
from billing.demo import FIRST_KEY_ID
from billing.models import MonthlyCount
from billing.ratelimit import month_start_s, next_month
from billing.usage import load_counts
from telemetry._counters import CounterReader
from telemetry._rows import PART_COLUMNS, Groups, clean
from telemetry._spool import Tally
from telemetry.exceptions import LayoutError
from telemetry.intervals import Interval, missing
from telemetry.models import UsageInterval, UsageLog, UsageMonth, UsageRollup, UsageSegment
from telemetry.partitions import LOG_DAYS
from telemetry.queries import Reading
from telemetry.reconciling import Books, KeyMonth, Range, Report, SegmentFacts, reconcile, sum_by_key
from telemetry.segments import MOST, Segment, find_segments
from trinity_site.shared_memory import peek

PERIOD_S = 0.5  # between two looks while what is on its way is waited for
COUNTED = [PART_COLUMNS.index(column) for column in ("key_id", "month", "answers")]
AT_WORK = timedelta(minutes=1)  # who answers is heard of every second or two
CLOCK_STEP = timedelta(hours=1)  # an answer's time may lie before its segment's: clocks are set


class Spooled:
    """A segment's file, open while the database is asked what it has of it."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.node, self.name = segment.identity
        self.extent = segment.look()
        self.tally = segment.tally()

    def waiting(self, written: list[Interval]) -> Iterator[tuple[KeyMonth, int]]:
        """Yield the counted records that are not in the ledger, added up: there may be many millions."""
        for start, end in missing(written, 0, self.extent.end):
            for first in range(start, end, MOST):
                reading, groups = self.segment.read(first, min(MOST, end - first)), Groups()
                if clean(reading.records, reading.start, reading.end):  # as the shipper would send them
                    groups.add(reading.records)
                for row in groups.rows(self.node):
                    key_id, month, answers = (int(row[column]) for column in COUNTED)
                    if month:
                        yield (key_id, month), answers


def known_nodes(settings: LazySettings) -> list[str]:
    """Name this node, and the others that have written or counted anything."""
    written = UsageSegment.objects.order_by().values_list("node", flat=True).distinct()
    counted = MonthlyCount.objects.order_by().values_list("node", flat=True).distinct()
    others = {*written, *counted} - {settings.CLUSTER_NODE}
    return [settings.CLUSTER_NODE, *sorted(others)]


def reconcile_node(settings: LazySettings, *, node: str, month: int, quick: bool = False) -> Report:
    """Hold the books of *node* against one another. Another node's spool and gate are not here to be read."""
    return reconcile(Reader(settings, node=node, month=month, quick=quick).read())


def reconcile_settled(
    settings: LazySettings, *, node: str, month: int, quick: bool = False, wait_s: float = 0.0
) -> Report:
    """Do it again until nothing is on its way and nothing differs, for *wait_s* at most."""
    deadline_s = time.monotonic() + wait_s
    while True:
        report = reconcile_node(settings, node=node, month=month, quick=quick)
        if (report.agrees and not report.waiting) or time.monotonic() >= deadline_s:
            return report
        time.sleep(PERIOD_S)


class Reader:
    """Reads all books once. *quick* leaves out the table of rows, of which there may be many millions."""

    def __init__(self, settings: LazySettings, *, node: str, month: int, quick: bool) -> None:
        self._settings = settings
        self._node, self._month, self._quick = node, month, quick
        self._here = node == settings.CLUSTER_NODE
        self._folder: Path = settings.TRINITY_DATA_DIR
        self._starts = datetime.fromtimestamp(month_start_s(month), UTC)
        self._ends = datetime.fromtimestamp(month_start_s(next_month(month)), UTC)
        today = timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        self._kept_from = today - timedelta(days=LOG_DAYS - 1)  # the day before may be dropped meanwhile

    def read(self) -> Books:
        """Read what grows before and after the rest, so that answers given meanwhile are no difference."""
        with ExitStack() as stack:
            began_ns, appended = self._appended()
            counted = self._counted()
            spooled = {one.name: one for one in self._spooled(stack)} if self._here else {}
            books = self._read_database(spooled, began_ns)
            counted_after, appended_after = self._counted(), self._appended()[1]
        keys = {*counted, *counted_after}
        ranges = {key: Range(counted.get(key, 0), counted_after.get(key, 0)) for key in keys}
        return books._replace(
            appended=Range(appended, appended_after) if began_ns else None,
            counted=None if self._works_elsewhere() else ranges,
        )

    # -- of this machine

    def _appended(self) -> tuple[int, int]:
        """Return when the counters were made, and how many records they have seen; 0 where there are none."""
        if not self._here:
            return 0, 0
        with peek(self._node, self._folder, "counters", CounterReader) as counters:
            return (counters.epoch_ns, counters.totals()["batch_rows_queued"]) if counters else (0, 0)

    def _counted(self) -> dict[KeyMonth, int]:
        """Return each key's requests of the month: as saved, and as the gate has them, which is ahead."""
        saved = load_counts(node=self._node, month=self._month)
        counted = {(key_id, self._month): count for key_id, count in saved.items()}
        if self._here:
            with peek(self._node, self._folder, "gate", Gate) as gate:
                for usage in used(gate) if gate else ():
                    if usage.month == self._month and usage.key_id < FIRST_KEY_ID:
                        key = usage.key_id, usage.month
                        counted[key] = max(counted.get(key, 0), usage.counted)
        return counted

    def _spooled(self, stack: ExitStack) -> Iterator[Spooled]:
        for path in find_segments(self._folder / "spool"):
            try:
                segment = stack.enter_context(Segment(path))
            except (
                FileNotFoundError,
                LayoutError,
            ):  # passed on and deleted meanwhile; set aside by the shipper
                continue
            if segment.identity[0] == self._node:
                yield Spooled(segment)

    # -- of the database

    def _works_elsewhere(self) -> bool:
        """Say whether its counts are saved now and then while its answers go on, without a gate to ask."""
        heard_of = UsageSegment.objects.filter(node=self._node, seen_at__gte=timezone.now() - AT_WORK)
        return not self._here and heard_of.exists()

    def _read_database(self, spooled: Mapping[str, Spooled], counters_ns: int) -> Books:
        with Reading().snapshot():
            rows = list(self._segments(spooled, counters_ns))
            ledger = _ledger(rows)
            stored, hours = self._stored(rows)
            months = UsageMonth.objects.filter(month=self._month, key_id__lt=FIRST_KEY_ID)
            rolled = UsageRollup.objects.filter(month=self._month, key_id__lt=FIRST_KEY_ID)
            known = {row.name: row for row in rows}
            facts = [
                self._facts(name, known.get(name), spooled.get(name), ledger, stored)
                for name in sorted({*known, *spooled})
            ]
            return Books(
                node=self._node,
                month=self._month,
                segments=facts,
                appended=None,
                appended_from_ns=counters_ns,
                rows=_by_key(months.filter(node=self._node), "counted"),
                rows_of_all=_by_key(months, "counted"),
                rolled=_by_key(rolled, "answers"),
                hours=hours,
                rolled_hours=self._rolled_hours(),
                waiting=self._waiting(spooled, {row.name: ledger[row.pk] for row in rows}),
                counted={},
            )

    def _waiting(
        self, spooled: Mapping[str, Spooled], ledger: Mapping[str, list[Interval]]
    ) -> dict[KeyMonth, int]:
        pairs = (pair for name, one in spooled.items() for pair in one.waiting(ledger.get(name, [])))
        return sum_by_key(
            (key, count) for key, count in pairs if key[1] == self._month and key[0] < FIRST_KEY_ID
        )

    def _segments(self, spooled: Mapping[str, Spooled], counters_ns: int) -> QuerySet[UsageSegment]:
        """Those that may bear on the month, or on the counters."""
        recent = Q(seen_at__gte=self._starts - CLOCK_STEP) | Q(name__in=list(spooled))
        if counters_ns:
            recent |= Q(boot_ns__gte=counters_ns)
        return UsageSegment.objects.filter(recent, node=self._node)

    def _stored(self, rows: list[UsageSegment]) -> tuple[dict[int, int] | None, dict[str, int]]:
        """Count the rows of each segment, and those of each hour of the month, of all nodes."""
        if self._quick:
            return None, {}
        first_ns = min((row.created_ns for row in rows), default=0)
        since = min(datetime.fromtimestamp(first_ns / 1e9, UTC) - CLOCK_STEP, self._starts)
        counted = UsageLog.objects.filter(at__gte=max(since, self._kept_from)).annotate(hour=TruncHour("at"))
        segments: dict[int, int] = defaultdict(int)
        hours: dict[str, int] = defaultdict(int)
        for segment_id, hour, count in (
            counted.values_list("segment_id", "hour").annotate(count=Count("*")).order_by()
        ):
            segments[segment_id] += count
            if self._starts <= hour < self._ends:
                hours[shown_hour(hour)] += count
        return dict(segments), dict(hours)

    def _rolled_hours(self) -> dict[str, int]:
        if self._quick:
            return {}
        starts = max(self._starts, self._kept_from)
        rolled = UsageRollup.objects.filter(hour__gte=starts, hour__lt=self._ends)
        sums = rolled.values_list("hour").annotate(Sum("answers")).order_by()
        return {shown_hour(hour): answers for hour, answers in sums}

    def _facts(
        self,
        name: str,
        row: UsageSegment | None,
        file: Spooled | None,
        ledger: Mapping[int, list[Interval]],
        stored: Mapping[int, int] | None,
    ) -> SegmentFacts:
        intervals = ledger.get(row.pk, []) if row else []
        covered = sum(one.end - one.start for one in intervals)
        boots, tallies = [], []
        if row is not None:
            boots, tallies = [row.boot_ns], [tally_of(row)]
        if file is not None:
            boots, tallies = [file.segment.header.boot_ns], [*tallies, file.tally]
        ended = row.ended if row else None
        if ended is None and not self._here:
            ended = covered  # how far its file goes is known over there
        return SegmentFacts(
            node=self._node,
            name=name,
            boot_ns=boots[0],
            written=file.extent.end if file else None,
            ended=ended,
            covered=covered,
            rows=sum(one.rows for one in intervals),
            stored=self._stored_of(row, stored),
            tally=max(tallies),
            alive=file is not None and not file.extent.final,
        )

    def _stored_of(self, row: UsageSegment | None, stored: Mapping[int, int] | None) -> int | None:
        if row is None:
            return 0
        is_old = row.created_ns < (self._kept_from + CLOCK_STEP).timestamp() * 1e9
        return None if stored is None or is_old else stored.get(row.pk, 0)


def used(gate: Gate) -> Iterator[Usage]:
    """Yield what each row of a gate has counted; a row may be taken or freed meanwhile."""
    for row in range(gate.rows):
        with suppress(ValueError):  # it is free
            yield gate.usage(row)


def tally_of(row: UsageSegment) -> Tally:
    return Tally(row.entered, row.left, row.opened, row.closed, row.shed)


def shown_hour(hour: datetime) -> str:
    return f"{hour.astimezone(UTC):%Y-%m-%d %H}:00"


def _ledger(rows: list[UsageSegment]) -> dict[int, list[Interval]]:
    ledger: dict[int, list[Interval]] = defaultdict(list)
    intervals = UsageInterval.objects.filter(segment__in=rows).order_by("segment_id", "start")
    for segment_id, *interval in intervals.values_list("segment_id", "start", "end", "rows", "damaged"):
        ledger[segment_id].append(Interval(*interval))
    return ledger


def _by_key(rows: QuerySet[UsageMonth] | QuerySet[UsageRollup], column: str) -> dict[KeyMonth, int]:
    sums = rows.values_list("key_id", "month").annotate(Sum(column)).order_by()
    return {(key_id, month): total for key_id, month, total in sums}
