from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.exceptions import BadRequest
from telemetry._spool import UDP
from telemetry.renderers import FORMATS
from telemetry.reports import Cursor, Kind, Wanted, parse_source, seal
from tests.telemetry.reported import ask
from trinity_site.reports.questions import DEFAULT_LIMIT, parse_report

NOW = datetime(2026, 11, 22, 13, 30, 15, 250_000, UTC)
SECRET = b"s" * 32


def parse(query: str, kind: Kind = Kind.USAGE, accept: str = "", now: datetime = NOW) -> Wanted:
    return parse_report(query.encode(), accept.encode(), kind, account_id=7, now=now, secret=SECRET)


def refusal(query: str, kind: Kind = Kind.USAGE, accept: str = "") -> tuple[str, Any]:
    with pytest.raises(BadRequest) as raised:
        parse(query, kind, accept)
    problem = raised.value.problem
    return problem.code, problem.figures.get("parameter")


def test_without_parameters_it_is_this_month_until_now_as_json() -> None:
    wanted = parse("")
    assert (wanted.format, wanted.limit, wanted.place) == ("json", DEFAULT_LIMIT, ())
    assert wanted.question == ask(start=datetime(2026, 11, 1, tzinfo=UTC), end=NOW)


def test_every_parameter_is_read() -> None:
    wanted = parse(
        "from=2026-11-02&to=2026-11-03T04:05:06.5Z&asset=btc&exchange=Kraken&source=kraken-ws&status=429"
        "&protocol=udp&endpoint=prices&key_id=7&format=csv&limit=20000&group_by=hour,asset",
        Kind.SUMMARY,
    )
    assert (wanted.format, wanted.limit) == ("csv", 20_000)
    assert wanted.question == ask(
        Kind.SUMMARY,
        start=datetime(2026, 11, 2, tzinfo=UTC),
        end=datetime(2026, 11, 3, 5, tzinfo=UTC),  # whole hours
        asset="BTC",
        exchange="kraken",
        source=parse_source("kraken-ws"),
        status=429,
        protocol=UDP,
        endpoint=1,
        key_id=7,
        group_by=("hour", "asset"),
    )


@pytest.mark.parametrize(
    ("given", "start", "end"),
    [
        ("to=2026-11-01", "2026-10-01T00:00", "2026-11-01T00:00"),  # the whole month before
        ("from=2026-10-05", "2026-10-05T00:00", "2026-11-22T13:30:15.250"),
        ("from=2026-11-01T05:00:00%2B05:00&to=2026-11-02", "2026-11-01T00:00", "2026-11-02T00:00"),
        (
            "from=2026-11-01T00:00:00Z&to=2026-11-01T00:00:00.000001Z",
            "2026-11-01T00:00",
            "2026-11-01T00:00:00.000001",
        ),
    ],
)
def test_period_is_read_by_utc(given: str, start: str, end: str) -> None:
    question = parse(given).question
    assert (question.start, question.end) == tuple(
        datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end)
    )


@pytest.mark.parametrize(
    ("given", "start_hour", "end_hour"),
    [
        ("from=2026-11-01T01:00:00Z&to=2026-11-01T02:00:00Z", 1, 2),
        ("from=2026-11-01T01:59:59Z&to=2026-11-01T02:00:01Z", 1, 3),
        ("from=2026-11-01T01:10:00Z&to=2026-11-01T01:11:00Z", 1, 2),
    ],
)
def test_summary_is_of_whole_hours(given: str, start_hour: int, end_hour: int) -> None:
    question = parse(given, Kind.SUMMARY).question
    assert (question.start.hour, question.end.hour) == (start_hour, end_hour)


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "2026-13-01", "2026-02-30", "20261101", "0000-01-01", "١٢٣٤-01-01"),
        *("2026-11-01T00:00", "2026-11-01T00:00:00", "2026-11-01 00:00:00Z", "2026-11-01T24:00:00Z"),
        *("2026-11-01T00:00:00.1234567Z", "0001-01-01T00:00:00%2B05:00"),
    ],
)
def test_time_that_is_none_is_refused(text: str) -> None:
    assert refusal(f"from={text}") == ("bad_request", "from")


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("to=0001-01-01", "to"),
        ("from=0001-01-01&to=0001-02-01", "to"),
        ("from=1969-12-31&to=1970-01-02", "from"),
        ("from=9998-12-31&to=9999-12-31T23:30:00Z", "to"),
    ],
)
def test_time_at_an_end_of_the_calendar_is_refused(kind: Kind, query: str, parameter: str) -> None:
    assert refusal(query, kind) == ("bad_request", parameter)


