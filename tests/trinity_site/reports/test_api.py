"""What a report worker answers, over a real database."""

from __future__ import annotations

import asyncio
import csv
import io
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from django.db import OperationalError, connection

from billing.keys import digest
from billing.models import ReportCount
from billing.reports import Allowance
from billing.services import change_account
from telemetry import making
from telemetry._counters import AUTH_FAILURES, LRS_REQUESTS, NAMES
from telemetry._spool import ENDPOINTS, HTTP
from telemetry.models import UsageLog
from telemetry.parameters import ReportParameters
from telemetry.queries import Reading
from telemetry.renderers import FORMATS
from telemetry.reports import CURSOR_LIFE_S, Kind
from tests.billing.customers import AUTHOR, make_account
from tests.pricing.doubles import KEYS
from tests.telemetry.offices import full_file
from tests.telemetry.reported import ACCOUNT, START, chosen, figures_of, make_usage, write_usage
from tests.trinity_site.reports.desk import HEALTH_PORT, KEY, NOW_S, PRICES_ONLY, Conversation, Desk

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("plans")]
EVERYTHING = "from=2026-11-01&to=2026-11-04"


@pytest.fixture
def account(plans: None) -> Any:
    return make_account()


@pytest.fixture
def logs(account: Any) -> list[Any]:
    """Write usage that is the account's."""
    logs = [log._replace(account_id=account.pk) if log.account_id == ACCOUNT else log for log in make_usage()]
    write_usage(logs)
    return [log._replace(account_id=ACCOUNT) if log.account_id == account.pk else log for log in logs]


@pytest.fixture
async def desk(account: Any) -> AsyncIterator[Desk]:
    desk = Desk(account.pk)
    yield desk
    await desk.aclose()


def counted() -> int:
    return sum(ReportCount.objects.values_list("count", flat=True))


def sleeping() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT *, pg_s%'"
        )
        (number,) = cursor.fetchone()
    return int(number)


def problem(told: Conversation) -> tuple[int, str]:
    assert told.headers["content-type"] == "application/problem+json"
    document = msgspec.json.decode(told.body)
    assert document["status"] == told.status
    return told.status, document["code"]


async def count_of(desk: Desk) -> int:
    return await desk.maker._count(counted)


async def test_records_are_told_as_json(desk: Desk, logs: list[Any]) -> None:
    told = await desk.ask(f"/reports/usage?{EVERYTHING}&limit=10000")
    assert told.status == 200
    assert told.headers["content-type"] == "application/json"
    assert told.headers["cache-control"] == "no-store"
    assert int(told.headers["content-length"]) == len(told.body)
    document = msgspec.json.decode(told.body)
    assert len(document["rows"]) == len(chosen(logs))
    assert document["next"] is None


async def test_summary_is_told_with_totals(desk: Desk, logs: list[Any]) -> None:
    document = msgspec.json.decode((await desk.ask(f"/reports/summary?{EVERYTHING}&group_by=day,asset")).body)
    assert tuple(document["totals"].values()) == figures_of(chosen(logs))
    assert sum(row["answers"] for row in document["rows"]) == document["totals"]["answers"]


@pytest.mark.parametrize("name", FORMATS)
async def test_every_format_is_sent_whole(desk: Desk, logs: list[Any], name: str) -> None:
    told = await desk.ask(f"/reports/usage?{EVERYTHING}&format={name}")
    assert (told.status, told.is_whole) == (200, True)
    assert told.headers["content-type"] == FORMATS[name].content_type
    file = told.headers.get("content-disposition")
    assert file == (None if name in ("json", "text") else f'attachment; filename="usage-2026-11-01.{name}"')
    if name in ("csv", "tsv", "text"):
        assert len(told.pieces) > 3  # page after page
        assert len(told.body.splitlines()) - (2 if name == "text" else 1) == len(chosen(logs))
    else:
        assert int(told.headers["content-length"]) == len(told.body)


