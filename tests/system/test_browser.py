"""The pages in a real browser, on a real node: what a visitor and an operator see, and see change."""

import http.client
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect

from billing import keys
from billing.demo import BURST
from tests.system.browser import PATIENCE_MS, Visitor
from tests.system.nodes import Node, wait_until
from tests.system.screenshots import MOST_BYTES, take_pictures

pytestmark = [pytest.mark.browser, pytest.mark.system, pytest.mark.timeout(120)]

PUBLIC = ("/", "/docs", "/status")
STAFF = (
    "/admin/",
    "/admin/exchanges/exchangefeed/",
    "/admin/exchanges/exchangefeed/coinbase/change/",
    "/admin/exchanges/exchangeasset/",
)
KEY = re.compile(r"tb_live_[0-9A-Za-z]{8}")
MORE_EXCHANGES = Path(__file__).parents[2] / "exchanges" / "fixtures" / "more"


@pytest.fixture
def visitor(browser: Browser, node: Node) -> Iterator[Visitor]:
    visitor = Visitor(browser, node)
    yield visitor
    visitor.close()


@pytest.fixture
def operator(visitor: Visitor, administrator: dict[str, str]) -> Visitor:
    visitor.sign_in(administrator)
    return visitor


@pytest.fixture
def simulator(node: Node) -> Iterator["SimulatorControl"]:
    """The simulator's control; whatever fault a test leaves is cleared, and waited for."""
    control = SimulatorControl(node)
    yield control
    control.ask("DELETE", "/control/all/fault")
    wait_until(lambda: all(row["live"] for row in node.get("/exchanges")[1]["exchanges"]), node.said)


