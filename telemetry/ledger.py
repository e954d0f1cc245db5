"""Usage logs into the database, each exactly once, and what of every segment is there already.

All of a call is one transaction: rows, their sums, and the intervals of the ledger that say they are written.
A segment's own row is locked first, so two writers of one segment come one after the other, and the second
finds what the first has done. Whatever the ledger has already is left out: envelopes may come twice, late, in
any order, and with other boundaries; a COMMIT whose reply was lost is simply done again.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from django.db import DEFAULT_DB_ALIAS, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from telemetry._rows import Groups, days_of, place_of
from telemetry._spool import RECORD_BYTES, Tally
from telemetry.envelope import Envelope, read_records
from telemetry.exceptions import Poison
from telemetry.folding import fold_when_due
from telemetry.intervals import Interval, merge, missing
from telemetry.models import Quarantined, UsageInterval, UsageSegment
from telemetry.partitions import make_days
from telemetry.rows import insert_logs, insert_parts

Identity = tuple[str, str]
"""A segment's node and name."""
# PostgreSQL would use up an id for each row that it then does not insert, and there it has four bytes.
_ID = {
    "postgresql": """COALESCE(
        (SELECT id FROM usage_segments WHERE node = %(node)s AND name = %(name)s),
        nextval(pg_get_serial_sequence('usage_segments', 'id'))
    )""",
    "sqlite": "NULL",
}
_HOLD = """
    INSERT INTO usage_segments AS had
        (id, node, name, row, created_ns, boot_ns, ended, entered, "left", opened, closed, shed, seen_at)
    VALUES (
        {id}, %(node)s, %(name)s, %(row)s, %(created_ns)s, %(boot_ns)s, %(ended)s, %(entered)s, %(left)s,
        %(opened)s, %(closed)s, %(shed)s, %(seen_at)s
    )
    ON CONFLICT (node, name) DO UPDATE SET
        ended = COALESCE({greatest}(had.ended, excluded.ended), had.ended, excluded.ended),
        entered = {greatest}(had.entered, excluded.entered), "left" = {greatest}(had."left", excluded."left"),
        opened = {greatest}(had.opened, excluded.opened), closed = {greatest}(had.closed, excluded.closed),
        shed = {greatest}(had.shed, excluded.shed), seen_at = {greatest}(had.seen_at, excluded.seen_at)
    RETURNING id
"""
_LEDGER = """
    SELECT segment_id, start, end_, rows, damaged FROM usage_ledger WHERE segment_id IN ({ids})
    ORDER BY segment_id, start
"""
_KEEP = """
    INSERT INTO usage_ledger (segment_id, start, end_, rows, damaged, written_at)
    VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (segment_id, start) DO UPDATE SET
        end_ = excluded.end_, rows = excluded.rows, damaged = excluded.damaged,
        written_at = excluded.written_at
"""


LOOK_NS = 5_000_000_000
looked: dict[str, tuple[int, set[int]]] = {}
"""When this process last saw to days and to folding, and to which days, by database."""


class Written(NamedTuple):
    """What a call has done, in places of segments."""

    rows: int
    repeated: int
    """Places that the ledger had already."""
    damaged: int
    """Places that were written as having no record."""


class SegmentState(NamedTuple):
    """What the database has of a segment."""

    intervals: tuple[tuple[int, int], ...] = ()
    """Places written, [start, end) each, in order; they neither overlap nor touch."""
    final_end: int | None = None
    """How many places there are in all, once that has been told; its last tally is then here, too."""

    @property
    def contiguous(self) -> int:
        """The places from the first one on that are written without a gap."""
        return self.intervals[0][1] if self.intervals and self.intervals[0][0] == 0 else 0

    @property
    def whole(self) -> bool:
        """Whether all of it is in the database: its file is needed no more."""
        return self.final_end is not None and self.contiguous >= self.final_end


