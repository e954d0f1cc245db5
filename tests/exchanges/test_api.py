"""The JSON endpoints: who may call them, what they accept, and what they say."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.http import HttpResponse
from django.test import Client

from exchanges.models import ExchangeAsset, ExchangeFeed
from exchanges.services import Author, Door, save_assets, save_feed
from tests.exchanges.rows import feed_row

pytestmark = pytest.mark.django_db
KEY = "an-admin-key-of-some-length"
FEEDS, ASSETS = "/admin/exchange-feeds", "/admin/exchange-assets"
POSTS = [f"{FEEDS}/save", f"{FEEDS}/toggle", f"{ASSETS}/save"]
BTC = {"asset": "BTC", "symbol": "BTC-USD", "category": "Major Currencies"}
AUTHOR = Author(Door.COMMAND)


@pytest.fixture(autouse=True)
def plain() -> ExchangeFeed:
    feed = save_feed(columns=feed_row(), author=AUTHOR)
    save_assets(rows=[BTC], exchange="plain", author=AUTHOR)
    return feed


@pytest.fixture
def key(settings: Any) -> Iterator[dict[str, str]]:  # Any: pytest-django's settings
    settings.ADMIN_API_KEY = KEY
    yield {"X-Admin-Key": KEY}


def post(client: Client, path: str, body: object, **options: Any) -> HttpResponse:  # Any: the client's own
    return client.post(path, json.dumps(body), content_type="application/json", **options)


def staff_client(*permissions: str, csrf: bool = False) -> Client:
    user = User.objects.create_user("operator", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(enforce_csrf_checks=csrf)
    client.force_login(user)
    return client


def problem(response: HttpResponse) -> tuple[int, str]:
    assert response.headers["Content-Type"] == "application/problem+json"
    document = json.loads(response.content)
    assert document["status"] == response.status_code
    assert {"type", "title", "detail", "code"} <= set(document)
    return response.status_code, document["code"]


# Who may call


@pytest.mark.parametrize("path", [FEEDS, ASSETS])
def test_reading_without_a_session_is_401_and_no_redirect(client: Client, path: str) -> None:
    assert problem(client.get(path)) == (401, "unauthorized")


@pytest.mark.parametrize("path", POSTS)
def test_changing_without_a_session_is_401(client: Client, path: str) -> None:
    assert problem(post(client, path, {})) == (401, "unauthorized")


@pytest.mark.parametrize("path", POSTS)
def test_changing_endpoint_refuses_get(client: Client, path: str, key: dict[str, str]) -> None:
    response = client.get(path, headers=key)
    assert problem(response) == (405, "method_not_allowed")
    assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize("path", [FEEDS, ASSETS])
def test_reading_endpoint_refuses_post(client: Client, path: str, key: dict[str, str]) -> None:
    assert problem(post(client, path, {}, headers=key)) == (405, "method_not_allowed")


@pytest.mark.parametrize("sent", ["", "wrong", KEY[:-1], KEY + "x", KEY.upper(), "é"])
def test_wrong_key_is_refused(client: Client, key: dict[str, str], sent: str) -> None:
    assert problem(client.get(FEEDS, headers={"X-Admin-Key": sent})) == (401, "unauthorized")


@pytest.mark.parametrize("sent", ["", "anything"])
def test_key_is_refused_where_the_node_has_none(client: Client, sent: str) -> None:
    assert problem(client.get(FEEDS, headers={"X-Admin-Key": sent})) == (401, "unauthorized")


def test_wrong_key_is_refused_in_spite_of_a_session(admin_client: Client) -> None:
    assert problem(admin_client.get(FEEDS, headers={"X-Admin-Key": "wrong"})) == (401, "unauthorized")


def test_key_needs_no_csrf_token(key: dict[str, str]) -> None:
    client = Client(enforce_csrf_checks=True)
    assert post(client, f"{FEEDS}/toggle", {"name": "plain"}, headers=key).status_code == 200


def test_account_that_is_not_staff_is_forbidden(client: Client) -> None:
    client.force_login(User.objects.create_user("root", is_superuser=True))
    assert problem(client.get(FEEDS)) == (403, "forbidden")


@pytest.mark.parametrize(
    ("path", "permission"), [(FEEDS, "view_exchangefeed"), (ASSETS, "view_exchangeasset")]
)
def test_staff_needs_the_permission_to_read(path: str, permission: str) -> None:
    client = staff_client()
    assert problem(client.get(path)) == (403, "forbidden")
    User.objects.get().user_permissions.set(Permission.objects.filter(codename=permission))
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", POSTS)
def test_staff_that_may_only_look_cannot_change(path: str) -> None:
    client = staff_client("view_exchangefeed", "view_exchangeasset")
    assert problem(post(client, path, {})) == (403, "forbidden")


def test_session_without_csrf_token_is_forbidden() -> None:
    client = staff_client("change_exchangefeed", csrf=True)
    assert problem(post(client, f"{FEEDS}/toggle", {"name": "plain"})) == (403, "forbidden")
    assert ExchangeFeed.objects.get().enabled


def test_session_with_csrf_token_may_change_and_is_named_in_the_history() -> None:
    client = staff_client("change_exchangefeed", csrf=True)
    client.get("/admin/login/")
    client.get("/admin/")
    page = client.get("/admin/password_change/")
    token = page.context["csrf_token"]
    response = post(client, f"{FEEDS}/toggle", {"name": "plain"}, headers={"X-CSRFToken": str(token)})
    assert response.status_code == 200
    entry = ExchangeFeed.history.first()
    assert (entry.history_user.username, entry.history_change_reason) == ("operator", "api")


# What is accepted


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"{", "application/json", (400, "bad_request")),
        (b"[]", "application/json", (400, "bad_request")),
        (b"null", "application/json", (400, "bad_request")),
        (b'{"a":NaN}', "application/json", (400, "bad_request")),
        (b'{"a":1,"a":2}', "application/json", (400, "bad_request")),
        (b'{"a":' * 30 + b"1" + b"}" * 30, "application/json", (400, "bad_request")),
        (b"[" * 100_000, "application/json", (400, "bad_request")),
        (b"\xff", "application/json", (400, "bad_request")),
        (b" " * 1_048_577, "application/json", (413, "too_large")),
        (b" " * 3_000_000, "application/json", (413, "too_large")),
        (b"{}", "text/plain", (415, "unsupported_media_type")),
        (b"name=plain", "application/x-www-form-urlencoded", (415, "unsupported_media_type")),
        (b"{}", "application/json", (400, "invalid")),
    ],
)
@pytest.mark.parametrize("path", POSTS)
def test_bad_body_is_answered_with_its_problem(
    client: Client,
    key: dict[str, str],
    path: str,
    body: bytes,
    content_type: str,
    expected: tuple[int, str],
) -> None:
    assert problem(client.post(path, body, content_type=content_type, headers=key)) == expected


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (f"{FEEDS}/save", {"name": "new"}, "ws_url"),
        (f"{FEEDS}/save", {"name": "New!"}, "name"),
        (f"{FEEDS}/save", {"name": 7}, "name"),
        (f"{FEEDS}/save", {"name": "plain", "colour": "red"}, "colour"),
        (f"{FEEDS}/save", {"name": "plain", "enabled": "yes"}, "enabled"),
        (f"{FEEDS}/save", {"name": "plain", "symbols_per_frame": -1}, "symbols_per_frame"),
        (f"{FEEDS}/save", {"name": "plain", "quirks": {"colour": 1}}, "quirks"),
        (f"{FEEDS}/save", {"feed": "plain"}, "feed"),
        (f"{FEEDS}/toggle", {"name": 7}, "name"),
        (f"{FEEDS}/toggle", {"name": "plain", "enabled": "no"}, "enabled"),
        (f"{FEEDS}/toggle", {"name": "plain", "on": True}, "on"),
        (f"{ASSETS}/save", {"assets": []}, "assets"),
        (f"{ASSETS}/save", {"assets": {}}, "assets"),
        (f"{ASSETS}/save", {"assets": [BTC], "exchange": 7}, "exchange"),
        (f"{ASSETS}/save", {"assets": [BTC], "exchange": "no"}, "assets[0].exchange"),
        (f"{ASSETS}/save", {"assets": [BTC, {**BTC, "asset": "b"}], "exchange": "plain"}, "assets[1].asset"),
        (f"{ASSETS}/save", {"assets": [BTC] * 10_001, "exchange": "plain"}, "assets"),
    ],
)
def test_bad_field_is_named(
    client: Client, key: dict[str, str], path: str, body: dict[str, Any], field: str
) -> None:
    response = post(client, path, body, headers=key)
    assert problem(response) == (400, "invalid")
    assert field in json.loads(response.content)["errors"]


@pytest.mark.parametrize("name", ["no", "", "../x", "n" * 500])
def test_toggle_of_an_unknown_feed_is_404(client: Client, key: dict[str, str], name: str) -> None:
    assert problem(post(client, f"{FEEDS}/toggle", {"name": name}, headers=key)) == (404, "unknown_exchange")


@pytest.mark.parametrize("name", ["no", "a%00b", "%ff"])
def test_assets_of_an_unknown_exchange_are_404(client: Client, key: dict[str, str], name: str) -> None:
    assert problem(client.get(f"{ASSETS}?exchange={name}", headers=key)) == (404, "unknown_exchange")


# What is said


def test_feeds_are_listed_with_their_columns_and_say_that_nothing_is_live(
    client: Client, key: dict[str, str]
) -> None:
    document = client.get(FEEDS, headers=key).json()
    (feed,) = document["feeds"]
    assert {name: feed[name] for name in feed_row()} == feed_row()
    assert (feed["asset_count"], feed["status"], document["live"]) == (1, None, False)
    assert "no price board" in document["live_detail"]


def test_assets_are_listed_by_exchange(client: Client, key: dict[str, str]) -> None:
    save_feed(columns=feed_row(name="other"), author=AUTHOR)
    save_assets(rows=[BTC], exchange="other", author=AUTHOR)
    everything = client.get(ASSETS, headers=key).json()["assets"]
    of_one = client.get(f"{ASSETS}?exchange=other", headers=key).json()["assets"]
    assert [row["exchange"] for row in everything] == ["other", "plain"]
    assert of_one == [
        {
            "exchange": "other",
            **BTC,
            "rest_symbol": "",
            "enabled": True,
            "prewarm": True,
            "home": False,
            "live": None,
        }
    ]


@pytest.mark.parametrize("wrap", [lambda columns: columns, lambda columns: {"feed": columns}])
def test_saved_feed_is_answered_and_kept(client: Client, key: dict[str, str], wrap: Any) -> None:
    response = post(client, f"{FEEDS}/save", wrap(feed_row(name="new")), headers=key)
    assert response.json()["feed"] == feed_row(name="new")
    assert ExchangeFeed.objects.filter(name="new").exists()


@pytest.mark.parametrize(
    ("body", "enabled"), [({}, False), ({"enabled": True}, True), ({"enabled": False}, False)]
)
def test_toggled_feed_is_answered_and_kept(
    client: Client, key: dict[str, str], body: dict[str, bool], enabled: bool
) -> None:
    response = post(client, f"{FEEDS}/toggle", {"name": "plain", **body}, headers=key)
    assert response.json() == {"name": "plain", "enabled": enabled}
    assert ExchangeFeed.objects.get().enabled is enabled


def test_saved_batch_is_answered_and_kept(client: Client, key: dict[str, str]) -> None:
    rows = [{**BTC, "home": True}, {**BTC, "asset": "ETH", "symbol": "ETH-USD"}]
    response = post(client, f"{ASSETS}/save", {"exchange": "plain", "assets": rows}, headers=key)
    assert (response.json()["saved"], ExchangeAsset.objects.homes().get().asset) == (2, "BTC")


def test_answers_are_never_cached(client: Client, key: dict[str, str]) -> None:
    assert "no-store" in client.get(FEEDS, headers=key).headers["Cache-Control"]
