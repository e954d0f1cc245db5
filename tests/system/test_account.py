"""Signing in and keys in a real browser on a real node, by keyboard alone, in light and in dark."""

import http.client
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from playwright.sync_api import Browser, expect

from billing import keys
from tests.system.browser import Keyboard, Visitor, code_for
from tests.system.nodes import Node, started_node, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.quiet, pytest.mark.system, pytest.mark.timeout(180)]
SCHEMES = ("light", "dark")
# Promised for keys that are made or revoked; TEST_PATIENCE=3 allows three times as long.
IN_FORCE_S = 2.0 * float(os.environ.get("TEST_PATIENCE", "1"))
SMALL_PLAN = """
from billing.authors import Author, Door
from billing.services import account_for, save_plan
limits = {{"requests_per_month": {cap}, "requests_per_second": 100, "burst": 100}}
save_plan(name="small", columns={{"title": "Small", "price": "$1", **limits}}, author=Author(Door.COMMAND))
account_for(email="{email}", plan="small", author=Author(Door.COMMAND), change_plan=True)
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    with started_node(folder, database, TRINITY_STAFF_SECOND_FACTOR="1") as node:
        wait_until(node.is_live, lambda: node.said)
        yield node


@pytest.fixture(params=SCHEMES)
def person(browser: Browser, node: Node, request: pytest.FixtureRequest) -> Iterator[Keyboard]:
    visitor = Visitor(browser, node, color_scheme=request.param, viewport={"width": 1280, "height": 800})
    yield Keyboard(visitor, request.param)
    visitor.close()
    assert visitor.complaints == []


def test_customer_opens_an_account_and_looks_after_keys(node: Node, person: Keyboard) -> None:
    page, email = person.page, f"{person.scheme}@example.com"
    person.visitor.visit("/account/")
    person.title("Sign in")
    person.picture("login")
    person.go("Open an account")
    person.title("Open an account")
    person.picture("signup")
    asked_s = time.time() - 1
    person.write("Email", email)
    person.enter()
    person.write("Code", "WRNG-WRNG")
    person.enter()
    expect(page.get_by_text("Incorrect code")).to_be_visible()
    person.picture("code")
    person.write("Code", code_for(node, asked_s))
    person.enter()
    person.title("Account")
    person.picture("account-empty")

    person.go("New key")
    person.write("Name", "price bot")
    person.write("Allowed networks", "10.1.2.3/8")
    person.go("Make the key")
    expect(page.get_by_text("did you mean 10.0.0.0/8")).to_be_visible()
    person.picture("key-form")
    person.write("Allowed networks", "127.0.0.0/8")
    person.go("Make the key")
    person.title("Your new key")
    text = page.locator("#key").inner_text()
    assert keys.is_wellformed(text)
    wait_until(lambda: told(node, text)[0] == 200, "the key is not known", timeout_s=IN_FORCE_S)
    person.picture("key-created")
    person.copy()
    assert page.evaluate("navigator.clipboard.readText()") == text
    page.reload()
    person.title("Account")
    assert text not in page.content()
    assert page.locator("tbody tr").count() == 1
    use_the_plan_up(node, person, email, text)

    person.go("Rotate price bot")
    person.picture("key-rotate")
    person.go("Make the new key")
    successor = page.locator("#key").inner_text()
    assert successor != text
    # The keys of a customer share one month: another one brings no more of it.
    wait_until(lambda: told(node, successor)[:2] == (429, "quota_exceeded"))
    person.go("I have kept it")
    assert page.locator("tbody tr").count() == 2
    person.picture("account")
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.set_viewport_size({"width": 1280, "height": 800})
    person.go("Revoke price bot")
    expect(page.locator(".lead code")).to_have_text(f"{successor[:12]}…")  # the newest is the first
    person.picture("key-revoke")
    person.go("Revoke at once")
    wait_until(lambda: told(node, successor)[0] == 403, "it is still good", timeout_s=IN_FORCE_S)
    expect(page.get_by_text("is revoked")).to_be_visible()
    assert told(node, successor)[1] == "revoked"
    assert page.locator("tbody tr").count() == 1
    person.go("Sign out")
    page.wait_for_url(f"{person.visitor.site}/")


def use_the_plan_up(node: Node, person: Keyboard, email: str, text: str) -> None:
    """Ask faster than the free plan, see the count on the page, then use the month up."""
    answers = [told(node, text) for _ in range(8)]
    assert (429, "rate_limited", "1") in answers
    answered = 1 + sum(status == 200 for status, _, _ in answers)
    wait_until(lambda: used(person) == answered, "the page does not show what was used")
    done = node.manage("shell", "--command", SMALL_PLAN.format(email=email, cap=answered + 2))
    assert done.returncode == 0, done.stderr
    # Asked before it is in force, the old plan would answer.
    wait_until(lambda: month_limit(node, text) == answered + 2, "the new plan is not in force")
    wait_until(lambda: told(node, text)[1] == "quota_exceeded")
    assert int(told(node, text)[2] or 0) > 0
    wait_until(lambda: used(person) == answered + 2, "the page does not show that nothing is left")
    expect(person.page.locator("[data-used]")).to_contain_text(f"of {answered + 2}")
    person.picture("account-used-up")


def month_limit(node: Node, text: str) -> int | None:
    """Return the cap of a key's month, as /usage tells it."""
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=10)
    connection.request("GET", "/usage", headers={"X-API-Key": text})
    limit: int | None = json.loads(connection.getresponse().read())["month"]["limit"]
    connection.close()
    return limit


