"""Charts of usage: they say what the table beside them says, and both what was read."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

import pytest

from telemetry.charts import Chart, chart_by_name, chart_over_time, kind_of, make_charts, name_of, share
from telemetry.periods import DAYS, HOURS
from telemetry.plots import EMPTY, NAME_LETTERS
from telemetry.queries import Reading
from telemetry.reports import Kind, Row, Value
from tests.telemetry.reported import ACCOUNT, END, OTHER, START, ask, chosen, make_usage, sums, write_usage

HOUR = timedelta(hours=1)


def row(what: Value, ok: int, refused: int = 0, failed: int = 0) -> Row:
    return what, ok + refused + failed, ok, ok, refused, failed, ok, 100, 200


def told(chart: Chart) -> list[tuple[str, str]]:
    """Return what each column or bar says of itself."""
    return re.findall(r"<title>(.*?): (.*?)</title>", chart.drawing)


def test_hours_without_answers_are_empty_places_and_not_in_the_table() -> None:
    rows = [row(START, 10, 2), row(START + 3 * HOUR, 5, failed=1)]
    chart = chart_over_time(HOURS, START, START + 4 * HOUR, rows)
    assert told(chart) == [
        ("1 Nov, 00:00 UTC", "10 answered, 2 refused"),
        ("1 Nov, 03:00 UTC", "5 answered, 1 failed"),
    ]
    assert chart.heads == ("Time (UTC)", "Answers", "Answered", "Refused", "Failed")
    assert chart.rows == (("1 Nov, 00:00", "12", "10", "2", "0"), ("1 Nov, 03:00", "6", "5", "0", "1"))
    assert chart.drawing.count('text-anchor="middle"') == 4


def test_days_come_as_dates() -> None:
    chart = chart_over_time(DAYS, START, END, [row(date(2026, 11, 2), 1_000)])
    assert chart.rows == (("2 Nov", "1,000", "1,000", "0", "0"),)


def test_what_is_beyond_the_longest_bars_is_told_as_others() -> None:
    chart = chart_by_name("asset", [row("BTC", 60), row(None, 30)], 100)
    assert chart.rows == (("BTC", "60", "60.0 %"), ("none", "30", "30.0 %"), ("others", "10", "10.0 %"))
    assert told(chart) == [("BTC", "60"), ("none", "30"), ("others", "10")]


def test_nothing_is_said_where_there_is_nothing() -> None:
    chart = chart_by_name("asset", [], 0)
    assert (chart.drawing, chart.rows) == (EMPTY, ())
    assert chart_over_time(HOURS, START, START + HOUR, []).drawing == EMPTY


@pytest.mark.parametrize(
    ("group", "value", "name", "kind"),
    [
        ("status", 200, "200 OK", "ok"),
        ("status", 429, "429 Too Many Requests", "refused"),
        ("status", 499, "499", "refused"),
        ("status", 503, "503 Service Unavailable", "failed"),
        ("source", "coinbase-ws", "coinbase-ws", "ok"),
        ("source", None, "none", "ok"),
    ],
)
def test_name_and_kind_of_a_bar(group: str, value: Value, name: str, kind: str) -> None:
    assert (name_of(group, value), kind_of(group, value)) == (name, kind)


@pytest.mark.parametrize("status", [200, 400, 403, 404, 429, 499, 503])
def test_name_of_a_status_has_room_beside_its_bar(status: int) -> None:
    assert len(name_of("status", status)) <= NAME_LETTERS


def test_share_of_nothing_is_no_number() -> None:
    assert (share(1, 3), share(0, 0)) == ("33.3 %", "–")


@pytest.mark.django_db
@pytest.mark.parametrize(("account_id", "accounts"), [(ACCOUNT, [ACCOUNT]), (None, [ACCOUNT, OTHER])])
def test_charts_are_what_was_written_of_one_account_or_all(
    account_id: int | None, accounts: list[int]
) -> None:
    logs = make_usage()
    write_usage(logs)
    mine = [log for one in accounts for log in chosen(logs, account_id=one)]
    question, reading = ask(Kind.SUMMARY, account_id=account_id), Reading()
    with reading:
        totals = reading.totals(question)
        whole, charts = make_charts(question, HOURS, ("asset", "source", "status"), totals, reading.breakdown)
    assert tuple(whole.values()) == sums(mine)[()]
    over_time, by_asset, by_source, by_status = charts
    hours = sums(mine, lambda log: log.time_ns // 3_600_000_000_000)
    assert over_time.rows == tuple(
        (
            HOURS.name(datetime.fromtimestamp(hour * 3_600, UTC))[:-4],
            *(f"{one:,}" for one in figures(hours[hour])),
        )
        for hour in sorted(hours)
    )
    assets = sums(mine, lambda log: log.asset)
    assert {name: answers for name, answers, _ in by_asset.rows} == {
        asset: f"{one[0]:,}" for asset, one in assets.items()
    }
    assert {name for name, *_ in by_source.rows} >= {"coinbase-ws", "kraken-rest-sim", "none"}
    statuses = sums(mine, lambda log: log.status)
    assert {name[:3]: answers for name, answers, _ in by_status.rows} == {
        str(status): f"{one[0]:,}" for status, one in statuses.items()
    }


def figures(summed: tuple[int, ...]) -> tuple[int, ...]:
    answers, _, ok, refused, failed, *_ = summed
    return answers, ok, refused, failed