class SimulatorControl:
    def __init__(self, node: Node) -> None:
        self._port = node.simulator_port

    def fault(self, exchange: str, kind: str, **members: object) -> None:
        self.ask("POST", f"/control/{exchange}/fault", json.dumps({"kind": kind, **members}))

    def clear(self, exchange: str) -> None:
        self.ask("DELETE", f"/control/{exchange}/fault")

    def ask(self, method: str, path: str, body: str | None = None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        connection.request(method, path, body)
        answer = connection.getresponse()
        assert answer.status in (200, 201), answer.read()
        connection.close()


def wait_for_another_price(page: Page, asset: str) -> None:
    shown = page.locator(f'[data-price="{asset}"] [data-field=price]')
    expect(shown).not_to_have_text(shown.inner_text(), timeout=PATIENCE_MS)


def cut_off(visitor: Visitor) -> None:
    """Take every line to the node from the page that comes next."""
    visitor.page.route_web_socket(re.compile("/live/"), lambda socket: socket.close())
    visitor.page.route(re.compile("/prices"), lambda route: route.abort())


# What a visitor sees


def test_price_changes_on_the_home_page_without_a_reload(visitor: Visitor) -> None:
    visitor.visit("/")
    visitor.page.evaluate("window.sameDocument = true")
    expect(visitor.page.locator("[data-connection]")).to_have_text("Live")
    for asset in ("BTC", "ETH"):
        wait_for_another_price(visitor.page, asset)
    assert visitor.page.evaluate("window.sameDocument")
    assert (
        len(visitor.page.locator('[data-price="BTC"] [data-field=trail]').get_attribute("points") or "") > 0
    )
    assert visitor.complaints == []


def test_prices_are_asked_for_while_the_socket_is_refused(visitor: Visitor) -> None:
    visitor.page.route_web_socket(re.compile("/live/"), lambda socket: socket.close())
    visitor.visit("/")
    expect(visitor.page.locator("[data-connection]")).to_have_text("Live, asking every 2 s")
    wait_for_another_price(visitor.page, "BTC")


def test_socket_that_breaks_is_opened_again(visitor: Visitor) -> None:
    opened: list[WebSocketRoute] = []

    def break_the_first(socket: WebSocketRoute) -> None:
        opened.append(socket)
        socket.connect_to_server()
        if len(opened) == 1:
            socket.close()

    visitor.page.route_web_socket(re.compile("/live/"), break_the_first)
    visitor.visit("/")
    expect(visitor.page.locator("[data-connection]")).to_have_text("Live")
    assert len(opened) == 2


def test_price_without_news_grows_older_and_turns_grey(visitor: Visitor) -> None:
    visitor.page.clock.install()
    cut_off(visitor)
    visitor.visit("/")
    card = visitor.page.locator('[data-price="BTC"]')
    expect(card).not_to_have_class(re.compile("stale"))
    visitor.page.clock.run_for(20_000)
    expect(card).to_have_class(re.compile("stale"))
    expect(card.locator("[data-field=age]")).to_have_text(re.compile(r"^(2\d|3\d) s ago$"))
    expect(visitor.page.locator("[data-connection]")).to_have_text("Connection lost, trying again")


def test_demo_answers_for_the_chosen_exchange_and_asset(visitor: Visitor) -> None:
    page = visitor.page
    visitor.visit("/")
    expect(page.locator("[data-demo-answer]")).to_contain_text('"asset": "BTC"')
    page.select_option("#demo-exchange", "gemini")
    expect(page.locator("[data-demo-answer]")).to_contain_text('"exchange": "gemini"')
    expect(page.locator("#demo-asset option")).to_have_count(74)  # what Gemini lists, and nothing else
    page.select_option("#demo-asset", "ETH")
    expect(page.locator("[data-demo-command]")).to_have_text(
        f"curl -H \"X-API-Key: $TRINITY_KEY\" '{visitor.site}/price?asset=ETH&exchange=gemini'"
    )
    expect(page.locator("[data-demo-answer]")).to_contain_text('"asset": "ETH"')
    answer = json.loads(page.locator("[data-demo-answer]").inner_text())
    assert answer["source"] == "gemini-ws-sim"
    assert (answer["tier"], visitor.complaints) == (1, [])


def test_demo_can_be_used_with_the_keyboard_alone(visitor: Visitor) -> None:
    page = visitor.page
    visitor.visit("/")
    expect(page.locator("[data-demo-answer]")).to_contain_text("BTC")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab_to(page, "demo-exchange")
    page.keyboard.type("kra")
    expect(page.locator("[data-demo-answer]")).to_contain_text('"exchange": "kraken"')
    tab_to(page, "demo-asset")
    page.keyboard.type("sol")
    expect(page.locator("[data-demo-answer]")).to_contain_text('"asset": "SOL"')
    expect(page.locator("[data-demo-summary]")).to_contain_text("from kraken")


def test_no_page_or_script_has_a_key_in_it(visitor: Visitor, node: Node) -> None:
    fetched: list[str] = []
    visitor.page.on("response", lambda response: fetched.append(response.url))
    for path in (*PUBLIC, "/account/"):
        visitor.visit(path)
        visitor.page.wait_for_load_state("networkidle")
        assert not KEY.search(visitor.page.content())
    scripts = [url for url in fetched if url.endswith((".js", ".css", ".json"))]
    texts = [visitor.context.request.get(url).text() for url in scripts]
    assert len(texts) >= 5
    assert not any(KEY.search(text) for text in texts)


def test_demo_asks_with_a_token_and_with_nothing_else(visitor: Visitor) -> None:
    asked: list[dict[str, str]] = []
    visitor.page.on(
        "request", lambda request: asked.append(request.headers) if "/price" in request.url else None
    )
    visitor.visit("/")
    expect(visitor.page.locator("[data-demo-summary]")).to_have_attribute("data-ok", "true")
    assert all(headers["authorization"].startswith("Bearer tb_demo_") for headers in asked)
    assert not any("x-api-key" in headers or "cookie" in headers for headers in asked)


def test_demo_goes_on_after_its_token_has_ended(visitor: Visitor) -> None:
    page, statuses, made = visitor.page, [], []

    def spoil_the_first(route: Route) -> None:
        answer = route.fetch()
        made.append(answer.json()["token"])
        spoilt = made[-1][:-4] + "AAAA"  # as good as one that has ended
        token = spoilt if len(made) == 1 else made[-1]
        route.fulfill(response=answer, json={"token": token, "expires_in_s": 300})

    page.route("**/demo-token", spoil_the_first)
    page.on("response", lambda answer: statuses.append(answer.status) if "/price?" in answer.url else None)
    visitor.visit("/")
    expect(page.locator("[data-demo-summary]")).to_contain_text("BTC: ")
    assert (statuses, len(made)) == ([401, 200], 2)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("[data-demo-answer]")).to_contain_text('"asset": "BTC"')
    assert len(made) == 2  # the second token is kept


