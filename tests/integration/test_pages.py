"""The public pages through Django's whole stack, without a database."""

import json
import re
import time
from typing import Any

import pytest
from django.test import AsyncClient, RequestFactory

from billing.offers import Offer
from pricing import openapi
from pricing.catalogue import Catalogue
from pricing.problems import PROBLEMS
from tests.clients import StatefulClient
from tests.exchanges.boards import write_price
from tests.trinity_site.pages import board_of, catalogue_of, runtime_of
from trinity_site import views
from udp_engine.wire import CODES

PAGES = ("/", "/docs", "/status")
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture
def runtime() -> Any:
    now = time.monotonic_ns()
    board = board_of(now)
    write_price(board, "BTC", "coinbase", "67123.450", mono_ns=now)
    write_price(board, "BTC", "kraken", "67100", mono_ns=now - 60 * 10**9)
    return runtime_of(board, catalogue_of("BTC", "ETH"))


async def shown(path: str, runtime: Any = None, **headers: str) -> Any:  # Any: a test client's response
    state = {} if runtime is None else {"runtime": runtime}
    return await StatefulClient(state=state).get(path, headers=headers or BROWSER)


async def text_of(path: str, runtime: Any = None) -> str:
    answer = await shown(path, runtime)
    assert answer.status_code == 200
    return str(answer.content.decode())


async def test_home_page_shows_what_is_listed_whatever_it_is_called() -> None:
    listed = runtime_of(board_of(time.monotonic_ns()), catalogue_of("PEPE"))
    assert '<li class="card" data-price="PEPE"' in await text_of("/", listed)
    assert "No assets are listed yet" not in await text_of("/", listed)


async def test_home_page_shows_the_price_with_every_digit(runtime: Any) -> None:
    text = await text_of("/", runtime)
    card = re.search(r'<li class="card" data-price="BTC".*?</li>', text, re.DOTALL)
    assert card is not None
    assert '<span data-field="price">67123.450</span>' in card.group()
    assert 'data-digits="67123.450"' in card.group()
    assert "Coinbase" in card.group()


async def test_listed_asset_without_a_price_has_a_card_that_waits(runtime: Any) -> None:
    text = await text_of("/", runtime)
    card = re.search(r'<li class="card" data-price="ETH".*?</li>', text, re.DOTALL)
    assert card is not None
    assert '<span data-field="price">–</span>' in card.group()
    assert "No price yet" in card.group()


async def test_demo_offers_what_is_listed(runtime: Any) -> None:
    text = await text_of("/", runtime)
    assert re.findall(r'<option value="(\w+)">', text) == ["coinbase", "kraken"]
    assert "<option selected>BTC</option>" in text
    assert "<option>ETH</option>" in text


async def test_home_page_says_where_the_money_goes() -> None:
    text = re.sub(r"<[^>]+>|\s+", " ", await text_of("/"))
    assert "All subscription revenue goes to Cross Power Ministries of Pakistan" in re.sub(" +", " ", text)


async def test_home_page_tells_the_plans_and_where_to_begin(runtime: Any) -> None:
    pro, lifetime = (
        Offer("Pro", "$30/month", 50_000, 10, 20),
        Offer("Lifetime", "$3,000 once", None, 100, 200),
    )
    runtime.offers.rows = (pro, lifetime)
    text = await text_of("/", runtime)
    table = re.search(r'<table class="plans">.*?</table>', text, re.DOTALL)
    assert table is not None
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", table.group())[4:]
    shown = [re.sub(r"<[^>]+>", "", cell) for cell in cells]
    assert shown[:4] == ["Pro", "$30/month", "50,000", "10 up to 20 at once"]
    assert shown[4:] == ["Lifetime", "$3,000 once", "no limit", "100 up to 200 at once"]
    assert '<a class="button" href="/account/">Open an account</a>' in text


async def test_home_page_has_no_plans_before_they_were_read(runtime: Any) -> None:
    assert "plans-title" not in await text_of("/", runtime)


@pytest.mark.parametrize("path", PAGES)
async def test_page_opens_without_anything_live(path: str) -> None:
    assert "<h1" in await text_of(path)


@pytest.mark.parametrize("path", PAGES)
async def test_page_opens_with_an_empty_catalogue(path: str) -> None:
    empty = runtime_of(board_of(time.monotonic_ns()), Catalogue({}, {}))
    assert "<h1" in await text_of(path, empty)


async def test_status_page_tells_each_exchange_and_the_whole(runtime: Any) -> None:
    text = await text_of("/status", runtime)
    assert 'data-exchange-state="coinbase" data-state="live"' in text
    assert 'data-exchange-state="kraken" data-state="delayed"' in text
    assert "not from Kraken at the moment" in text


async def test_documentation_has_every_path_and_a_place_for_every_problem() -> None:
    text = await text_of("/docs")
    for path in openapi.document()["paths"]:
        assert f"&#x27;http://testserver{path}" in text
    for code in PROBLEMS:
        assert f'id="{code}"' in text  # where a problem's "type" points


async def test_documentation_tells_how_to_ask_over_udp(settings: Any) -> None:
    settings.TRINITY_UDP_PORT, settings.TRINITY_UDP_WORKERS = 2690, 1
    text = await text_of("/docs")
    assert "/dev/udp/testserver/2690" in text
    for code in CODES:
        assert f"<code>{code}</code></th>" in text
    settings.TRINITY_UDP_WORKERS = 0
    assert "/dev/udp" not in await text_of("/docs")


