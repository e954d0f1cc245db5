"""The usage page of an account: its own figures and nobody else's, for the chosen period and key."""

from __future__ import annotations

import html
import re
import time
from datetime import timedelta
from typing import Self

import pytest
from django.conf import LazySettings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing import reports, usage_page
from billing.models import Account
from billing.usage import month_of, save_counts
from billing.usage_page import Choice, export
from telemetry._spool import PRICE, WS, UsageLog
from telemetry.periods import PERIODS
from telemetry.queries import Reading
from telemetry.reports import Wanted
from tests.billing.customers import make_account, make_key
from tests.telemetry.reported import write_usage

pytestmark = pytest.mark.usefixtures("plans")
DAY_NS = 86_400_000_000_000
USAGE = "/account/usage/"


def answers(
    account: Account, key_id: int, count: int, *, days_ago: int = 0, status: int = 200, asset: str = "BTC"
) -> None:
    """Write *count* answers as a node does."""
    log = UsageLog(
        time_ns=time.time_ns() - days_ago * DAY_NS,
        key_id=key_id,
        account_id=account.pk,
        month=month_of(timezone.now()),
        latency_us=150,
        status=status,
        assets=1,
        source=WS if status == 200 else 0,
        endpoint=PRICE,
        asset=asset,
        exchange="coinbase" if status == 200 else "",
    )
    write_usage([log] * count, segment=f"1-{time.time_ns()}")


def totals(page: str) -> list[int]:
    """Return answers, refused and failed, as the page shows them."""
    part = page[page.index("data-totals") :]
    return [int(text.replace(",", "")) for text in re.findall(r"<dd>([\d,]+) ", part)[:3]]


def rows_of(page: str, chart: str) -> list[list[str]]:
    """Return the table beside a chart."""
    part = page[page.index(f'data-chart="{chart}"') :].partition("</figure>")[0]
    found = re.findall(r"<tr>(.*?)</tr>", part)[1:]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in found]


def test_page_shows_what_was_answered_and_what_is_left(customer: Client, account: Account) -> None:
    key_id = make_key(account).key.pk
    answers(account, key_id, 1_200)
    answers(account, key_id, 30, status=429, asset="<b>")
    answers(account, key_id, 4, status=503, asset="ETH")
    save_counts(node="A", month=month_of(timezone.now()), counts={key_id: 1_204})
    reports.take(account_id=account.pk, month=month_of(timezone.now()))
    page = customer.get(USAGE).content.decode()
    assert totals(page) == [1_234, 30, 4]
    assert re.search(r"data-used>1,204 <span class=\"unit\">of 50,000</span>", page)
    assert re.search(r"data-reports>1 <span class=\"unit\">of 10</span>", page)
    assert [row[1:] for row in rows_of(page, "time")] == [["1,234", "1,200", "30", "4"]]
    assert rows_of(page, "asset") == [
        ["BTC", "1,200", "97.2 %"],
        ["&lt;b&gt;", "30", "2.4 %"],
        ["ETH", "4", "0.3 %"],
    ]
    assert [row[0] for row in rows_of(page, "source")] == ["coinbase-ws", "none"]
    assert [row[:2] for row in rows_of(page, "status")] == [
        ["200 OK", "1,200"],
        ["429 Too Many Requests", "30"],
        ["503 Service Unavailable", "4"],
    ]
    assert "<b>" not in page.replace("<body>", "")


@pytest.mark.parametrize(("period", "seen"), [("24h", 1), ("7d", 11), ("30d", 111), ("90d", 1_111)])
def test_period_says_how_far_back(customer: Client, account: Account, period: str, seen: int) -> None:
    key_id = make_key(account).key.pk
    for days_ago, count in ((0, 1), (5, 10), (20, 100), (80, 1_000)):
        answers(account, key_id, count, days_ago=days_ago)
    page = customer.get(USAGE, {"period": period}).content.decode()
    assert totals(page)[0] == seen
    assert PERIODS[period].title in page


