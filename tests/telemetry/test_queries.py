"""What reports read, of both kinds of database, against sums in plain Python."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connections

from telemetry._spool import ENDPOINTS, PROTOCOLS, SIMULATED, SOURCES, UDP, UsageLog
from telemetry.exceptions import Cancelled
from telemetry.models import UsageLog as Log
from telemetry.queries import Reading
from telemetry.reports import Kind, Question, Value, parse_source, place_of, row_maker
from tests.telemetry.reported import END, START, ask, chosen, make_usage, sums, write_usage
from trinity_site.settings.base import SQLITE_OPTIONS

pytestmark = pytest.mark.django_db(databases=["default", "embedded"])


@pytest.fixture(params=["default", "embedded"])
def using(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def logs(using: str) -> list[UsageLog]:
    logs = make_usage()
    write_usage(logs, using)
    return logs


def all_pages(question: Question, using: str, size: int) -> list[tuple[Value, ...]]:
    reading, rows, after = Reading(using), [], ()
    fields = place_of(question)
    while True:
        with reading:
            read = reading.page(question, after, size)
        assert len(read) <= size
        rows += read
        if len(read) < size:
            return rows
        after = read[-1][: len(fields)] if question.kind.is_summary else (read[-1][0], *read[-1][-2:])


def moment(log: UsageLog) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=log.time_ns // 1_000)


def tag(log: UsageLog) -> str | None:
    if not log.source:
        return None
    return f"{log.exchange}-{SOURCES[log.source]}{'-sim' if log.flags & SIMULATED else ''}"


@pytest.mark.parametrize("size", [1_000, 100, 7])
def test_pages_together_are_every_record_once_in_order(using: str, logs: list[UsageLog], size: int) -> None:
    rows = all_pages(ask(), using, size)
    expected = sorted(chosen(logs), key=lambda log: (log.time_ns, logs.index(log)))
    assert [row[0] for row in rows] == [moment(log) for log in expected]
    assert [row[-1] for row in rows] == [logs.index(log) + 1 for log in expected]


def test_row_is_what_was_recorded(using: str, logs: list[UsageLog]) -> None:
    rows = map(row_maker(ask()), all_pages(ask(), using, 1_000))
    expected = sorted(chosen(logs), key=lambda log: (log.time_ns, logs.index(log)))
    for row, log in zip(rows, expected, strict=True):
        assert row == (
            moment(log),
            log.key_id,
            log.asset or None,
            log.exchange or None,
            tag(log),
            PROTOCOLS[log.protocol],
            ENDPOINTS[log.endpoint],
            log.status,
            log.assets,
            log.tier or None,
            log.latency_us,
            log.price or None,
            log.quote or None,
            "2026-11" if log.month else None,
        )


FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({"asset": "BTC"}, lambda log: log.asset == "BTC"),
    ({"exchange": "kraken"}, lambda log: log.exchange == "kraken"),
    ({"status": 429}, lambda log: log.status == 429),
    ({"protocol": UDP}, lambda log: log.protocol == UDP),
    ({"endpoint": 1}, lambda log: log.endpoint == 1),
    ({"key_id": 71}, lambda log: log.key_id == 71),
    ({"source": parse_source("kraken-ws")}, lambda log: tag(log) == "kraken-ws"),
    ({"source": parse_source("kraken-rest-sim")}, lambda log: tag(log) == "kraken-rest-sim"),
    ({"source": parse_source("kraken-ws"), "exchange": "coinbase"}, lambda log: False),
    ({"source": parse_source("index")}, lambda log: False),
    ({"start": START + timedelta(hours=7), "end": END - timedelta(hours=40)}, lambda log: True),
]


@pytest.mark.parametrize(("changes", "is_meant"), FILTERS)
def test_filters_choose_alike_in_records_and_sums(
    using: str, logs: list[UsageLog], changes: dict[str, Any], is_meant: Any
) -> None:
    detail, summary = ask(**changes), ask(Kind.SUMMARY, **changes)
    expected = [log for log in chosen(logs) if is_meant(log) and detail.start <= moment(log) < detail.end]
    assert len(all_pages(detail, using, 1_000)) == len(expected)
    reading = Reading(using)
    assert reading.count(detail, 1_000) == len(expected)
    for question in (detail, summary):
        figures = row_maker(summary)(reading.totals(question))
        assert figures == (sums(expected).get((), (0,) * 8))


def test_reports_are_told_apart_from_prices(using: str, logs: list[UsageLog]) -> None:
    of_reports = chosen(logs, of_reports=True)
    assert of_reports
    assert len(all_pages(ask(Kind.REPORT_USAGE), using, 1_000)) == len(of_reports)
    totals = row_maker(ask(Kind.REPORT_SUMMARY))(Reading(using).totals(ask(Kind.REPORT_SUMMARY)))
    assert totals == sums(of_reports)[()]


def test_another_accounts_records_are_nobody_elses(using: str, logs: list[UsageLog]) -> None:
    assert len(all_pages(ask(account_id=9), using, 1_000)) == 0
    assert Reading(using).totals(ask(Kind.SUMMARY, account_id=9))[0] in (0, None)


GROUPINGS: dict[tuple[str, ...], Any] = {
    ("hour",): lambda log: (moment(log).replace(minute=0, second=0, microsecond=0),),
    ("day",): lambda log: (moment(log).date(),),
    ("asset", "status"): lambda log: (log.asset or None, log.status),
    ("source",): lambda log: (tag(log),),
    ("source", "exchange"): lambda log: (tag(log), log.exchange or None),
    ("protocol", "endpoint", "key_id"): lambda log: (
        PROTOCOLS[log.protocol],
        ENDPOINTS[log.endpoint],
        log.key_id,
    ),
    ("tier", "day", "asset"): lambda log: (log.tier or None, moment(log).date(), log.asset or None),
}


@pytest.mark.parametrize("group_by", GROUPINGS, ids=",".join)
@pytest.mark.parametrize("size", [1_000, 3])
def test_groups_are_the_sums_of_their_records(
    using: str, logs: list[UsageLog], group_by: tuple[str, ...], size: int
) -> None:
    question = ask(Kind.SUMMARY, group_by=group_by)
    rows = list(map(row_maker(question), all_pages(question, using, size)))
    expected = sums(chosen(logs), GROUPINGS[group_by])
    assert len(rows) == len(expected)
    assert {row[: len(group_by)]: row[len(group_by) :] for row in rows} == expected
    assert Reading(using).count(question, 10_000) == len(expected)


@pytest.mark.parametrize("kind", [Kind.USAGE, Kind.SUMMARY])
def test_breakdown_has_the_largest_first_and_days_in_order(
    using: str, logs: list[UsageLog], kind: Kind
) -> None:
    assets = Reading(using).breakdown(ask(kind), "asset", 2)
    counts = sorted(
        (figures[0] for figures in sums(chosen(logs), lambda log: log.asset).values()), reverse=True
    )
    assert [row[1] for row in assets] == counts[:2]
    days = Reading(using).breakdown(ask(kind), "day", 10)
    assert [row[0] for row in days] == [(START + timedelta(days=number)).date() for number in range(3)]


def test_count_stops_where_it_is_told_to(using: str, logs: list[UsageLog]) -> None:
    assert Reading(using).count(ask(), 5) == 6
    assert Reading(using).count(ask(Kind.SUMMARY, group_by=("hour",)), 5) == 6


# Snapshots and cancelling, on connections of their own


@pytest.mark.django_db(transaction=True)
def test_snapshot_sees_nothing_of_what_comes_meanwhile() -> None:
    look_twice("default")


@pytest.mark.django_db(transaction=True)
def test_snapshot_has_cursors_planned_for_all_their_rows() -> None:
    def fraction() -> str:
        with connections["default"].cursor() as cursor:
            cursor.execute("SHOW cursor_tuple_fraction")
            return str(cursor.fetchone()[0])

    usual, reading = fraction(), Reading()
    with reading, reading.snapshot():
        assert fraction() == "1"
    assert fraction() == usual != "1"


@pytest.mark.django_db(databases=["embedded"], transaction=True)
def test_snapshot_of_sqlite_keeps_no_writer_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = connections["embedded"]
    monkeypatch.setitem(connections.databases["embedded"], "NAME", tmp_path / "file.sqlite3")
    monkeypatch.setitem(connections.databases["embedded"], "OPTIONS", SQLITE_OPTIONS)
    connections["embedded"] = connections.create_connection("embedded")
    try:
        call_command("migrate", "telemetry", database="embedded", verbosity=0)
        look_twice("embedded")
    finally:
        connections["embedded"].close()
        connections["embedded"] = in_memory


def look_twice(using: str) -> None:
    """Look at a snapshot while somebody writes."""
    logs = make_usage(20)
    write_usage(logs[:10], using)
    reading = Reading(using)
    with reading, reading.snapshot():
        first = reading.totals(ask(Kind.SUMMARY))
        elsewhere(lambda: write_usage(logs[10:], using, segment="1-2"))
        assert reading.totals(ask(Kind.SUMMARY)) == first
    assert Log.objects.using(using).count() == 20


@pytest.mark.django_db(databases=["default", "embedded"], transaction=True)
def test_cancel_ends_a_query_under_way(using: str) -> None:
    slow = {
        "default": "SELECT pg_sleep(60)",
        "embedded": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
    }
    reading, begun_s = Reading(using), time.monotonic()
    timer = threading.Timer(0.2, reading.cancel)
    timer.start()
    with pytest.raises(DatabaseError), reading, connections[using].cursor() as cursor:
        cursor.execute(slow[using])
    timer.join()
    assert time.monotonic() - begun_s < 30
    with pytest.raises(Cancelled), reading:
        pass


def test_cancel_of_what_has_ended_disturbs_nobody(using: str) -> None:
    reading = Reading(using)
    with reading:
        pass
    reading.cancel()
    with pytest.raises(Cancelled):
        reading.check()
    assert Reading(using).count(ask(), 5) == 0


def elsewhere(act: Any) -> None:
    """Run *act* in another thread, with connections of its own that are closed behind it."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001  # told below
            raised.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not raised, raised