def told(node: Node, text: str) -> tuple[int, str, str | None]:
    """Ask for a price with a key; return status, code, and when to come again."""
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=10)
    connection.request("GET", "/price?asset=BTC", headers={"Authorization": f"Bearer {text}"})
    answer = connection.getresponse()
    code = json.loads(answer.read()).get("code", "")
    connection.close()
    return answer.status, code, answer.headers["Retry-After"]


def used(person: Keyboard) -> int:
    """Return what the page, opened anew, shows of the month."""
    person.page.reload()
    return int(person.page.locator("[data-used]").inner_text().split()[0])


@pytest.fixture(scope="module")
def second_factor() -> dict[str, str]:
    return {}


def test_operator_sets_up_a_second_factor_and_makes_a_key(
    person: Keyboard, administrator: dict[str, str], second_factor: dict[str, str]
) -> None:
    page = person.page
    person.visitor.visit("/admin/")
    person.title("Operators")
    person.picture("staff-login")
    page.get_by_label("User name").fill(administrator["username"])
    page.get_by_label("Password").fill(administrator["password"])
    person.enter()
    if second_factor:
        person.picture("second-factor-ask")
        person.write("Code", current_code(second_factor["secret"], second_factor["used"]))
        person.enter()
    else:
        set_up_second_factor(person, administrator, second_factor)
    page.wait_for_selector("[data-page=dashboard]")
    person.picture("admin-home")
    for name, path in (
        ("admin-plans", "plan/"),
        ("admin-accounts", "account/"),
        ("admin-keys", "apikey/"),
        ("admin-counts", "monthlycount/"),
        ("admin-events", "securityevent/"),
        ("admin-key-add", "apikey/add/"),
    ):
        person.visitor.visit(f"/admin/billing/{path}")
        page.wait_for_load_state("networkidle")
        person.picture(name)
    person.visitor.visit("/admin/billing/apikey/")
    if page.locator("#result_list a[href*='/change/']").count():
        page.locator("#result_list a[href*='/change/']").first.click()
        page.wait_for_load_state("networkidle")
        person.picture("admin-key")


def set_up_second_factor(person: Keyboard, who: dict[str, str], second_factor: dict[str, str]) -> None:
    page = person.page
    person.title("Two-Factor Authentication")
    person.picture("second-factor")
    page.get_by_role("link", name="Activate").click()
    page.get_by_label("Password").fill(who["password"])
    person.picture("reauthenticate")
    person.enter()
    person.title("Activate Authenticator App")
    person.picture("totp")
    second_factor["secret"] = page.locator("#authenticator_secret").input_value()
    second_factor["used"] = current_code(second_factor["secret"], "")
    page.get_by_label("Authenticator code").fill(second_factor["used"])
    person.enter()
    page.wait_for_url("**/recovery-codes/**")
    person.picture("recovery-codes")
    person.visitor.visit("/admin/")


def current_code(secret: str, used: str) -> str:
    """Return a code that is good now and was not used before: each is taken once."""
    counters = list(yield_hotp_counters_from_time())
    codes = [format_hotp_value(hotp_value(secret, counter)) for counter in counters]
    return next((code for code in codes if code != used), codes[0])