def test_key_can_be_chosen(customer: Client, account: Account) -> None:
    first, second = (make_key(account, name=name).key for name in ("first", "second"))
    answers(account, first.pk, 5)
    answers(account, second.pk, 7)
    assert [
        totals(customer.get(USAGE, {"key": key}).content.decode())[0] for key in ("", first.pk, second.pk)
    ] == [12, 5, 7]


def test_usage_and_keys_of_others_are_not_told(customer: Client, account: Account) -> None:
    other = make_account("eve@example.com")
    stranger = make_key(other, name="not yours").key
    answers(other, stranger.pk, 99)
    for chosen in ({}, {"key": stranger.pk}, {"key": stranger.pk, "period": "30d"}):
        page = customer.get(USAGE, chosen).content.decode()
        assert totals(page)[0] == 0
        assert "not yours" not in page
        body = customer.get(f"{USAGE}csv/", chosen)
        assert body.status_code == 404 if "key" in chosen else b"99" not in body.content


NO_PERIOD, NO_KEY = (
    "There is no such period. This is: Last 7 days.",
    "You have no such key. This is: all keys.",
)
TAMPERED = {
    "period=1000d": NO_PERIOD,
    "period=": NO_PERIOD,
    "period=7d%00": NO_PERIOD,
    "period=%FF%3Cscript%3E": NO_PERIOD,
    "period=7d&period=8d": NO_PERIOD,
    "key=nothing": NO_KEY,
    "key=1'--": NO_KEY,
    "key=%00": NO_KEY,
    "key=-1": NO_KEY,
    "key=" + "9" * 5_000: NO_KEY,
}


@pytest.mark.parametrize("query", TAMPERED, ids=lambda query: query[:24])
def test_choice_that_cannot_be_is_said_and_left_out(customer: Client, account: Account, query: str) -> None:
    answers(account, make_key(account).key.pk, 5)
    answer = customer.get(f"{USAGE}?{query}")
    page = answer.content.decode()
    assert answer.status_code == 200
    assert [html.unescape(one) for one in re.findall(r"<li>([^<]*)</li></ul>", page)] == [TAMPERED[query]]
    assert shown(page) == ["7d", ""]  # the form says what is shown
    assert '<h2 id="period">Last 7 days</h2>' in page
    assert totals(page)[0] == 5
    assert "\0" not in page
    assert "99999" not in page
    assert customer.get(f"{USAGE}csv/?{query}").status_code == 404


@pytest.mark.parametrize(
    ("query", "period"),
    [("period=24h&period=30d", "30d"), ("asset=" + "a" * 201, "7d"), ("status=abc&%00=%00", "7d")],
)
def test_form_says_what_is_shown_whatever_else_was_sent(customer: Client, query: str, period: str) -> None:
    page = customer.get(f"{USAGE}?{query}").content.decode()
    assert shown(page) == [period, ""]
    assert f'<h2 id="period">{PERIODS[period].title}</h2>' in page


def shown(page: str) -> list[str]:
    """Return the period and the key that the form has chosen."""
    return re.findall(r'<option value="([^"]*)" selected', page)


def test_plan_without_limits_is_said(client: Client) -> None:
    client.force_login(make_account("bob@example.com", plan="unlimited").user)
    page = client.get(USAGE).content.decode()
    assert page.count('<span class="unit">no limit</span>') == 2
    assert "<progress" not in page
    assert page.count("Nothing was answered in this time.") == 4


@pytest.mark.parametrize(
    ("format", "kind"), [("csv", "text/csv"), ("tsv", "text/tab-separated"), ("text", "text/plain")]
)
def test_download_is_what_the_page_shows(customer: Client, account: Account, format: str, kind: str) -> None:
    key_id = make_key(account).key.pk
    answers(account, key_id, 6)
    answers(account, key_id, 2, days_ago=3, asset="ETH")
    answer = customer.get(f"{USAGE}{format}/", {"period": "30d", "key": key_id})
    assert answer.headers["Content-Type"].startswith(kind)
    assert re.fullmatch(
        r'attachment; filename="usage-30d-\d{4}-\d\d-\d\d\.\w{3}"', answer.headers["Content-Disposition"]
    )
    days = [f"{timezone.now() - timedelta(days):%Y-%m-%d}" for days in (3, 0)]
    lines = answer.content.decode().splitlines()
    told = [re.split(r"[,\t]|\s{2,}", line)[:4] for line in lines if line[:2] == "20"]
    assert told == [[days[0], "ETH", "coinbase-ws", "2"], [days[1], "BTC", "coinbase-ws", "6"]]
    assert answer.headers["Cache-Control"].startswith("max-age=0")


