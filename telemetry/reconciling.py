"""Served = logged = billed: what each book says of the same answers, held against the others. Pure.

| book | says |
|---|---|
| counters | how many records the workers have appended |
| spool | how far each segment on the disk goes |
| ledger | which places of which segment are in the database |
| rows, rollups, months | what was written with them, in the same transaction |
| gate | how many requests each key has made in the month |

What is read while answers go on is read twice, before and after the others: a book that lies between its
two readings differs in nothing. What is on its way (in the spool, not yet in the ledger) is no difference,
nor is what a killed worker had admitted and not yet answered, as far as its tally bears that out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from telemetry._spool import Tally

KeyMonth = tuple[int, int]  # key id, month


class SegmentFacts(NamedTuple):
    """One segment by all books. None: that book has nothing to say of it."""

    node: str
    name: str
    boot_ns: int
    written: int | None
    """Places, by its file; None when there is no file."""
    ended: int | None
    """Places, by its last envelope; None before that one."""
    covered: int
    """Places that the ledger has."""
    rows: int
    """Of them, those with a whole record."""
    stored: int | None
    """Rows in the table; None when they were not counted, or are too old to be there."""
    tally: Tally
    alive: bool
    """Whether its process may still append to it."""


class Range(NamedTuple):
    """A number that went up while it was looked at."""

    before: int
    after: int


class Books(NamedTuple):
    """One node's books of one month."""

    node: str
    month: int
    segments: list[SegmentFacts]
    appended: Range | None
    """By the counters, since they were made; None when they are not there."""
    appended_from_ns: int
    """When the counters were made: younger processes are in them whole."""
    rows: Mapping[KeyMonth, int]
    """Rows with a month, of this node."""
    rows_of_all: Mapping[KeyMonth, int]
    """The same of all nodes, to be held against the rollups, which know no node."""
    rolled: Mapping[KeyMonth, int]
    hours: Mapping[str, int]
    """Rows of all nodes by the hour, refusals included."""
    rolled_hours: Mapping[str, int]
    waiting: Mapping[KeyMonth, int]
    """Records in the spool that the ledger has not."""
    counted: Mapping[KeyMonth, Range] | None
    """By the gate, or by billing's counts where the node does not run; None: it runs elsewhere."""


class Check(NamedTuple):
    """One comparison: what stands on both sides, and what differs."""

    name: str
    left: int
    right: int
    difference: int
    note: str = ""


class Finding(NamedTuple):
    """One difference, where it is."""

    check: str
    where: str
    text: str


class Report(NamedTuple):
    node: str
    month: int
    checks: list[Check]
    findings: list[Finding]
    waiting: int
    """Records on their way to the database."""

    @property
    def agrees(self) -> bool:
        return not self.findings


def reconcile(books: Books) -> Report:
    """Hold a node's books against one another."""
    waiting = sum(max(0, (one.written or 0) - one.covered) for one in books.segments)
    report = Report(books.node, books.month, [], [], waiting)
    _check_counters(books, report)
    _check_spool(books, report)
    _check_rows(books, report)
    _check_rollups(books, report)
    _check_gate(books, report)
    return report


def _check_counters(books: Books, report: Report) -> None:
    """Counters against spool: of the processes that began after the counters were made."""
    if books.appended is None:
        return
    young = [one for one in books.segments if one.boot_ns >= books.appended_from_ns]
    places = sum(_places(one) for one in young)
    doubtful = sum(doubt(last.tally) for last in last_of_each(young))
    low, high = books.appended.before - doubtful, books.appended.after + doubtful
    difference = _outside(places, low, high)
    report.checks.append(Check("counters = spool", books.appended.after, places, difference))
    if difference:
        text = f"the workers have counted {books.appended.after:,} records, their segments hold {places:,}"
        report.findings.append(Finding("counters = spool", books.node, text))


def _check_spool(books: Books, report: Report) -> None:
    """Spool against ledger: what a file holds is on its way, what has no file must be covered whole."""
    lost = 0
    for one in books.segments:
        if one.written is None and (one.ended is None or one.ended > one.covered):
            lost += max(1, (one.ended or 0) - one.covered)
            report.findings.append(Finding("spool = ledger", f"{one.node} {one.name}", _loss(one)))
    places = sum(_places(one) for one in books.segments)
    covered = sum(one.covered for one in books.segments)
    note = f"{report.waiting:,} on their way" if report.waiting else ""
    report.checks.append(Check("spool = ledger", places, covered + report.waiting, lost, note))


