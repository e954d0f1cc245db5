"""Usage logs into both kinds of database, each exactly once, whatever comes how often in which order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections, transaction
from django.db.models import Max, Sum
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry import ledger
from telemetry._spool import SIMULATED, Tally
from telemetry._spool import UsageLog as Record
from telemetry.envelope import Envelope
from telemetry.exceptions import Poison
from telemetry.folding import fold
from telemetry.ledger import SegmentState, Written, covered, replay, set_aside, write_envelopes
from telemetry.models import (
    SUMS_KEY,
    Quarantined,
    UsageInterval,
    UsageLog,
    UsageMonth,
    UsageRollup,
    UsageSegment,
)
from tests.telemetry.usage import NODE, SEGMENT, make_envelope, make_logs, make_records

pytestmark = pytest.mark.django_db(databases=["default", "embedded"])
both = pytest.mark.parametrize("using", ["default", "embedded"])
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PLACES = 24
DAY_NS = 86_400 * 10**9
LOGS = [
    log._replace(
        time_ns=1_795_392_000_000_000_000 + number * 700_000_000_000,
        key_id=number % 2,
        month=202611 if number % 4 else 0,
        asset="BTC",
        endpoint=0,
        flags=number % 5 == 0,
    )
    for number, log in enumerate(make_logs(PLACES))
]
RECORDS = make_records(LOGS)
SEGMENTS = [("A", "1-5"), ("A", "2-5"), ("B", "1-5")]


@dataclass
class Model:
    """What must be in the database, in plain Python."""

    places: dict[tuple[str, str], dict[int, Record | None]] = field(default_factory=dict)
    ended: dict[tuple[str, str], int] = field(default_factory=dict)

    def write(self, envelope: Envelope, damaged: set[int]) -> Written:
        identity = envelope.node, envelope.segment
        places = self.places.setdefault(identity, {})
        new = [place for place in range(envelope.offset, envelope.end) if place not in places]
        places |= {place: None if place in damaged else LOGS[place] for place in new}
        if envelope.final:
            self.ended[identity] = max(self.ended.get(identity, 0), envelope.end)
        bad = sum(place in damaged for place in new)
        return Written(len(new) - bad, envelope.count - len(new), bad)

    def rows(self) -> list[tuple[str, str, int, Record]]:
        return sorted(
            (*identity, place, log)
            for identity, places in self.places.items()
            for place, log in places.items()
            if log is not None
        )

    def sums(self) -> dict[tuple[object, ...], tuple[int, int, int, int]]:
        groups: dict[tuple[object, ...], list[Record]] = {}
        for *_, log in self.rows():
            groups.setdefault(sums_key(log), []).append(log)
        return {key: total(logs) for key, logs in groups.items()}

    def months(self) -> Counter[tuple[str, int, int]]:
        return Counter((node, log.key_id, log.month) for node, _, _, log in self.rows() if log.month)

    def intervals(self, identity: tuple[str, str]) -> tuple[tuple[int, int], ...]:
        places = self.places.get(identity, {})
        starts = [place for place in sorted(places) if place - 1 not in places]
        ends = [place + 1 for place in sorted(places) if place + 1 not in places]
        return tuple(zip(starts, ends, strict=True))


def sums_key(log: Record) -> tuple[object, ...]:
    values = log._asdict() | {
        "hour": EPOCH + timedelta(hours=log.time_ns // (3600 * 10**9)),
        "simulated": bool(log.flags & SIMULATED),
    }
    return tuple(values[name] for name in SUMS_KEY)


def total(logs: list[Record]) -> tuple[int, int, int, int]:
    latencies = [log.latency_us for log in logs]
    return len(logs), sum(log.assets for log in logs), sum(latencies), max(latencies)


def check(model: Model, using: str) -> None:
    """Hold every table against the model."""
    names = {row.pk: (row.node, row.name) for row in UsageSegment.objects.using(using)}
    rows = [(*names[row.segment_id], row.sequence - 1, as_log(row)) for row in UsageLog.objects.using(using)]
    assert sorted(rows) == [(*row[:3], row[3]._replace(sequence=row[2] + 1)) for row in model.rows()]
    sums = UsageRollup.objects.using(using).values_list(*SUMS_KEY).annotate(
        Sum("answers"), Sum("assets"), Sum("latency_us"), Max("latency_us_max")
    )  # fmt: skip
    assert {row[:12]: row[12:] for row in sums} == model.sums()
    months = UsageMonth.objects.using(using).values_list("node", "key_id", "month").annotate(Sum("counted"))
    assert {row[:3]: row[3] for row in months} == model.months()
    for node, name in SEGMENTS:
        state = SegmentState(model.intervals((node, name)), model.ended.get((node, name)))
        assert covered(node, [name], using=using) == {name: state}


def as_log(row: UsageLog) -> Record:
    time_ns = (row.at - EPOCH) // timedelta(microseconds=1) * 1000
    values = {name: getattr(row, name) for name in Record._fields if name not in ("time_ns", "flags")}
    return Record(time_ns=time_ns, flags=int(row.simulated), **values)


@st.composite
def parts(draw: st.DrawFn) -> tuple[Envelope, set[int]]:
    """An envelope of any places of any segment, some of which may be damaged; and which."""
    node, name = draw(st.sampled_from(SEGMENTS))
    start = draw(st.integers(0, PLACES))
    end = draw(st.integers(start, PLACES))
    damaged = draw(st.sets(st.integers(0, PLACES), max_size=4)) & set(range(start, end))
    final = draw(st.booleans())
    envelope = make_envelope(
        RECORDS, start, end - start, damaged=damaged, final=final, node=node, segment=name
    )
    return envelope, damaged


@both
@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.lists(parts(), max_size=4), st.just("fold")), max_size=6))
def test_any_history_leaves_what_the_model_has(
    using: str, history: list[list[tuple[Envelope, set[int]]] | str]
) -> None:
    model = Model()
    with transaction.atomic(using=using):
        for step in history:
            if isinstance(step, str):
                fold(using)
                continue
            in_order = sorted(step, key=lambda part: (part[0].node, part[0].segment, part[0].offset))
            expected = [model.write(envelope, damaged) for envelope, damaged in in_order]
            written = write_envelopes([envelope for envelope, _ in step], using=using)
            assert written == tuple(map(sum, zip(*expected, strict=True))) if expected else Written(0, 0, 0)
        check(model, using)
        transaction.set_rollback(True, using=using)


@both
def test_rows_are_what_the_records_were(using: str) -> None:
    logs = make_logs(100)
    assert write_envelopes([make_envelope(make_records(logs))], using=using) == Written(100, 0, 0)
    rows = [as_log(row) for row in UsageLog.objects.using(using).order_by("sequence")]
    assert rows == [
        log._replace(sequence=number, time_ns=log.time_ns // 1000 * 1000)
        for number, log in enumerate(logs, 1)
    ]


@both
def test_segment_of_which_nothing_is_known_has_nothing(using: str) -> None:
    assert covered(NODE, [SEGMENT, "1-1"], using=using) == {SEGMENT: SegmentState(), "1-1": SegmentState()}
    assert SegmentState().contiguous == 0
    assert not SegmentState().whole


def test_segment_is_whole_when_its_end_is_known_and_nothing_is_missing_before_it() -> None:
    assert SegmentState(((0, 5),), 5).whole
    assert SegmentState((), 0).whole
    assert not SegmentState(((0, 5),)).whole
    assert not SegmentState(((0, 4),), 5).whole
    assert not SegmentState(((1, 5),), 5).whole
    assert not SegmentState(((0, 2), (3, 5)), 5).whole


def test_segment_of_many_envelopes_takes_one_id_of_postgresql() -> None:
    for start in range(0, PLACES, 4):
        write_envelopes([make_envelope(RECORDS, start, 4)])
    write_envelopes([make_envelope(RECORDS, segment="9-9")])
    first, second = UsageSegment.objects.order_by("pk")
    assert (first.name, second.name, second.pk - first.pk) == (SEGMENT, "9-9", 1)


@both
def test_intervals_that_meet_become_one_row(using: str) -> None:
    for start, count in ((0, 4), (8, 4), (4, 4)):
        write_envelopes([make_envelope(RECORDS, start, count, damaged=[9])], using=using)
    (row,) = UsageInterval.objects.using(using)
    assert (row.start, row.end, row.rows, row.damaged) == (0, 12, 11, 1)


@both
def test_later_envelope_never_takes_back_what_an_earlier_one_has_told(using: str) -> None:
    told = make_envelope(RECORDS, final=True, tally=Tally(9, 9, 5, 4, 2))
    late = make_envelope(RECORDS, 0, 5, tally=Tally(3, 2, 6, 1, 0))
    write_envelopes([told], using=using)
    write_envelopes([late], using=using)
    row = UsageSegment.objects.using(using).get()
    assert (row.entered, row.left, row.opened, row.closed, row.shed) == (9, 9, 6, 4, 2)
    assert (row.ended, row.row, row.created_ns) == (PLACES, 3, 1763816400000000000)


@both
def test_poison_among_good_envelopes_leaves_nothing_written(using: str) -> None:
    good = make_envelope(RECORDS, 0, 5)
    with pytest.raises(Poison):
        write_envelopes([good, replace(good, segment="9-9", offset=1)], using=using)
    assert not UsageLog.objects.using(using).exists()
    assert not UsageSegment.objects.using(using).exists()


@both
def test_failure_after_the_rows_takes_all_of_it_back(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("now")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(ledger, "_keep", fail)
        write_envelopes([make_envelope(RECORDS)], using=using)
    check(Model(), using)
    assert write_envelopes([make_envelope(RECORDS)], using=using) == Written(PLACES, 0, 0)


@both
def test_place_that_the_ledger_does_not_know_cannot_be_written_twice_all_the_same(using: str) -> None:
    """The ledger is what keeps rows single; if it were ever lost, the rows' own key still does."""
    write_envelopes([make_envelope(RECORDS)], using=using)
    UsageInterval.objects.using(using).all().delete()
    with pytest.raises(Exception, match=r"usage_logs|UNIQUE"), transaction.atomic(using=using):
        write_envelopes([make_envelope(RECORDS)], using=using)
    assert UsageLog.objects.using(using).count() == PLACES