def write_envelopes(envelopes: Iterable[Envelope], *, using: str = DEFAULT_DB_ALIAS) -> Written:
    """Write what is not there yet. Poison, before anything is written, for a payload that does not fit."""
    parts = sorted((Part(envelope, read_records(envelope)) for envelope in envelopes), key=_in_order)
    connection, days = connections[using], {day for part in parts for day in days_of(part.records)}
    is_due = _looks_are_due(using, days)
    if is_due:
        make_days(connection, days)
    with transaction.atomic(using=using):
        written = _write(connection, parts)
    if is_due:
        fold_when_due(using)
    return written


def covered(
    node: str, segments: Collection[str], *, using: str = DEFAULT_DB_ALIAS
) -> dict[str, SegmentState]:
    """Say what the database has of each of a node's *segments*; nothing of one it has never heard of."""
    found = UsageSegment.objects.using(using).filter(node=node, name__in=segments)
    ended = {pk: (name, end) for pk, name, end in found.values_list("pk", "name", "ended")}
    intervals: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for pk, start, end in _intervals(using, ended).values_list("segment_id", "start", "end"):
        intervals[pk].append((start, end))
    states = {name: SegmentState(tuple(intervals[pk]), end) for pk, (name, end) in ended.items()}
    return {name: states.get(name, SegmentState()) for name in segments}


# -- what cannot be written


def set_aside(document: bytes, reason: str, *, using: str = DEFAULT_DB_ALIAS) -> None:
    """Keep a document that cannot be written; one that comes again counts as another try of the same."""
    digest = hashlib.sha256(document).digest()
    with transaction.atomic(using=using):
        known, new = Quarantined.objects.using(using).get_or_create(
            digest=digest, defaults={"document": document, "reason": reason}
        )
        if not new:
            rows = Quarantined.objects.using(using).filter(pk=known.pk)
            rows.update(tries=models.F("tries") + 1, reason=reason, replayed_at=None)


def replay(
    ids: Iterable[int], carry: Callable[[bytes], object], *, using: str = DEFAULT_DB_ALIAS
) -> dict[int, str]:
    """Have *carry* write documents that were set aside; give why, for each that still is Poison.

    What has been replayed stays visible, and is replayed again only when it is asked for again: the ledger
    keeps that from changing anything.
    """
    refused = {}
    for pk in ids:
        with transaction.atomic(using=using):
            row = Quarantined.objects.using(using).select_for_update().get(pk=pk)
            row.tries += 1
            try:
                carry(bytes(row.document))
            except Poison as error:
                refused[pk] = row.reason = error.reason
            else:
                row.replayed_at = timezone.now()
            row.save(update_fields=("tries", "reason", "replayed_at"))
    return refused


# -- writing


class Part(NamedTuple):
    """An envelope, opened."""

    envelope: Envelope
    records: memoryview

    @property
    def identity(self) -> Identity:
        return self.envelope.node, self.envelope.segment

    def between(self, start: int, end: int) -> memoryview:
        first, last = place_of(self.records, start), place_of(self.records, end)
        return self.records[first * RECORD_BYTES : last * RECORD_BYTES]


class Piece(NamedTuple):
    """Places of a segment that are to be written now."""

    segment_id: int
    node: str
    records: memoryview
    interval: Interval


def _looks_are_due(using: str, days: set[int]) -> bool:
    """Whether to see to the tables with this write: each few seconds, and for days that were not seen to.

    What is missed in between is made good: rows without a day of their own get one within the hour.
    """
    now_ns = time.monotonic_ns()
    last_ns, known = looked.get(using, (now_ns - LOOK_NS, set()))
    if now_ns - last_ns < LOOK_NS and days <= known:
        return False
    looked[using] = now_ns, days
    return True


def _in_order(part: Part) -> tuple[Identity, int]:
    """In this order segments are locked, by every writer."""
    return part.identity, part.envelope.offset