def test_demo_says_in_words_that_its_limit_is_reached_and_goes_on_after_it(visitor: Visitor) -> None:
    page = visitor.page
    visitor.visit("/")
    summary = page.locator("[data-demo-summary]")
    expect(summary).to_have_attribute("data-ok", "true")
    try:
        with page.expect_response(lambda response: response.status == 429):
            page.evaluate(
                """() => {
                    const form = document.querySelector("[data-demo]");
                    for (let number = 0; number < 30; number += 1) form.requestSubmit();
                }"""
            )
        expect(summary).to_have_text(
            "The demo's limit is reached. Ask again in 1 s, or with a key of your own."
        )
        expect(page.locator("[data-demo-answer]")).to_contain_text('"code": "rate_limited"')
        expect(page.locator("[data-connection]")).to_have_text("Live")  # prices come over the socket
        visitor.complaints.clear()  # the browser names every refusal
        wait_until(lambda: asked_again(page), "the demo stays refused")
    finally:
        wait_until(lambda: demo_left(visitor) == BURST, "the demo's limit does not recover")


def asked_again(page: Page) -> bool:
    with page.expect_response(re.compile("/price\\?")) as answered:
        page.get_by_role("button", name="Ask").click()
    return answered.value.status == 200


def demo_left(visitor: Visitor) -> int:
    """Return how many questions this machine's visitors may ask at once now: they share one limit."""
    left: int = visitor.page.evaluate(
        """async () => {
            const { ask } = await import("/static/trinity/token.js");
            return (await (await ask("/usage")).json()).rate.remaining;
        }"""
    )
    return left


def tab_to(page: Page, element_id: str) -> None:
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == element_id:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", f"nothing shows that #{element_id} has the focus"
            return
    raise AssertionError(f"#{element_id} is not reached with Tab")


def test_exchange_that_goes_live_can_be_chosen_without_a_reload(visitor: Visitor, node: Node) -> None:
    visitor.visit("/")
    option = visitor.page.locator('#demo-exchange option[value="binance"]')
    expect(option).to_have_count(0)
    try:
        done = node.manage("exchange", "import", str(MORE_EXCHANGES / "binance.json"))
        assert done.returncode == 0, done.stderr
        expect(option).to_have_count(1)
    finally:
        disable = "from exchanges.models import ExchangeFeed; ExchangeFeed.objects.get(pk='binance').delete()"
        node.manage("shell", "--command", disable)


def test_status_page_tells_a_delayed_exchange_and_its_recovery(
    visitor: Visitor, simulator: SimulatorControl
) -> None:
    visitor.visit("/status")
    row = visitor.page.locator('[data-exchange-state="gemini"]')
    expect(row).to_have_attribute("data-state", "live")
    simulator.fault("gemini", "silence")
    expect(row).to_have_attribute("data-state", "delayed", timeout=30_000)
    expect(visitor.page.locator("[data-headline]")).to_contain_text("not from Gemini")
    simulator.clear("gemini")
    expect(row).to_have_attribute("data-state", "live", timeout=30_000)
    expect(visitor.page.locator("[data-headline]")).to_have_text("All exchanges are live.")