@both
def test_document_that_comes_again_is_another_try_of_the_same(using: str) -> None:
    set_aside(b"one", "it is no mapping", using=using)
    set_aside(b"two", "its node cannot be", using=using)
    set_aside(b"one", "still", using=using)
    rows = Quarantined.objects.using(using).order_by("id")
    assert [(bytes(row.document), row.reason, row.tries) for row in rows] == [
        (b"one", "still", 2),
        (b"two", "its node cannot be", 1),
    ]


@both
def test_replay_tells_what_is_still_poison(using: str) -> None:
    set_aside(b"good", "an old fault", using=using)
    set_aside(b"bad", "no good", using=using)
    good, bad = Quarantined.objects.using(using).order_by("id")
    carried = []

    def carry(document: bytes) -> None:
        carried.append(document)
        if document == b"bad":
            raise Poison("never")

    assert replay([good.pk, bad.pk], carry, using=using) == {bad.pk: "never"}
    good.refresh_from_db()
    bad.refresh_from_db()
    assert carried == [b"good", b"bad"]
    assert good.replayed_at is not None and bad.replayed_at is None
    assert (bad.tries, bad.reason) == (2, "never")


def test_database_of_the_tests_is_a_postgresql() -> None:
    assert connections["default"].vendor == "postgresql"
    assert connections["embedded"].vendor == "sqlite"


@both
def test_tables_are_seen_to_every_few_seconds_and_for_each_new_day(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(ledger, "make_days", lambda connection, days: seen.append(days))
    monkeypatch.setattr(ledger, "fold_when_due", lambda using: seen.append("fold"))
    today, tomorrow = LOGS[0].time_ns // DAY_NS, LOGS[0].time_ns // DAY_NS + 1
    for place in (0, 2):
        write_envelopes([make_envelope(RECORDS, place, 2)], using=using)
    assert seen == [{today}, "fold"]
    later = make_records([log._replace(time_ns=log.time_ns + DAY_NS) for log in LOGS])
    write_envelopes([make_envelope(later, 4, 2)], using=using)
    assert seen[2:] == [{tomorrow}, "fold"]
    monkeypatch.setattr(ledger, "LOOK_NS", 0)
    write_envelopes([make_envelope(later, 6, 2)], using=using)
    assert seen[4:] == [{tomorrow}, "fold"]