@pytest.mark.django_db(transaction=True)
def test_download_is_read_within_one_snapshot() -> None:
    account = make_account()
    answers(account, make_key(account).key.pk, 6)
    with CaptureQueriesContext(connection) as queries:
        assert b"BTC" in export(account, Choice("7d", None), timezone.now(), "csv")
    words = [query["sql"].partition(" ")[0] for query in queries.captured_queries]
    assert (words[0], words.count("BEGIN"), words[-1]) == ("BEGIN", 1, "ROLLBACK")


def test_download_that_fails_lets_go_of_what_it_read(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    class Lines:
        def __init__(self, wanted: Wanted, reading: Reading, *, page_rows: int) -> None:
            self._reading = reading

        def __iter__(self) -> Self:
            return self

        def __next__(self) -> bytes:
            raise MemoryError

        def close(self) -> None:
            closed.append(self._reading._connection is not None)

    monkeypatch.setattr(usage_page, "make_lines", Lines)
    with pytest.raises(MemoryError):
        export(account, Choice("7d", None), timezone.now(), "csv")
    assert closed == [True]  # while the connection was still its own


def test_page_tells_how_the_reports_of_what_it_shows_are_asked_for(
    customer: Client, account: Account
) -> None:
    key_id = make_key(account).key.pk
    page = customer.get(USAGE, {"period": "last-month", "key": key_id}, headers={"host": "localhost:8080"})
    commands = [html.unescape(text) for text in re.findall(r'id="command-\d">(.*?)</code>', page.text)]
    now = timezone.now()
    ends = f"{now:%Y-%m}-01T00:00:00Z"
    asked = (
        "usage.csv http://localhost:9090/reports/usage?format=csv",
        "summary.xlsx http://localhost:9090/reports/summary?format=xlsx&group_by=day,asset",
        "summary.pdf http://localhost:9090/reports/summary?format=pdf&group_by=day",
    )
    for command, (file, _, address) in zip(commands, (one.partition(" ") for one in asked), strict=True):
        assert command.startswith(f'curl --fail -H "X-API-Key: $TRINITY_KEY" -o {file} "{address}&from=20')
        assert command.endswith(f'&to={ends}&key_id={key_id}"')


def test_page_of_a_node_without_reports_tells_no_way_to_them(
    customer: Client, settings: LazySettings
) -> None:
    settings.SERVER_TYPE = "APP_SERVER"
    page = customer.get(USAGE).text
    assert "/reports/" not in page
    assert "report server" not in page


def test_download_of_another_kind_is_not_there(customer: Client) -> None:
    assert customer.get(f"{USAGE}pdf/").status_code == 404


@pytest.mark.parametrize("path", ["", "csv/"])
def test_without_a_session_one_is_led_to_the_sign_in(client: Client, path: str) -> None:
    assert client.get(USAGE + path).headers["Location"].startswith("/account/login/")
    assert client.post(USAGE + path).status_code == 405


def test_page_reads_the_sums_and_never_the_rows(customer: Client, account: Account) -> None:
    answers(account, make_key(account).key.pk, 3)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        customer.get(USAGE)
    asked = [query["sql"] for query in queries.captured_queries]
    assert any("usage_rollups" in sql for sql in asked)
    assert not any("usage_logs" in sql for sql in asked)


def test_page_keeps_to_the_strict_policy(customer: Client, account: Account) -> None:
    answers(account, make_key(account).key.pk, 3)
    answer = customer.get(USAGE)
    assert "'unsafe" not in answer.headers["Content-Security-Policy"]
    page = answer.content.decode()
    assert " style=" not in page
    assert not re.search(r"<script(?! src=)", page)