async def test_accept_chooses_the_format(desk: Desk, logs: list[Any]) -> None:
    told = await desk.ask(f"/reports/usage?{EVERYTHING}", headers={"Accept": "text/csv"})
    assert told.headers["content-type"].startswith("text/csv")
    told = await desk.ask(f"/reports/usage?{EVERYTHING}", headers={"Accept": "image/png"})
    assert problem(told) == (406, "not_acceptable")


async def test_pages_follow_the_link_and_cost_one_report(desk: Desk, logs: list[Any]) -> None:
    rows, address = [], f"/reports/usage?{EVERYTHING}&limit=100"
    while address:
        told = await desk.ask(address)
        document = msgspec.json.decode(told.body)
        rows += document["rows"]
        link = told.headers.get("link", "")
        assert (document["next"] or "") in link
        address = link.removeprefix("<").partition(">")[0]
    assert len(rows) == len(chosen(logs))
    assert await count_of(desk) == 1
    assert [log.status for log in desk.world.spool.take()] == [200] * -(-len(rows) // 100)


@pytest.mark.parametrize("spoilt", ["&asset=BTC", "&format=csv", "x"])
async def test_cursor_has_the_whole_question(desk: Desk, logs: list[Any], spoilt: str) -> None:
    first = await desk.ask(f"/reports/usage?{EVERYTHING}&limit=10")
    cursor = msgspec.json.decode(first.body)["next"]
    assert problem(await desk.ask(f"/reports/usage?cursor={cursor}{spoilt}")) == (400, "bad_request")
    assert problem(await desk.ask(f"/reports/summary?cursor={cursor}")) == (400, "bad_request")
    desk.now_s += CURSOR_LIFE_S + 1
    assert problem(await desk.ask(f"/reports/usage?cursor={cursor}")) == (400, "bad_request")
    assert await count_of(desk) == 1


async def test_cursor_goes_on_though_every_report_has_been_had(desk: Desk, logs: list[Any]) -> None:
    for _ in range(10):
        first = await desk.ask(f"/reports/usage?{EVERYTHING}&limit=10")
    cursor = msgspec.json.decode(first.body)["next"]
    assert (await desk.ask(f"/reports/usage?cursor={cursor}")).status == 200
    assert problem(await desk.ask("/reports/usage")) == (429, "report_quota_exceeded")


# What it costs


async def test_report_over_the_cap_is_refused_with_the_date_of_the_next(desk: Desk) -> None:
    for left in range(9, -1, -1):
        told = await desk.ask("/reports/summary")
        assert told.headers["ratelimit-policy"] == '"reports";q=10;w=2592000'
        assert told.headers["ratelimit"] == f'"reports";r={left};t=730800'
    told = await desk.ask("/reports/summary")
    assert problem(told) == (429, "report_quota_exceeded")
    document = msgspec.json.decode(told.body)
    assert (document["limit"], document["resets_at"]) == (10, "2026-12-01T00:00:00.000000Z")
    assert told.headers["retry-after"] == "730800"
    assert told.headers["ratelimit"] == '"reports";r=0;t=730800'
    assert await count_of(desk) == 10
    desk.now_s = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert (await desk.ask("/reports/summary")).status == 200


async def test_add_on_takes_the_limit_away(desk: Desk, account: Any) -> None:
    await desk.maker._count(
        lambda: change_account(account=account, plan=account.plan, report_addon=True, author=AUTHOR)
    )
    for _ in range(12):
        told = await desk.ask("/reports/summary")
        assert told.status == 200
        assert "ratelimit" not in told.headers
    assert await count_of(desk) == 12


REFUSED = [
    ("/reports/usage?from=soon", "bad_request"),
    ("/reports/usage?from=2026-02-30", "bad_request"),
    ("/reports/usage?from=2026-11-05&to=2026-11-04", "bad_request"),
    ("/reports/usage?from=2026-01-01&to=2026-11-04", "bad_request"),
    ("/reports/usage?group_by=day", "bad_request"),
    ("/reports/summary?group_by=day,day", "bad_request"),
    ("/reports/summary?group_by=hour,day,asset,source", "bad_request"),
    ("/reports/usage?limit=0", "bad_request"),
    ("/reports/usage?limit=10001", "bad_request"),
    ("/reports/usage?source=nobody", "bad_request"),
    ("/reports/usage?endpoint=reports/usage", "bad_request"),
    ("/reports/usage?asset=BTC&asset=ETH", "bad_request"),
    ("/reports/usage?colour=red", "bad_request"),
    ("/reports/usage?format=xml", "bad_request"),
    ("/reports/usage?api_key=x", "secret_in_query"),
]


@pytest.mark.parametrize(("target", "code"), REFUSED)
async def test_malformed_question_is_refused_and_costs_nothing(desk: Desk, target: str, code: str) -> None:
    told = await desk.ask(target)
    assert problem(told) == (400, code)
    name = target.partition("?")[2].partition("=")[0]
    assert msgspec.json.decode(told.body)["parameter"] in (name, "from")
    assert await count_of(desk) == 0


async def test_question_by_head_is_looked_at_and_costs_nothing(desk: Desk) -> None:
    told = await desk.ask("/reports/usage?format=csv", method="HEAD")
    assert (told.status, told.body) == (200, b"")
    assert told.headers["content-type"].startswith("text/csv")
    assert told.headers["ratelimit"].startswith('"reports";r=10')
    assert (await desk.ask("/reports/usage?limit=0", method="HEAD")).status == 400
    assert await count_of(desk) == 0
    assert [log.status for log in desk.world.spool.take()] == [200, 400]


async def test_report_that_fails_before_its_first_byte_costs_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(Reading, "page", fail)
    for name in ("json", "csv", "xlsx"):
        told = await desk.ask(f"/reports/usage?format={name}")
        assert problem(told) == (503, "reports_unavailable")
        assert told.headers["retry-after"] == "1"
    monkeypatch.setattr(Reading, "page", lambda *arguments: 1 / 0)
    assert problem(await desk.ask("/reports/usage")) == (500, "internal_error")
    assert await count_of(desk) == 0


async def test_report_that_fails_in_the_middle_is_not_ended_as_if_it_were_whole(
    desk: Desk, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, calls = Reading.page, 0

    def fail_later(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OperationalError("gone")
        return page(*arguments)

    monkeypatch.setattr(Reading, "page", fail_later)
    conversation = Conversation(f"/reports/usage?{EVERYTHING}&format=csv")
    with pytest.raises(OperationalError):
        await conversation.with_(desk.api)
    assert conversation.status == 200
    assert len(conversation.pieces) == 2
    assert not conversation.is_whole


async def test_file_with_too_many_rows_is_refused_and_costs_nothing(
    desk: Desk, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "pdf", FORMATS["pdf"]._replace(most_rows=5))
    told = await desk.ask(f"/reports/usage?{EVERYTHING}&format=pdf")
    assert problem(told) == (400, "too_many_rows")
    assert msgspec.json.decode(told.body)["most_rows"] == 5
    assert await count_of(desk) == 0


FILES = ("summary?format=csv", "summary?format=text", "usage?format=xlsx", "usage?format=pdf")


@pytest.mark.parametrize("target", FILES)
async def test_file_with_too_many_bytes_is_refused_and_costs_nothing(account: Any, target: str) -> None:
    desk = Desk(account.pk, ReportParameters(file_bytes=50))
    told = await desk.ask(f"/reports/{target}")
    assert problem(told) == (400, "too_many_rows")
    assert msgspec.json.decode(told.body)["most_bytes"] == 50
    assert await count_of(desk) == 0
    assert (await desk.ask("/reports/summary")).status == 200  # pages are no files
    await desk.aclose()


@pytest.mark.parametrize("target", FILES)
async def test_file_that_finds_no_room_is_refused_and_costs_nothing(
    desk: Desk, target: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(making, "KEPT_BYTES", 1)
    monkeypatch.setattr(tempfile, "TemporaryFile", full_file)
    told = await desk.ask(f"/reports/{target}")
    assert problem(told) == (503, "reports_unavailable")
    assert told.headers["retry-after"] == "1"
    assert "No space left" in caplog.text  # the operator is told what to look at
    assert await count_of(desk) == 0


# Who asks


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (None, (401, "unauthorized")),
        (KEYS["unknown"], (401, "unauthorized")),
        (KEYS["revoked"], (403, "revoked")),
        (PRICES_ONLY, (403, "not_in_plan")),
    ],
)
async def test_key_that_is_not_for_reports_is_refused(
    desk: Desk, key: str | None, expected: tuple[int, str]
) -> None:
    told = await desk.ask("/reports/usage", key=key)
    assert problem(told) == expected
    if key == PRICES_ONLY:
        assert b"not for reports" in told.body
    assert desk.counters.seen()[NAMES[AUTH_FAILURES]] == 1


async def test_key_without_requests_left_still_has_its_reports(desk: Desk) -> None:
    gate = desk.world.gate
    found = gate.find(digest(KEY))
    assert found is not None
    assert (await desk.ask("/reports/summary")).status == 200
    assert gate.usage(found).counted == 0  # a report is no request of the plan


# What is left of it


@pytest.mark.parametrize("kind", Kind)
async def test_report_leaves_a_usage_record_that_counts_in_no_month(desk: Desk, kind: Kind) -> None:
    await desk.ask(f"/reports/{kind.value}")
    await desk.ask(f"/reports/{kind.value}?limit=0")
    await desk.ask(f"/reports/{kind.value}", key=PRICES_ONLY)
    await desk.ask(f"/reports/{kind.value}", key=KEYS["unknown"])
    recorded = desk.world.spool.take()
    told = [(log.status, log.key_id, log.month, log.protocol) for log in recorded]
    assert told == [(200, 70, 0, HTTP), (400, 70, 0, HTTP), (403, 71, 0, HTTP)]
    assert {ENDPOINTS[log.endpoint] for log in recorded} == {f"reports/{kind.value}"}
    assert desk.counters.seen()[NAMES[LRS_REQUESTS]] == 4


# How many at once


async def test_third_report_of_an_account_at_once_is_told_to_wait(desk: Desk, account: Any) -> None:
    assert desk.room.enter(account.pk)
    assert desk.room.enter(account.pk)
    told = await desk.ask("/reports/usage")
    assert problem(told) == (503, "busy")
    assert told.headers["retry-after"] == "1"
    desk.room.leave(account.pk)
    for _ in range(3):  # each has given its place back
        assert (await desk.ask("/reports/usage")).status == 200
    assert await count_of(desk) == 3


async def test_account_that_asks_too_often_at_once_costs_no_query(
    desk: Desk, account: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, goes_on, look = asyncio.Semaphore(0), asyncio.Event(), desk.maker.look

    async def look_slowly(account_id: int, month: int) -> Allowance:
        looked.release()
        await goes_on.wait()
        return await look(account_id, month)

    monkeypatch.setattr(desk.maker, "look", look_slowly)
    most = desk.parameters.asked_at_once_of_account
    asked = [asyncio.create_task(desk.ask("/reports/usage?limit=none")) for _ in range(most)]
    for _ in asked:
        await looked.acquire()
    async with asyncio.timeout(5):
        told = await desk.ask("/reports/usage?limit=none")
    assert problem(told) == (503, "busy")
    assert told.headers["retry-after"] == "1"
    goes_on.set()
    assert {problem(await one) for one in asked} == {(400, "bad_request")}
    assert (await desk.ask("/reports/usage")).status == 200  # each has given its place back


async def test_client_that_leaves_cancels_its_query(
    desk: Desk, account: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def sleep(reading: Reading, *arguments: object) -> Any:
        loop.call_soon_threadsafe(begun.set)
        return list(UsageLog.objects.raw("SELECT *, pg_sleep(60) FROM generate_series(1, 1) AS account_id"))

    monkeypatch.setattr(Reading, "page", sleep)
    conversation = Conversation("/reports/usage")
    asking = asyncio.create_task(conversation.with_(desk.api))
    await begun.wait()
    conversation.left.set()
    async with asyncio.timeout(20):
        await asking
    assert conversation.status == 0
    assert await desk.maker._count(sleeping) == 0
    assert [log.status for log in desk.world.spool.take()] == [499]
    assert desk.room.enter(account.pk)
    assert await count_of(desk) == 0


async def test_client_that_leaves_in_the_middle_ends_the_reading(
    desk: Desk, account: Any, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, calls = Reading.page, 0

    def count(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return page(*arguments)

    monkeypatch.setattr(Reading, "page", count)
    told = await desk.ask(f"/reports/usage?{EVERYTHING}&format=csv", leaves_after=2)
    assert not told.is_whole
    assert calls <= 4
    assert desk.room.enter(account.pk)
    assert await count_of(desk) == 1


async def test_query_that_takes_too_long_is_cancelled(account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(account.pk, ReportParameters(piece_s=1))

    def sleep(reading: Reading, *arguments: object) -> Any:
        return list(UsageLog.objects.raw("SELECT *, pg_sleep(60) FROM generate_series(1, 1) AS account_id"))

    monkeypatch.setattr(Reading, "page", sleep)
    async with asyncio.timeout(30):
        told = await desk.ask("/reports/usage")
    assert problem(told) == (503, "reports_unavailable")
    assert await desk.maker._count(sleeping) == 0
    assert await count_of(desk) == 0
    await desk.aclose()


# The rest of the port


async def test_only_reports_are_here(desk: Desk) -> None:
    assert problem(await desk.ask("/price?asset=BTC")) == (404, "not_found")
    assert problem(await desk.ask("/metrics")) == (404, "not_found")
    assert problem(await desk.ask("/reports/usage", port=HEALTH_PORT)) == (404, "not_found")


async def test_other_methods_are_refused_and_options_named(desk: Desk) -> None:
    told = await desk.ask("/reports/usage", method="POST")
    assert problem(told) == (405, "method_not_allowed")
    assert told.headers["allow"] == "GET, HEAD, OPTIONS"
    told = await desk.ask("/reports/usage", method="OPTIONS", key=None)
    assert told.status == 204


async def test_description_is_cached(desk: Desk) -> None:
    told = await desk.ask("/openapi.json", key=None)
    assert set(msgspec.json.decode(told.body)["paths"]) == {f"/reports/{kind.value}" for kind in Kind}
    again = await desk.ask("/openapi.json", key=None, headers={"If-None-Match": told.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


async def test_health_says_what_is_missing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await desk.ask("/health/live", port=HEALTH_PORT, key=None)).status == 200
    told = await desk.ask("/health/ready", port=HEALTH_PORT, key=None)
    assert (told.status, msgspec.json.decode(told.body)["status"]) == (200, "ready")
    told = await desk.ask("/metrics", port=HEALTH_PORT, key=None)
    assert b"trinity_lrs_requests_total" in told.body

    async def dead() -> None:
        raise OperationalError

    monkeypatch.setattr(desk.maker, "ping", dead)
    told = await desk.ask("/health/ready", port=HEALTH_PORT, key=None)
    assert (told.status, msgspec.json.decode(told.body)["database"]) == (503, {"answers": False})


async def test_default_period_is_this_month_until_now(desk: Desk, logs: list[Any]) -> None:
    document = msgspec.json.decode((await desk.ask("/reports/usage")).body)
    assert (document["from"], document["to"]) == ("2026-11-01T00:00:00Z", "2026-11-22T13:00:00Z")
    desk.now_s = NOW_S + 0.25
    document = msgspec.json.decode((await desk.ask("/reports/summary")).body)
    assert (document["from"], document["to"]) == ("2026-11-01T00:00:00Z", "2026-11-22T14:00:00Z")
    assert START.isoformat()[:10] == document["from"][:10]


async def test_rows_of_csv_are_those_of_json(desk: Desk, logs: list[Any]) -> None:
    told = await desk.ask(f"/reports/summary?{EVERYTHING}&group_by=asset&format=csv")
    assert told.headers["content-length"] == str(len(told.body))  # made whole, of one query
    rows = list(csv.DictReader(io.StringIO(told.body.decode())))
    document = msgspec.json.decode((await desk.ask(f"/reports/summary?{EVERYTHING}&group_by=asset")).body)
    assert [{name: str(value) for name, value in row.items()} for row in document["rows"]] == rows