def test_chosen_theme_is_remembered(visitor: Visitor) -> None:
    page = visitor.page
    page.emulate_media(color_scheme="light")
    visitor.visit("/")
    toggle = page.get_by_role("button", name="Dark theme")
    expect(toggle).to_have_attribute("aria-pressed", "false")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    toggle.click()
    visitor.visit("/docs")
    expect(page.get_by_role("button", name="Dark theme")).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground


def test_every_command_of_the_documentation_runs(visitor: Visitor, node: Node) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl to run the commands with")
    visitor.visit("/docs")
    commands = visitor.page.locator(".terminal-line code").all_inner_texts()
    assert len(commands) >= 6
    with_key = {**os.environ, "TRINITY_KEY": node.key}
    for command in commands:
        typed = f"{command} --silent --write-out '\\n%{{http_code}}'"
        done = subprocess.run(["sh", "-c", typed], env=with_key, capture_output=True, text=True, check=False)
        body, _, status = done.stdout.rpartition("\n")
        assert (status, bool(json.loads(body))) == ("200", True), typed


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_its_policy_or_leaves_this_host(operator: Visitor, scheme: str) -> None:
    operator.page.emulate_media(color_scheme=scheme)
    for path in (*PUBLIC, *STAFF):
        operator.visit(path)
        operator.page.wait_for_load_state("networkidle")
    assert operator.complaints == []


@pytest.mark.parametrize("path", PUBLIC)
def test_narrow_screen_needs_no_sideways_scrolling(visitor: Visitor, path: str) -> None:
    visitor.page.set_viewport_size({"width": 360, "height": 740})
    visitor.visit(path)
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 360


# What an operator sees


def test_feeds_status_changes_in_the_command_centre(operator: Visitor, simulator: SimulatorControl) -> None:
    operator.visit("/admin/exchanges/exchangefeed/")
    operator.page.evaluate("window.sameDocument = true")
    badge = operator.page.locator('[data-feed="gemini"][data-field=state]')
    other = operator.page.locator('[data-feed="kraken"][data-field=state]')
    expect(badge).to_have_text("live")
    simulator.fault("gemini", "refuse-handshake")
    simulator.fault("gemini", "disconnect")
    expect(badge).to_have_text("backoff")
    expect(badge).to_have_class(re.compile("tb-backoff"))
    expect(other).to_have_text("live")
    simulator.clear("gemini")
    expect(badge).to_have_text("live", timeout=60_000)
    assert operator.page.evaluate("window.sameDocument")
    assert operator.complaints == []


def test_ticks_of_a_feed_rise_in_the_command_centre(operator: Visitor) -> None:
    operator.visit("/admin/exchanges/exchangefeed/coinbase/change/")
    ticks = operator.page.locator('[data-feed="coinbase"][data-field=ticks]')
    expect(ticks).not_to_have_text(ticks.inner_text(), timeout=PATIENCE_MS)


def test_listed_prices_change_in_the_command_centre(operator: Visitor) -> None:
    operator.visit("/admin/exchanges/exchangeasset/?q=BTC")
    price = operator.page.locator('[data-asset="BTC"][data-exchange="coinbase"][data-field=price]')
    expect(price).not_to_have_text(price.inner_text(), timeout=PATIENCE_MS)
    expect(price).to_have_class(re.compile("tb-fresh"))


def test_dashboard_names_a_broken_feed_and_forgets_it_when_it_is_back(
    operator: Visitor, simulator: SimulatorControl
) -> None:
    needs = operator.page.locator("[data-list=needs]")
    badge = operator.page.locator("#nav-sidebar-apps a", has_text="Feeds")
    expect(needs).not_to_contain_text("OKX")  # other tests may have left other needs for a while
    simulator.fault("okx", "refuse-handshake")
    simulator.fault("okx", "disconnect")
    expect(needs).to_contain_text("OKX")
    expect(badge).to_contain_text("5/6")
    simulator.clear("okx")
    expect(needs).not_to_contain_text("OKX", timeout=60_000)
    expect(badge).to_contain_text("6/6")