def _check_rows(books: Books, report: Report) -> None:
    """Ledger against rows."""
    compared = [one for one in books.segments if one.stored is not None]
    difference = 0
    for one in compared:
        if one.stored != one.rows:
            difference += abs((one.stored or 0) - one.rows)
            text = f"the ledger has {one.rows:,} rows, the table {one.stored:,}"
            report.findings.append(Finding("ledger = rows", f"{one.node} {one.name}", text))
    damaged = sum(one.covered - one.rows for one in books.segments)
    note = f"{damaged:,} damaged records left out" if damaged else ""
    ledger, table = sum(one.rows for one in compared), sum(one.stored or 0 for one in compared)
    report.checks.append(Check("ledger = rows", ledger, table, difference, note))


def _check_rollups(books: Books, report: Report) -> None:
    """Rows by the hour, and counted ones by key, against the rollups."""
    for name, rows, rolled in (
        ("rows = rollups", books.hours, books.rolled_hours),
        ("months = rollups", _named(books.rows_of_all), _named(books.rolled)),
    ):
        difference = 0
        for where in sorted({*rows, *rolled}):
            left, right = rows.get(where, 0), rolled.get(where, 0)
            if left != right:
                difference += abs(left - right)
                report.findings.append(Finding(name, where, f"{left:,} rows, {right:,} in the rollups"))
        report.checks.append(Check(name, sum(rows.values()), sum(rolled.values()), difference))


def _named(sums: Mapping[KeyMonth, int]) -> dict[str, int]:
    return {_key(key): count for key, count in sums.items()}


def _key(key: KeyMonth) -> str:
    return f"key {key[0]}, {key[1] // 100}-{key[1] % 100:02}"


def _check_gate(books: Books, report: Report) -> None:
    """The gate against the rows and what is on its way to them, key by key.

    A key may have been counted more often than it was logged: by as many requests as the node's processes
    admitted and have not answered. It is never logged more often than it was counted.
    """
    if books.counted is None:
        return
    name, difference, unanswered = "gate = rows + waiting", 0, 0
    for key in sorted({*books.rows, *books.waiting, *books.counted}):
        logged = books.rows.get(key, 0) + books.waiting.get(key, 0)
        counted = books.counted.get(key, Range(0, 0))
        unanswered += max(0, counted.before - logged)
        if logged > counted.after:
            difference += logged - counted.after
            text = f"{counted.after:,} counted, {logged:,} logged"
            report.findings.append(Finding(name, _key(key), text))
    allowed = sum(unanswered_at_most(one.tally) for one in last_of_each(books.segments))
    if unanswered > allowed:
        difference += unanswered - allowed
        text = f"{unanswered:,} were counted and not logged, {allowed:,} are accounted for by tallies"
        report.findings.append(Finding(name, books.node, text))
    counted_all = sum(one.after for one in books.counted.values())
    logged_all = sum(books.rows.values()) + sum(books.waiting.values())
    note = f"{unanswered:,} admitted and not answered" if unanswered else ""
    report.checks.append(Check(name, counted_all, logged_all, difference, note))


def last_of_each(segments: Iterable[SegmentFacts]) -> list[SegmentFacts]:
    """Return each process's segment with its latest tally: tallies are of the process since its start."""
    processes: dict[tuple[str, str, int], SegmentFacts] = {}
    for one in segments:
        process = one.node, one.name.partition("-")[0], one.boot_ns
        known = processes.get(process)
        if known is None or one.tally.entered >= known.tally.entered:
            processes[process] = one
    return list(processes.values())


def doubt(tally: Tally) -> int:
    """Return how many records a process may have been about to append: one at most."""
    return tally.entered - tally.left


def unanswered_at_most(tally: Tally) -> int:
    """Return how many requests a process may have counted and left without a record."""
    return tally.opened - tally.closed + tally.shed + doubt(tally)


def sum_by_key(pairs: Iterable[tuple[KeyMonth, int]]) -> dict[KeyMonth, int]:
    sums: dict[KeyMonth, int] = defaultdict(int)
    for key, count in pairs:
        sums[key] += count
    return dict(sums)


def _places(one: SegmentFacts) -> int:
    """Return how many places were written; after a power cut the ledger may know of more than the file."""
    return max(one.written or 0, one.ended or 0, one.covered)


def _loss(one: SegmentFacts) -> str:
    if one.ended is None:
        return f"its file is gone before its end was told; the ledger has {one.covered:,} places"
    return f"its file is gone, and of {one.ended:,} places the ledger has {one.covered:,}"


def _outside(value: int, low: int, high: int) -> int:
    return max(low - value, value - high, 0)
