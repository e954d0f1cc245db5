"""A node's books, read from real files, shared memory and database, and the command that compares them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command
from django.utils import timezone

from billing._gate import GateKey
from billing._gate_writer import GateWriter
from billing.demo import FIRST_KEY_ID
from billing.models import MonthlyCount
from billing.seeding import seed_plans
from billing.usage import month_of, save_counts
from telemetry._counters import BATCH_ROWS_QUEUED
from telemetry.envelope import Envelope, compress
from telemetry.folding import fold
from telemetry.ledger import write_envelopes
from telemetry.models import FoldedHour, FoldedMonth, UsageSegment
from telemetry.models import UsageLog as Row
from telemetry.reconciling import Report
from telemetry.segments import Segment, find_segments
from telemetry.spool import Spool
from tests.billing.customers import make_key
from tests.telemetry.spooling import SMALL, make_log
from trinity_site.books import reconcile_node
from trinity_site.shared_memory import open_counters, open_gate_writer, peek, segment_path

pytestmark = pytest.mark.django_db
MONTH = month_of(timezone.now())
ROWS = 1_024


@pytest.fixture
def place(settings: LazySettings, tmp_path: Path) -> LazySettings:
    """A node of its own, with nothing in it."""
    settings.TRINITY_DATA_DIR, settings.CLUSTER_NODE = tmp_path, "Books"
    settings.TRINITY_GATE_ROWS = ROWS
    return settings


@pytest.fixture
def spool(place: LazySettings) -> Iterator[Spool]:
    (place.TRINITY_DATA_DIR / "spool").mkdir()
    spool = Spool(place.TRINITY_DATA_DIR / "spool", node="Books", row=1, parameters=SMALL)
    spool.prepare()
    yield spool
    spool.close()


@pytest.fixture
def key_id() -> int:
    seed_plans()
    return int(make_key().key.pk)


def answered(spool: Spool, key_id: int, count: int = 10, **changes: Any) -> None:
    """Append *count* answers of now, as a worker does."""
    for number in range(count):
        log = make_log(number, time_ns=time.time_ns(), key_id=key_id, account_id=1, month=MONTH)
        spool.appender.enter()
        assert spool.appender.append(log._replace(**changes))
        spool.appender.leave()


def ship(settings: LazySettings, most: int = 1_000, *, final: bool = False) -> None:
    """Bring what is in the spool into the database, up to *most* places of each segment."""
    for path in find_segments(settings.TRINITY_DATA_DIR / "spool"):
        with Segment(path) as segment:
            reading = segment.read(0, most)
            node, name = segment.identity
            envelope = Envelope(
                node=node,
                segment=name,
                boot_ns=segment.header.boot_ns,
                offset=0,
                count=reading.end,
                damaged=reading.damaged,
                final=final,
                tally=segment.tally(),
                payload=compress(reading.records),
            )
        write_envelopes([envelope])


def reconciled(settings: LazySettings, **options: Any) -> Report:
    return reconcile_node(settings, **({"node": "Books", "month": MONTH} | options))


def differing(report: Report) -> list[str]:
    return [check.name for check in report.checks if check.difference]


def test_an_empty_node_agrees(place):
    assert reconciled(place).agrees


def test_what_is_in_the_database_agrees_with_what_was_counted(place, spool, key_id):
    answered(spool, key_id)
    save_counts(node="Books", month=MONTH, counts={key_id: 10})
    ship(place)
    report = reconciled(place)
    assert report.agrees, report.findings
    assert [(check.left, check.right) for check in report.checks] == [(10, 10)] * 5


def test_what_is_on_its_way_is_told(place, spool, key_id):
    answered(spool, key_id)
    save_counts(node="Books", month=MONTH, counts={key_id: 10})
    ship(place, most=4)
    report = reconciled(place)
    assert report.agrees, report.findings
    assert report.waiting == 6


def test_a_file_that_is_gone_too_early_is_found(place, spool, key_id):
    answered(spool, key_id)
    save_counts(node="Books", month=MONTH, counts={key_id: 10})
    ship(place, most=4)
    for path in find_segments(place.TRINITY_DATA_DIR / "spool"):
        path.unlink()
    assert differing(reconciled(place)) == ["spool = ledger", "gate = rows + waiting"]


def test_a_file_that_is_gone_once_all_of_it_is_in_the_database_is_not_missed(place, spool, key_id):
    answered(spool, key_id)
    save_counts(node="Books", month=MONTH, counts={key_id: 10})
    ship(place, final=True)
    for path in find_segments(place.TRINITY_DATA_DIR / "spool"):
        path.unlink()
    assert reconciled(place).agrees


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (lambda: Row.objects.filter(sequence=3).delete(), "ledger = rows"),
        (lambda: (fold(), FoldedHour.objects.all().delete()), "months = rollups"),
        (lambda: (fold(), FoldedMonth.objects.all().delete()), "months = rollups"),
        (lambda: MonthlyCount.objects.all().delete(), "gate = rows + waiting"),
        (lambda: MonthlyCount.objects.update(count=11), "gate = rows + waiting"),
    ],
)
def test_a_spoilt_book_is_found(place, spool, key_id, spoil, check):
    answered(spool, key_id)
    save_counts(node="Books", month=MONTH, counts={key_id: 10})
    ship(place)
    spoil()
    assert check in differing(reconciled(place))


def test_a_quick_look_leaves_the_rows_alone(place, spool, key_id):
    answered(spool, key_id)
    save_counts(node="Books", month=MONTH, counts={key_id: 10})
    ship(place)
    Row.objects.filter(sequence=3).delete()
    assert reconciled(place, quick=True).agrees


def test_refusals_are_rows_that_nobody_counts(place, spool, key_id):
    answered(spool, key_id, month=0, status=429)
    ship(place)
    report = reconciled(place)
    assert report.agrees, report.findings
    assert [check.left for check in report.checks if check.name == "rows = rollups"] == [10]


def test_the_gate_is_ahead_of_what_was_saved(place, spool, key_id):
    answered(spool, key_id)
    ship(place)
    save_counts(node="Books", month=MONTH, counts={key_id: 7})
    with open_gate_writer("Books", place.TRINITY_DATA_DIR, rows=ROWS) as gate:
        fill(gate, key_id, 10)
        assert reconciled(place).agrees
        fill(gate, key_id, 11)
        assert differing(reconciled(place)) == ["gate = rows + waiting"]


def test_the_demo_is_in_no_count(place, spool):
    answered(spool, FIRST_KEY_ID)
    ship(place)
    with open_gate_writer("Books", place.TRINITY_DATA_DIR, rows=ROWS) as gate:
        fill(gate, FIRST_KEY_ID, 10)
        assert reconciled(place).agrees


def test_the_counters_say_how_much_was_appended(place, spool, key_id):
    with open_counters("Books", place.TRINITY_DATA_DIR, worker=1) as counters:
        young = Spool(place.TRINITY_DATA_DIR / "spool", node="Books", row=2, parameters=SMALL)
        young.prepare()
        answered(young, key_id)
        save_counts(node="Books", month=MONTH, counts={key_id: 10})
        ship(place)
        counters.add(BATCH_ROWS_QUEUED, 10)
        assert reconciled(place).agrees
        counters.add(BATCH_ROWS_QUEUED, 2)
        assert differing(reconciled(place)) == ["counters = spool"]
        young.close()


def test_another_node_is_judged_by_the_database_alone(place, spool, key_id):
    answered(spool, key_id)
    save_counts(node="Books", month=MONTH, counts={key_id: 10})
    ship(place)
    place.CLUSTER_NODE = "Elsewhere"
    assert reconciled(place).agrees


def test_another_node_that_answers_is_ahead_of_the_counts_it_has_saved(place, spool, key_id):
    answered(spool, key_id)
    save_counts(node="Books", month=MONTH, counts={key_id: 7})
    ship(place)
    place.CLUSTER_NODE = "Elsewhere"
    assert reconciled(place).agrees
    save_counts(node="Books", month=MONTH, counts={key_id: 20})
    assert reconciled(place).agrees


def test_counts_of_another_node_that_rests_are_compared(place, spool, key_id):
    answered(spool, key_id)
    save_counts(node="Books", month=MONTH, counts={key_id: 7})
    ship(place)
    UsageSegment.objects.update(seen_at=timezone.now() - timedelta(minutes=2))
    place.CLUSTER_NODE = "Elsewhere"
    assert differing(reconciled(place)) == ["gate = rows + waiting"]


def test_looking_leaves_a_killed_nodes_memory_where_it_is(place, tmp_path):
    path = segment_path("Books", tmp_path, "gate")
    with peek("Books", tmp_path, "gate", GateWriter) as nothing:
        assert nothing is None
    assert not path.exists()
    with open_gate_writer("Books", tmp_path, rows=ROWS) as gate:
        fill(gate, 5, 3)
        left = path.read_bytes()
    path.write_bytes(left)
    try:
        assert not reconciled(place).agrees
        assert path.read_bytes() == left
    finally:
        path.unlink()


def test_the_command_prints_every_comparison(place, spool, key_id, capsys):
    answered(spool, key_id)
    save_counts(node="Books", month=MONTH, counts={key_id: 10})
    ship(place)
    call_command("reconcile", "--node", "Books")
    out = capsys.readouterr().out
    assert "No difference." in out
    assert "ledger = rows" in out


def test_the_command_tells_what_it_does_not_see_of_another_node(place, spool, key_id, capsys):
    answered(spool, key_id)
    ship(place)
    place.CLUSTER_NODE = "Elsewhere"
    call_command("reconcile", "--node", "Books")
    out = capsys.readouterr().out
    assert "gate = rows" not in out
    assert "of Books are not on this machine" in out


def test_the_command_ends_with_1_when_something_differs(place, spool, key_id, capsys):
    answered(spool, key_id)
    ship(place)
    with pytest.raises(SystemExit) as ended:
        call_command("reconcile", "--node", "Books", "--json")
    assert ended.value.code == 1
    document = json.loads(capsys.readouterr().out)
    assert document["agrees"] is False
    assert document["findings"][0]["text"] == "0 counted, 10 logged"


def test_every_comparison_is_explained_to_operators(place, spool, key_id):
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    explained = page.partition("## Served = logged = billed")[2].partition("\n## ")[0]
    with open_counters("Books", place.TRINITY_DATA_DIR, worker=1):
        names = [check.name for check in reconciled(place).checks]
    assert len(names) == 6
    assert [name for name in names if name not in explained] == []


def test_the_command_refuses_what_is_no_month(place):
    with pytest.raises(CommandError, match="is no month as in 2026-11"):
        call_command("reconcile", "--month", "2026-13")


def test_the_command_refuses_a_node_of_which_nobody_has_heard(place, spool, key_id):
    answered(spool, key_id)
    ship(place)
    place.CLUSTER_NODE = "Elsewhere"
    with pytest.raises(CommandError, match="'Boks' has no books; these have: Elsewhere, Books"):
        call_command("reconcile", "--node", "Boks")


def fill(gate: GateWriter, key_id: int, counted: int) -> None:
    """Put a key into the gate that has made *counted* requests this month."""
    gate.set_month(MONTH, 0)
    row = gate.put(GateKey(digest=key_id.to_bytes(32, "little"), key_id=key_id))
    gate.restore(row, MONTH, counted)