def test_guessed_keys_are_slowed_down_and_named_in_the_command_centre(operator: Visitor, node: Node) -> None:
    guesses = [keys.generate(os.urandom) for _ in range(30)]
    answers = ask_in_a_row(node, guesses)
    # One of two workers has this connection, and half of what an address may try.
    assert answers[:10] == [(401, "unauthorized", None)] * 10
    assert (429, "too_many_attempts", "6") in answers[10:]
    assert ask_in_a_row(node, [node.key])[0][0] == 200  # from the same address a good key goes on working

    def is_named() -> bool:
        operator.visit("/admin/")
        return "127.0.0.1: " in operator.page.locator("[data-list=needs]").inner_text()

    wait_until(is_named, "nobody is told")
    operator.page.locator("[data-list=needs] a", has_text="127.0.0.1").click()
    events = operator.page.locator("#result_list tbody tr")
    expect(events.filter(has_text="Unknown API key").filter(has_text="127.0.0.1").first).to_be_visible()
    assert not any(guess in operator.page.content() for guess in guesses)
    assert operator.complaints == []


def ask_in_a_row(node: Node, texts: list[str]) -> list[tuple[int, str, str | None]]:
    """Ask with each key over one connection, which one worker has; return status, code, and when to retry."""
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=10)
    answers = []
    for text in texts:
        connection.request("GET", "/price?asset=BTC", headers={"X-API-Key": text})
        answer = connection.getresponse()
        code = json.loads(answer.read()).get("code", "")
        answers.append((answer.status, code, answer.headers["Retry-After"]))
    connection.close()
    return answers


def test_guessed_passwords_are_slowed_down_and_seen_in_the_command_centre(
    operator: Visitor, browser: Browser, node: Node
) -> None:
    guesser = Visitor(browser, node)
    for number in range(6):  # one more than an account allows, whoever guesses
        guesser.visit("/admin/")
        guesser.page.fill("input[name=login]", "somebody")
        guesser.page.fill("input[name=password]", f"guess {number}")
        guesser.page.click("button[type=submit]")
    expect(guesser.page.get_by_text("Too many failed login attempts")).to_be_visible()
    guesser.close()
    operator.visit("/admin/billing/securityevent/")
    events = operator.page.locator("#result_list tbody tr").filter(has_text="127.0.0.1")
    expect(events.filter(has_text="Wrong password").first).to_be_visible()
    expect(events.filter(has_text="Slowed down").first).to_be_visible()


def test_figures_change_without_asking_for_the_page_again(operator: Visitor) -> None:
    asked: list[str] = []
    rate = operator.page.locator("[data-kpi=ticks_per_s]")
    expect(rate).to_have_text(re.compile(r"^[\d,]+$"))
    expect(operator.page.locator("[data-kpi=oldest_home]")).to_have_text(re.compile(r"^\d+ m?s$"))
    operator.page.on("request", lambda request: asked.append(request.resource_type))
    for _ in range(3):
        expect(rate).not_to_have_text(rate.inner_text(), timeout=PATIENCE_MS)
    assert "document" not in asked  # a list that has changed is fetched; figures come by themselves


def test_traffic_is_told_in_the_command_centre_while_it_goes_on(operator: Visitor, node: Node) -> None:
    speed = operator.page.locator("[data-kpi=http_per_s]")

    def is_told() -> bool:
        node.get("/price?asset=BTC")
        return float(speed.inner_text().replace(",", "").replace("–", "0")) > 1

    wait_until(is_told, speed.inner_text)
    expect(operator.page.locator("[data-kpi-note=http_per_s]")).to_have_text(re.compile(r"^99 % within .+s$"))


