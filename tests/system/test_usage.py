"""Usage in a real browser on a real node: what a customer was answered, and what an operator sees of it."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.system.browser import Keyboard, Visitor, code_for
from tests.system.nodes import Node, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.system, pytest.mark.timeout(180)]
SCHEMES = ("light", "dark")
FRAME = {"width": 1280, "height": 800}
SET_ASIDE = """
from telemetry.documents import encode
from telemetry.envelope import pack
from telemetry.ledger import set_aside
from tests.telemetry.usage import make_envelope, make_logs, make_records
set_aside(encode(pack(make_envelope(make_records(make_logs(7)), segment="1-{number}"))), "an old fault")
"""


@pytest.fixture(params=SCHEMES)
def person(browser: Browser, node: Node, request: pytest.FixtureRequest) -> Iterator[Keyboard]:
    visitor = Visitor(browser, node, color_scheme=request.param, viewport=FRAME, accept_downloads=True)
    yield Keyboard(visitor, request.param)
    visitor.close()
    assert visitor.complaints == []


def make_customer(node: Node, email: str) -> str:
    done = node.manage("apikey", "create", "--email", email, "--plan", "pro", "--name", "bot", "--json")
    assert done.returncode == 0, done.stderr
    key: str = json.loads(done.stdout)["key"]
    wait_until(lambda: ask(node, key, "BTC") == 200, "the key is not known")
    return key


def ask(node: Node, key: str, asset: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=10)
    connection.request("GET", f"/price?asset={asset}", headers={"X-API-Key": key})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def sign_in(person: Keyboard, email: str) -> None:
    person.visitor.visit("/account/")
    asked_s = time.time() - 1
    person.write("Email", email)
    person.enter()
    person.write("Code", code_for(person.visitor.node, asked_s))
    person.enter()
    person.title("Account")


def totals(person: Keyboard) -> list[int]:
    """Return answers, refused and failed, as the page shows them when it is opened anew."""
    person.page.reload()
    figures = person.page.locator("[data-totals] dd").all_inner_texts()[:3]
    return [int(figure.split()[0].replace(",", "")) for figure in figures]


def used(person: Keyboard) -> str:
    """Return the month's count, which a keyring saves every few seconds, as the page shows it opened anew."""
    person.page.reload()
    return " ".join(person.page.locator("[data-used]").inner_text().split())


def test_customer_sees_and_takes_along_what_was_answered(
    node: Node, person: Keyboard, tmp_path: Path
) -> None:
    page, email = person.page, f"usage-{person.scheme}@example.com"
    key = make_customer(node, email)
    statuses = [ask(node, key, asset) for asset in ("ETH", "ETH", "NOPE")]  # the last one in the spool, too
    assert statuses == [200, 200, 404]
    sign_in(person, email)
    person.go("Usage")
    person.title("Usage")
    wait_until(lambda: totals(person)[1] == 1, "the page does not show the answers")
    answered = totals(person)[0]
    wait_until(lambda: used(person) == f"{answered} of 50,000", "the month's count is not saved")

    person.reach("Period")
    page.keyboard.press("ArrowUp")
    person.go("Show")
    person.title("Last 24 hours")
    expect(page.locator("[data-used]")).to_contain_text(f"{answered} of 50,000")
    person.reach("As a table: Answers by asset")
    page.keyboard.press("Enter")
    table = page.get_by_role("table", name="Answers by asset")
    expect(table).to_contain_text("ETH")
    assert table.get_by_role("row").filter(has_text="ETH").inner_text().split()[:2] == ["ETH", "2"]
    expect(page.get_by_role("img", name="Answers by hour")).to_be_visible()
    person.picture("usage")

    person.reach("CSV")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("hour,asset,source,answers,")
    assert sum(int(line.split(",")[3]) for line in lines[1:]) == answered
    ask_for_reports(page.locator(".command code").all_inner_texts(), key, tmp_path, answered)

    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    person.picture("usage-narrow")


def ask_for_reports(commands: list[str], key: str, folder: Path, answers: int) -> None:
    """Type the commands of the page: each must bring the file it names."""
    for command in commands:
        typed = f"{command} --silent --show-error"
        environment = {**os.environ, "TRINITY_KEY": key}
        done = subprocess.run(
            ["sh", "-c", typed], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{typed}: {done.stderr}"
    assert len((folder / "usage.csv").read_text().splitlines()) == 1 + answers
    assert (folder / "summary.xlsx").read_bytes().startswith(b"PK")
    assert (folder / "summary.pdf").read_bytes().startswith(b"%PDF")


def test_operator_sees_usage_arrive_and_the_books_agree(
    node: Node, person: Keyboard, administrator: dict[str, str]
) -> None:
    page, visitor = person.page, person.visitor
    visitor.sign_in(administrator)
    assert ask(node, node.key, "BTC") == 200
    visitor.visit("/admin/usage/overview/")
    expect(page.get_by_role("img", name="Answers by hour")).to_be_visible()
    person.picture("admin-usage")
    visitor.visit("/admin/telemetry/usagesegment/")
    expect(page.locator("#result_list")).to_contain_text(node.environment["CLUSTER_NODE"])
    person.picture("admin-segments")
    page.locator("#result_list a[href*='/change/']").first.click()
    expect(page.get_by_text("Places in the ledger")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= FRAME["width"]
    person.picture("admin-segment")

    visitor.visit("/admin/usage/reconcile/")
    expect(page.locator("[data-report=agrees]")).to_contain_text("No difference")
    person.go("Compare the rows too")
    expect(page.get_by_text("Every row was counted.")).to_be_visible()
    expect(page.locator("[data-report=agrees]")).to_contain_text("ledger = rows")
    person.picture("admin-reconcile")


def test_operator_is_told_of_what_was_set_aside_and_replays_it(
    node: Node, person: Keyboard, administrator: dict[str, str]
) -> None:
    page, visitor = person.page, person.visitor
    visitor.sign_in(administrator)
    visitor.visit("/admin/")
    expect(page.locator("[data-figure=set_aside]")).to_have_text("0")
    page.evaluate("window.sameDocument = true")
    done = node.manage("shell", "--command", SET_ASIDE.format(number=SCHEMES.index(person.scheme) + 1))
    assert done.returncode == 0, done.stderr
    need = page.locator("[data-list=needs] a", has_text="An envelope of usage could not be written")
    expect(need).to_be_visible(timeout=60_000)
    expect(page.locator("[data-figure=set_aside]")).to_have_text("1")
    assert page.evaluate("window.sameDocument")
    person.picture("admin-dashboard")
    need.click()
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    person.picture("admin-aside")
    page.locator("#result_list a[href*='/change/']").click()
    expect(page.locator("[data-preview]")).to_contain_text("usage_log")
    person.picture("admin-document")
    page.get_by_role("link", name=re.compile("Replay")).click()
    person.go("Replay")
    expect(page.get_by_text("It is written to the database.")).to_be_visible()
    visitor.visit("/admin/")
    expect(page.locator("[data-figure=set_aside]")).to_have_text("0")
