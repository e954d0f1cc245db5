"""The books of usage held against one another: what is a difference, and what is none."""

from typing import Any

import pytest

from telemetry._spool import Tally
from telemetry.reconciling import Books, Range, Report, SegmentFacts, reconcile

KEY = (7, 202611)
HOUR = "2026-11-22 13"


def segment(**changes: Any) -> SegmentFacts:  # Any: fields of several types
    """A segment of ten answers, all in the database, its file gone."""
    facts = SegmentFacts(
        node="BeastMain",
        name="1-1000",
        boot_ns=900,
        written=None,
        ended=10,
        covered=10,
        rows=10,
        stored=10,
        tally=Tally(10, 10, 0, 0, 0),
        alive=False,
    )
    return facts._replace(**changes)


def reconciled(*segments: SegmentFacts, **changes: Any) -> Report:
    """Reconcile books that agree but for *changes*."""
    books = Books(
        node="BeastMain",
        month=202611,
        segments=list(segments or [segment()]),
        appended=Range(10, 10),
        appended_from_ns=800,
        rows={KEY: 10},
        rows_of_all={KEY: 10},
        rolled={KEY: 10},
        hours={HOUR: 10},
        rolled_hours={HOUR: 10},
        waiting={},
        counted={KEY: Range(10, 10)},
    )
    return reconcile(books._replace(**changes))


def differing(report: Report) -> dict[str, int]:
    return {check.name: check.difference for check in report.checks if check.difference}


def test_books_that_agree_have_no_finding():
    report = reconciled()
    assert report.agrees
    assert [check.name for check in report.checks] == [
        "counters = spool",
        "spool = ledger",
        "ledger = rows",
        "rows = rollups",
        "months = rollups",
        "gate = rows + waiting",
    ]
    assert {(check.left, check.right) for check in report.checks} == {(10, 10)}


def test_records_on_their_way_are_no_difference():
    live = segment(written=10, ended=None, covered=6, rows=6, stored=6, alive=True)
    books: dict[str, Any] = {name: {KEY: 6} for name in ("rows", "rows_of_all", "rolled")}
    books |= {name: {HOUR: 6} for name in ("hours", "rolled_hours")}
    report = reconciled(live, **books, waiting={KEY: 4})
    assert report.agrees
    assert "4 on their way" in [check.note for check in report.checks]


def test_answers_given_meanwhile_are_no_difference():
    assert reconciled(appended=Range(8, 12), counted={KEY: Range(8, 12)}).agrees


@pytest.mark.parametrize(
    ("changed", "check", "by"),
    [
        ({"ended": 12}, "spool = ledger", 2),
        ({"ended": None}, "spool = ledger", 1),
        ({"stored": 9}, "ledger = rows", 1),
        ({"stored": 11}, "ledger = rows", 1),
    ],
)
def test_a_segment_that_does_not_add_up_is_found(changed, check, by):
    report = reconciled(segment(**changed), appended=None)
    assert differing(report) == {check: by}
    assert [(one.check, one.where) for one in report.findings] == [(check, "BeastMain 1-1000")]


def test_damaged_records_are_told_and_no_difference():
    report = reconciled(segment(rows=9, stored=9), appended=None)
    assert report.agrees
    assert "1 damaged records left out" in [check.note for check in report.checks]


def test_places_that_a_power_cut_took_from_the_file_alone_are_not_lost():
    assert reconciled(segment(written=9, ended=9)).agrees
    assert reconciled(segment(written=None, ended=9)).agrees


def test_rows_too_old_to_be_there_are_not_compared():
    report = reconciled(segment(stored=None))
    assert report.agrees


@pytest.mark.parametrize(
    ("changed", "check"),
    [
        ({"hours": {HOUR: 9}}, "rows = rollups"),
        ({"rolled_hours": {HOUR: 9, "2026-11-22 14": 1}}, "rows = rollups"),
        ({"rolled": {KEY: 9}}, "months = rollups"),
        ({"rolled": {KEY: 9, (8, 202611): 1}}, "months = rollups"),
        ({"counted": {KEY: Range(9, 9)}}, "gate = rows + waiting"),
        ({"counted": {}}, "gate = rows + waiting"),
        ({"counted": {KEY: Range(11, 11)}}, "gate = rows + waiting"),
        ({"waiting": {KEY: 1}}, "gate = rows + waiting"),
        ({"appended": Range(11, 11)}, "counters = spool"),
        ({"appended": Range(9, 9)}, "counters = spool"),
    ],
)
def test_a_book_that_says_something_else_is_found(changed, check):
    report = reconciled(**changed)
    assert check in differing(report)
    assert {one.check for one in report.findings} == {check}


@pytest.mark.parametrize(
    ("tally", "counted", "agrees"),
    [
        (Tally(12, 12, 2, 0, 0), 12, True),  # two were to be answered later
        (Tally(12, 12, 2, 0, 0), 13, False),
        (Tally(12, 12, 2, 1, 0), 12, False),
        (Tally(11, 10, 0, 0, 0), 11, True),  # killed between the gate and the append
        (Tally(10, 10, 0, 0, 1), 11, True),  # answered without a record: the operator chose to
    ],
)
def test_what_a_killed_worker_left_unanswered_is_borne_out_by_its_tally(tally, counted, agrees):
    report = reconciled(segment(tally=tally), counted={KEY: Range(counted, counted)})
    assert report.agrees is agrees


def test_a_tally_counts_once_however_many_segments_have_it():
    first = segment(tally=Tally(5, 5, 1, 0, 0), ended=5, covered=5, rows=5, stored=5)
    second = first._replace(name="1-2000", tally=Tally(11, 11, 1, 0, 0))
    assert reconciled(first, second, counted={KEY: Range(11, 11)}).agrees
    assert not reconciled(first, second, counted={KEY: Range(12, 12)}).agrees


def test_processes_older_than_the_counters_are_not_held_against_them():
    old = segment(name="1-500", boot_ns=400)
    assert reconciled(old, segment(), rows={KEY: 20}, counted={KEY: Range(20, 20)}).agrees