@pytest.mark.parametrize("simulated", ["", "http://127.0.0.1:8090"])
@pytest.mark.parametrize("path", PAGES)
async def test_simulated_exchanges_are_named_as_such(path: str, simulated: str, settings: Any) -> None:
    settings.TRINITY_SIMULATOR_URL = simulated
    assert ("Simulated exchanges" in await text_of(path)) is bool(simulated)


@pytest.mark.parametrize("path", [*PAGES, "/nothing"])
async def test_page_keeps_to_the_strict_policy(path: str, runtime: Any) -> None:
    answer = await shown(path, runtime)
    policy = answer["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    text = answer.content.decode()
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=|javascript:", text)
    assert not re.search(r"""(?:src|href|action)=["'](?:https?:)?//""", text)  # nothing from elsewhere


async def test_live_pages_are_never_kept(runtime: Any) -> None:
    for path in ("/", "/status"):
        assert "no-store" in (await shown(path, runtime))["Cache-Control"]


@pytest.mark.parametrize("path", PAGES)
async def test_page_answers_only_to_reading(path: str) -> None:
    assert (await AsyncClient().post(path)).status_code == 405


async def test_missing_page_is_told_to_people_as_a_page() -> None:
    answer = await shown("/nothing")
    assert (answer.status_code, answer["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "There is nothing at this address" in answer.content.decode()


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/problem+json"])
async def test_missing_page_is_told_to_programs_as_a_problem(accept: str) -> None:
    answer = await shown("/nothing<b>", accept=accept)
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    problem = json.loads(answer.content)
    assert (problem["code"], problem["type"]) == ("not_found", "/docs#not_found")


async def test_error_is_logged_and_answered_without_its_text(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("a secret of the house")

    monkeypatch.setattr(views, "exchange_rows", broken)
    answer = await AsyncClient(raise_request_exception=False).get("/status", headers=BROWSER)
    assert answer.status_code == 500
    assert "Something went wrong here" in answer.content.decode()
    assert "secret" not in answer.content.decode()
    assert "a secret of the house" in caplog.text
    problem = await AsyncClient(raise_request_exception=False).get("/status")
    assert json.loads(problem.content)["code"] == "internal_error"


async def test_documentation_shows_reports_on_their_own_port(settings: Any) -> None:
    settings.SERVER_TYPE, settings.TRINITY_REPORTS_PORT = "APP_REPORT_SERVER", 9090
    text = await text_of("/docs")
    assert "http://testserver:9090/reports/summary" in text
    assert "http://testserver/price?asset=BTC" in text
    assert text.count('id="schema-Problem"') <= 1
    assert "The 10 reports of this month have been made." in text  # the example of its problem


async def test_documentation_tells_how_to_ask_for_summaries_over_udp(settings: Any) -> None:
    settings.SERVER_TYPE, settings.TRINITY_REPORTS_UDP_PORT = "APP_REPORT_SERVER", 2691
    settings.TRINITY_UDP_WORKERS = 1
    text = await text_of("/docs")
    assert "/dev/udp/testserver/2691" in text
    assert 'href="#udp-summaries"' in text
    settings.TRINITY_UDP_WORKERS = 0
    assert "udp-summaries" not in await text_of("/docs")


async def test_documentation_of_a_node_without_reports_has_none(settings: Any) -> None:
    settings.SERVER_TYPE, settings.TRINITY_UDP_WORKERS = "APP_SERVER", 1
    text = await text_of("/docs")
    assert "/reports/summary" not in text
    assert "udp-summaries" not in text


@pytest.fixture
def report_node(settings: Any) -> Any:
    settings.SERVER_TYPE, settings.TRINITY_UDP_WORKERS = "REPORT_SERVER", 1
    settings.TRINITY_REPORTS_PORT, settings.TRINITY_REPORTS_UDP_PORT = 9090, 2691
    settings.ALLOWED_HOSTS = ["*"]
    return settings


async def test_documentation_of_a_node_without_prices_has_none(report_node: Any) -> None:
    text = await text_of("/docs")
    assert "http://testserver/reports/summary" in text
    assert "What an account has asked for. Answers are" in text
    for path in openapi.document()["paths"]:
        assert f"testserver{path}" not in text
    assert re.findall(r"/dev/udp/testserver/(\d+)", text) == ["2691"]
    assert 'href="#udp"' not in text
    for code in ("report_quota_exceeded", "not_found", "internal_error"):
        assert f'id="{code}"' in text
    for code in ("stale", "unknown_asset", "quota_exceeded"):
        assert f'id="{code}"' not in text
        assert f"<code>{code}</code></th>" not in text
    assert "<code>unavailable</code></th>" in text


async def test_documentation_of_a_node_without_prices_leads_to_no_page_that_it_has_not(
    report_node: Any,
) -> None:
    text = await text_of("/docs")
    links = set(re.findall(r'href="(/[^"]*)"', text))
    assert {link for link in links if not link.startswith("/static/")} == {"/docs", "/openapi.json"}


async def test_documentation_on_the_port_of_reports_leads_to_the_pages_of_the_other(report_node: Any) -> None:
    report_node.SERVER_TYPE, report_node.TRINITY_HTTP_PORT = "APP_REPORT_SERVER", 8080
    request = RequestFactory().get("/docs", headers={"host": "testserver:9090"})
    text = (await views.docs(request)).content.decode()
    assert "http://testserver:8080/price?asset=BTC" in text
    assert "http://testserver:9090/reports/summary" in text
    assert 'href="http://testserver:8080/account/"' in text
    assert "<code>http://testserver:8080/openapi.json</code>" in text


def test_problems_of_every_port_are_in_the_table_of_problems() -> None:
    assert set(views.ANYWHERE) < set(PROBLEMS)
