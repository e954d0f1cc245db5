"""The account pages, as a customer's browser uses them."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from billing import keys
from billing.models import Account, ApiKey
from billing.services import MOST_LIVE_KEYS
from billing.usage import month_of, save_counts
from tests.billing.customers import fresh, make_account, make_key

pytestmark = pytest.mark.usefixtures("plans")
TEXT = re.compile(r"tb_live_[0-9A-Za-z]{38}")
FORM = {"name": "price bot", "scopes": ["prices"], "networks": "192.0.2.0/24\n2001:db8::1"}


def shown_key(page: bytes) -> str:
    found = set(TEXT.findall(page.decode()))
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize("path", ["", "keys/new/", "keys/1/", "keys/1/rotate/", "keys/1/revoke/"])
def test_page_without_a_session_leads_to_the_sign_in(client: Client, path: str) -> None:
    for response in (client.get(f"/account/{path}"), client.post(f"/account/{path}")):
        if response.status_code != 405:
            assert response.headers["Location"] == f"/account/login/?next=/account/{path}"


def test_newest_key_is_the_first(customer: Client, account: Account) -> None:
    names = ["first", "second", "third"]
    for name in names:
        make_key(account, name=name)
    page = customer.get("/account/").content.decode()
    assert re.findall(r'<th scope="row">(\w+)<br>', page) == names[::-1]


def test_page_shows_plan_limits_and_what_was_used(customer: Client, account: Account) -> None:
    key = make_key(account, networks=["192.0.2.7"]).key
    save_counts(node="A", month=month_of(timezone.now()), counts={key.pk: 1_234})
    page = customer.get("/account/").content.decode()
    for text in (
        "Pro",
        "$30/month",
        "50,000",
        "for each key, up to 20 at once",
        "shared by all keys",
        "1,234",
        "192.0.2.7/32",
        key.prefix,
        "never",
    ):
        assert text in page


def test_key_is_made_shown_once_and_listed_by_its_prefix(customer: Client) -> None:
    response = customer.post("/account/keys/new/", FORM)
    text = shown_key(response.content)
    assert response.headers["Cache-Control"].split(", ")[-1:] == ["private"]
    assert "no-store" in response.headers["Cache-Control"]
    key = ApiKey.objects.get()
    assert bytes(key.digest) == keys.digest(text)
    assert (key.name, key.scopes, key.networks) == (
        "price bot",
        ["prices"],
        ["192.0.2.0/24", "2001:db8::1/128"],
    )
    page = customer.get("/account/").content.decode()
    assert key.prefix in page and not TEXT.search(page)
    assert key.history.get().history_change_reason == "account"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": ""}, "This field is required"),
        ({"scopes": []}, "This field is required"),
        ({"scopes": ["orders"]}, "not one of the available choices"),
        ({"networks": "10.1.2.3/8"}, "did you mean 10.0.0.0/8"),
        ({"networks": "\n".join(f"192.0.2.{n}" for n in range(9))}, "at most 8 networks"),
    ],
)
def test_form_says_what_is_wrong_beside_the_field(
    customer: Client, change: dict[str, object], complaint: str
) -> None:
    page = customer.post("/account/keys/new/", {**FORM, **change}).content.decode()
    assert complaint in page
    assert 'aria-invalid="true"' in page or "fieldset" in page
    assert not ApiKey.objects.exists()


def test_too_many_keys_are_refused_in_words(customer: Client, account: Account) -> None:
    for _ in range(MOST_LIVE_KEYS):
        make_key(account)
    page = customer.post("/account/keys/new/", FORM).content.decode()
    assert "revoke one first" in page


def test_key_is_changed(customer: Client, account: Account) -> None:
    key = make_key(account).key
    path = f"/account/keys/{key.pk}/"
    assert 'value="bot"' in customer.get(path).content.decode()
    response = customer.post(path, {**FORM, "name": "new <name>"}, follow=True)
    assert "new &lt;name&gt;" in response.content.decode()
    assert fresh(key).networks == ["192.0.2.0/24", "2001:db8::1/128"]


def test_key_is_rotated_and_the_new_one_shown_once(customer: Client, account: Account) -> None:
    old = make_key(account)
    response = customer.post(f"/account/keys/{old.key.pk}/rotate/", {"overlap_h": 5})
    text = shown_key(response.content)
    assert text != old.text
    end = fresh(old.key).expires_at
    assert end is not None and end - timezone.now() < timedelta(hours=5)
    page = customer.get("/account/").content.decode()
    assert f"/keys/{old.key.pk}/rotate/" not in page and f"/keys/{old.key.pk}/revoke/" in page
    again = customer.post(f"/account/keys/{old.key.pk}/rotate/", {"overlap_h": 5}, follow=True)
    assert "rotated already" in again.content.decode()


def test_key_is_revoked_after_a_question(customer: Client, account: Account) -> None:
    key = make_key(account).key
    path = f"/account/keys/{key.pk}/revoke/"
    assert "for good" in customer.get(path).content.decode()
    assert fresh(key).state == "live"
    page = customer.post(path, follow=True).content.decode()
    assert "is revoked" in page and "1 past key" in page
    assert fresh(key).state == "revoked"


@pytest.mark.parametrize("path", ["", "rotate/", "revoke/"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_key_of_somebody_else_is_as_unknown_as_none(customer: Client, path: str, method: str) -> None:
    theirs = make_key(make_account("bob@example.com")).key
    for number in (theirs.pk, theirs.pk + 1_000):
        assert (
            getattr(customer, method)(f"/account/keys/{number}/{path}", {**FORM, "overlap_h": 0}).status_code
            == 404
        )
    assert fresh(theirs).revision == theirs.revision


def test_pages_ask_for_a_token(account: Account) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(account.user)
    key = make_key(account).key
    for path in ("keys/new/", f"keys/{key.pk}/", f"keys/{key.pk}/rotate/", f"keys/{key.pk}/revoke/"):
        assert client.post(f"/account/{path}", FORM).status_code == 403
    assert fresh(key).state == "live"


def test_every_page_keeps_to_the_strict_policy(customer: Client, account: Account) -> None:
    key = make_key(account).key
    pages = [customer.get(f"/account/{path}") for path in ("", "keys/new/", f"keys/{key.pk}/rotate/")]
    for response in [*pages, customer.post("/account/keys/new/", FORM)]:
        assert "script-src 'self';" in response.headers["Content-Security-Policy"] + ";"
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\son\w+=", response.content.decode())


def test_account_is_opened_by_the_first_visit(client: Client, django_user_model: type) -> None:
    client.force_login(django_user_model.objects.create_user("eve@example.com"))  # type: ignore[attr-defined]
    assert "Free" in client.get("/account/").content.decode()
    assert Account.objects.get().plan.name == "free"