def _write(connection: BaseDatabaseWrapper, parts: Sequence[Part]) -> Written:
    now = timezone.now()
    _bound_waits(connection)
    ids = {
        identity: _hold(connection, [part.envelope for part in group], now)
        for identity, group in groupby(parts, key=lambda part: part.identity)
    }
    there = _read_ledger(connection, ids.values())
    ledger = dict(there)
    pieces: list[Piece] = []
    for part in parts:
        pk = ids[part.identity]
        new = list(_missing_pieces(part, pk, ledger[pk]))
        ledger[pk] = merge([*ledger[pk], *(piece.interval for piece in new)])
        pieces += new
    if pieces:
        nodes = defaultdict[str, Groups](Groups)
        insert_logs(connection, _adding_up(pieces, nodes))
        insert_parts(connection, nodes.items())
    for pk, intervals in ledger.items():
        _keep(connection, pk, there[pk], intervals, now)
    rows, damaged = (sum(getattr(piece.interval, name) for piece in pieces) for name in ("rows", "damaged"))
    asked = sum(part.envelope.count for part in parts)
    return Written(rows, asked - rows - damaged, damaged)


def _missing_pieces(part: Part, pk: int, written: Sequence[Interval]) -> Iterator[Piece]:
    for start, end in missing(written, part.envelope.offset, part.envelope.end):
        records = part.between(start, end)
        rows = len(records) // RECORD_BYTES
        yield Piece(pk, part.envelope.node, records, Interval(start, end, rows, end - start - rows))


def _adding_up(pieces: Sequence[Piece], nodes: defaultdict[str, Groups]) -> Iterator[tuple[int, memoryview]]:
    """Yield all that is to be inserted; each piece is added up afterwards, while the server takes it."""
    for piece in pieces:
        yield piece.segment_id, piece.records
        nodes[piece.node].add(piece.records)


def _bound_waits(connection: BaseDatabaseWrapper) -> None:
    """Let no writer that hangs or whose machine is gone hold a segment's lock for long."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL lock_timeout = '30s'"
            )


def _hold(connection: BaseDatabaseWrapper, envelopes: Sequence[Envelope], now: datetime) -> int:
    """Lock a segment's row until the COMMIT, and note what its envelopes say of it."""
    first = envelopes[0]
    row, created_ns = map(int, first.segment.split("-"))
    tally = Tally(*map(max, zip(*(envelope.tally for envelope in envelopes), strict=True)))
    told = tally._asdict() | {
        "node": first.node,
        "name": first.segment,
        "row": row,
        "created_ns": created_ns,
        "boot_ns": first.boot_ns,
        "ended": max((envelope.end for envelope in envelopes if envelope.final), default=None),
        "seen_at": connection.ops.adapt_datetimefield_value(now),
    }
    greatest = "GREATEST" if connection.vendor == "postgresql" else "max"
    with connection.cursor() as cursor:
        cursor.execute(_HOLD.format(id=_ID[connection.vendor], greatest=greatest), told)
        (pk,) = cursor.fetchone()
    return int(pk)


def _read_ledger(connection: BaseDatabaseWrapper, ids: Collection[int]) -> dict[int, list[Interval]]:
    """Read it without the ORM, which takes three times as long, for each transaction."""
    ledger: dict[int, list[Interval]] = {pk: [] for pk in ids}
    if not ledger:
        return ledger
    with connection.cursor() as cursor:
        cursor.execute(_LEDGER.format(ids=", ".join(["%s"] * len(ledger))), list(ledger))
        for pk, *interval in cursor.fetchall():
            ledger[pk].append(Interval(*interval))
    return ledger


def _keep(
    connection: BaseDatabaseWrapper,
    pk: int,
    there: Sequence[Interval],
    intervals: Sequence[Interval],
    now: datetime,
) -> None:
    """Bring the ledger from what is *there* to *intervals*; one that has grown over another replaces it."""
    gone = {interval.start for interval in there} - {interval.start for interval in intervals}
    if gone:
        _intervals(connection.alias, [pk]).filter(start__in=gone).delete()
    written_at = connection.ops.adapt_datetimefield_value(now)
    with connection.cursor() as cursor:
        for interval in sorted(set(intervals) - set(there)):
            cursor.execute(_KEEP, [pk, *interval, written_at])


def _intervals(using: str, ids: Iterable[int]) -> models.QuerySet[UsageInterval]:
    return UsageInterval.objects.using(using).filter(segment_id__in=ids).order_by("segment_id", "start")