@pytest.mark.parametrize("kind", Kind)
def test_times_next_to_those_are_read(kind: Kind) -> None:
    assert parse("to=1970-01-01", kind).question.start.year == 1969
    assert parse("from=9998-12-31T23:30:00Z&to=9998-12-31T23:59:59Z", kind).question.end.year >= 9998


@pytest.mark.parametrize(("kind", "days"), [(Kind.USAGE, 93), (Kind.REPORT_SUMMARY, 400)])
def test_period_has_a_longest(kind: Kind, days: int) -> None:
    start = (NOW.replace(minute=0, second=0, microsecond=0) - timedelta(days=days)).isoformat()[:19]
    parse(f"from={start}Z&to=2026-11-22T13:00:00Z", kind)
    assert refusal(f"from={start}Z&to=2026-11-22T13:00:01Z", kind) == ("bad_request", "from")


@pytest.mark.parametrize(
    "query", ["from=2026-11-02&to=2026-11-02", "from=2026-12-01", "from=2026-11-03&to=2026-11-02"]
)
def test_period_must_have_a_length(query: str) -> None:
    assert refusal(query) == ("bad_request", "from")


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/csv", "csv"),
        ("TEXT/CSV; header=present", "csv"),
        ("text/plain, text/csv;q=0.9", "text"),
        ("text/*", "csv"),
        ("text/csv;q=0, text/*;q=0.5", "tsv"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "json"),
        ("application/pdf", "pdf"),
        (FORMATS["xlsx"].content_type, "xlsx"),
        ("application/json;q=0.1, text/tab-separated-values", "tsv"),
        ("text/csv;q=nonsense, application/json;q=0.2", "json"),
    ],
)
def test_accept_is_weighed(accept: str, name: str) -> None:
    assert parse("", accept=accept).format == name


def test_format_goes_before_accept() -> None:
    assert parse("format=pdf", accept="text/csv").format == "pdf"


@pytest.mark.parametrize("accept", ["image/png", "text/html", "*/*;q=0", "nonsense", ",", ";q=1"])
def test_nothing_that_is_accepted_is_refused(accept: str) -> None:
    assert refusal("", accept=accept)[0] == "not_acceptable"


def test_endpoints_are_those_of_the_report() -> None:
    assert parse("endpoint=reports/summary", Kind.REPORT_USAGE).question.endpoint == Kind.SUMMARY.endpoint
    assert refusal("endpoint=price", Kind.REPORT_USAGE) == ("bad_request", "endpoint")


def test_records_are_not_grouped() -> None:
    assert refusal("group_by=day") == ("bad_request", "group_by")


@pytest.mark.parametrize("name", ["csv", "tsv", "text", "xlsx", "pdf"])
def test_only_json_has_a_largest_page(name: str) -> None:
    assert parse(f"format={name}").limit is None
    assert parse(f"format={name}&limit=10001").limit == 10_001
    assert refusal("limit=10001") == ("bad_request", "limit")


def test_cursor_brings_the_question_and_keeps_its_moment() -> None:
    question = ask(asset="BTC")
    made_s = int(NOW.timestamp())
    text = seal(Cursor(question, 50, made_s, (NOW, 1, 2)), SECRET)
    later = NOW + timedelta(minutes=30)
    assert parse(f"cursor={text}", now=later) == Wanted(question, "json", 50, made_s, (NOW, 1, 2))
    assert parse(f"cursor={text}&limit=7&format=json", now=later).limit == 7
    assert refusal(f"cursor={text}&asset=BTC") == ("bad_request", "asset")
    assert refusal(f"cursor={text}", accept="text/csv") == ("bad_request", "cursor")
    assert refusal(f"cursor={text}", Kind.REPORT_USAGE) == ("bad_request", "cursor")


@given(st.binary(max_size=200), st.binary(max_size=60), st.sampled_from(Kind))
def test_any_question_is_read_or_refused(query: bytes, accept: bytes, kind: Kind) -> None:
    try:
        wanted = parse_report(query, accept, kind, account_id=7, now=NOW, secret=SECRET)
    except BadRequest as error:
        assert error.problem.status in (400, 406)
    else:
        assert wanted.question.start < wanted.question.end


@given(
    st.text(max_size=40), st.sampled_from(["from", "to", "asset", "source", "group_by", "cursor", "limit"])
)
def test_any_value_is_read_or_refused(text: str, name: str) -> None:
    try:
        parse(f"{name}={quote(text)}", Kind.SUMMARY)
    except BadRequest as error:
        assert error.problem.code in ("bad_request", "secret_in_query")