RESET = """async (token) => {
    const headers = token ? { "X-CSRFToken": token } : {};
    return (await fetch("/admin/stress-reset", { headers })).status;
}"""


def test_statistics_begin_anew_for_whom_the_page_has_given_a_token(operator: Visitor, node: Node) -> None:
    """A picture on another site can make a browser ask with its session, but it has no token."""
    since = "async () => (await (await fetch('/admin/stress-stats')).json()).since"
    before = operator.page.evaluate(since)
    assert operator.page.evaluate(RESET, "") == 403
    assert operator.page.evaluate(since) == before
    token = operator.page.locator("[name=csrfmiddlewaretoken]").first.input_value()
    assert operator.page.evaluate(RESET, token) == 200
    afterwards = {operator.page.evaluate(since) for _ in range(20)}  # whichever worker answers
    assert len(afterwards) == 1 and before not in afterwards


def test_refused_ticks_are_explained_on_the_page_of_their_feed(
    operator: Visitor, simulator: SimulatorControl
) -> None:
    simulator.fault("gateio", "wrong-unit")
    need = operator.page.locator("[data-list=needs] a", has_text="Gate.io: ticks refused just now")
    need.click()
    count = operator.page.locator('[data-refusal="implausible_time"]')
    expect(count).to_be_in_viewport()
    expect(operator.page.locator("#refused")).to_contain_text("counts in another unit")
    expect(count).not_to_have_text(count.inner_text(), timeout=PATIENCE_MS)
    assert operator.complaints == []


def test_ages_digits_and_json_are_written_by_the_page(visitor: Visitor) -> None:
    visitor.visit("/docs")
    expect(visitor.page.locator(".terminal-answer .json-key").first).to_have_text('"asset"')
    written = visitor.page.evaluate(
        """async () => {
            const { ageText, priceText } = await import("/static/trinity/live.js");
            const { colouredJson } = await import("/static/trinity/json.js");
            const shown = document.createElement("code");
            shown.append(...colouredJson('{"a": "<b>", "n": -1.5}'));
            return [
                [0, 999, 1000, 59999, 60000, 3600000, 86400000, 200000000].map(ageText),
                ["1234567", "999.10", "0.000012345678", "100000.1234567"].map(priceText),
                shown.innerHTML,
            ];
        }"""
    )
    assert written == [
        ["0 ms", "999 ms", "1 s", "59 s", "1 min", "1 h", "1 d", "2 d"],
        ["1,234,567", "999.10", "0.000012345678", "100,000.1234567"],
        '{<span class="json-key">"a"</span>: <span class="json-text">"&lt;b&gt;"</span>, '
        '<span class="json-key">"n"</span>: <span class="json-value">-1.5</span>}',
    ]


def test_home_page_shows_where_the_money_goes(visitor: Visitor) -> None:
    visitor.visit("/")
    words = visitor.page.get_by_text("All subscription revenue goes to Cross Power Ministries of Pakistan")
    words.scroll_into_view_if_needed()
    expect(words).to_be_in_viewport()


def test_session_that_ends_takes_the_live_status_with_it(operator: Visitor) -> None:
    page = operator.page
    with page.expect_websocket(lambda socket: "/admin/live/feeds" in socket.url):
        operator.visit("/admin/exchanges/exchangefeed/")
    operator.context.clear_cookies()
    refused = page.evaluate(
        """() => new Promise((resolve) => {
            const socket = new WebSocket(location.origin.replace("http", "ws") + "/admin/live/feeds");
            socket.onopen = () => resolve(false);
            socket.onclose = () => resolve(true);
        })"""
    )
    assert refused


def test_pictures_are_made_anew(
    node: Node, administrator: dict[str, str], browser: Browser, tmp_path: Path
) -> None:
    pictures = take_pictures(browser, node, administrator, tmp_path)
    assert {picture.name for picture in pictures} == {"home.png", "command-centre.png"}
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert 20_000 < picture.stat().st_size <= MOST_BYTES
