"""The command centre's pages of feeds and assets: all render, and every change goes through the services."""

import json
import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import reverse

from exchanges.feed.check import CheckedSymbol, CheckReport
from exchanges.feed.spec import SpecError
from exchanges.feed.status import FeedStatus, RefusedTick
from exchanges.models import ExchangeAsset, ExchangeFeed
from exchanges.services import Author, Door, save_assets, save_feed
from pricing._board_writer import BoardWriter
from tests.exchanges.boards import WALL_NS, make_board, state_with, write_price
from tests.exchanges.rows import feed_row

pytestmark = pytest.mark.django_db
AUTHOR = Author(Door.COMMAND)
BTC = {"asset": "BTC", "symbol": "BTC-USD", "category": "Major Currencies", "home": True}
FEEDS = "/admin/exchanges/exchangefeed/"
ASSETS = "/admin/exchanges/exchangeasset/"


@pytest.fixture(autouse=True)
def rows() -> None:
    save_feed(columns=feed_row(), author=AUTHOR)
    save_feed(columns=feed_row(name="other", display_name="Other"), author=AUTHOR)
    save_assets(rows=[BTC], exchange="plain", author=AUTHOR)
    save_assets(rows=[{**BTC, "home": False}], exchange="other", author=AUTHOR)


class LiveClient(AsyncClient):
    """A client whose requests come from a server that has a board."""

    def __init__(self, board: BoardWriter) -> None:
        super().__init__()
        self.board = board

    def _base_scope(self, **request: Any) -> dict[str, Any]:  # Any: ASGI's own
        return {**super()._base_scope(**request), "state": state_with(self.board)}


def live_get(user: User, path: str, **feeds: FeedStatus) -> HttpResponse:
    board = make_board(time.monotonic_ns(), **feeds)
    write_price(board, "BTC", "plain", "67123.45", mono_ns=time.monotonic_ns())
    client = LiveClient(board)
    client.force_login(user)
    return async_to_sync(client.get)(path)


def form_of(client: Client, path: str) -> dict[str, Any]:  # Any: form values
    """Return what a browser would send when nothing is changed in the form at *path*."""
    form = client.get(path).context["adminform"].form
    values = {name: form[name].value() for name in form.fields}
    for name, field in form.fields.items():
        if hasattr(field, "encoder"):
            values[name] = field.prepare_value(values[name])
    return {name: value for name, value in values.items() if value is not None and value is not False}


# Pages


@pytest.mark.parametrize(
    "path",
    [
        "/admin/",
        FEEDS,
        f"{FEEDS}?enabled__exact=1&q=pl",
        f"{FEEDS}add/",
        f"{FEEDS}plain/change/",
        f"{FEEDS}plain/history/",
        f"{FEEDS}plain/delete/",
        f"{FEEDS}plain/try/",
        ASSETS,
        f"{ASSETS}?exchange__name__exact=plain&category__exact=DeFi&home__exact=1&q=btc",
        f"{ASSETS}add/",
        "/admin/auth/user/",
        "/admin/auth/group/",
        "/admin/password_change/",
    ],
)
def test_page_renders(admin_client: Client, path: str) -> None:
    response = admin_client.get(path)
    assert response.status_code == 200
    assert b"Trinity Beast" in response.content


@pytest.mark.parametrize("page", ["change", "history", "delete"])
def test_page_of_one_asset_renders(admin_client: Client, page: str) -> None:
    listing = ExchangeAsset.objects.first()
    assert admin_client.get(f"{ASSETS}{listing.pk}/{page}/").status_code == 200


def test_page_of_one_change_renders(admin_client: Client) -> None:
    entry = ExchangeFeed.history.filter(name="plain").first()
    assert admin_client.get(f"{FEEDS}plain/history/{entry.history_id}/").status_code == 200


@pytest.mark.parametrize("path", ["/admin/", FEEDS, ASSETS, f"{FEEDS}plain/try/"])
def test_page_without_a_session_leads_to_the_login(client: Client, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.headers["Location"][:13]) == (302, "/admin/login/")


def test_pages_say_that_nothing_is_live_where_there_is_no_board(admin_client: Client) -> None:
    assert b"no price board" in admin_client.get(FEEDS).content
    assert b"no price board" in admin_client.get("/admin/").content


def test_feed_list_shows_what_is_live(admin_user: User) -> None:
    status = FeedStatus(state="live", ticks=1_234, reconnects=2)
    page = live_get(admin_user, FEEDS, plain=status).content.decode()
    assert '<span class="tb-badge tb-live" data-feed="plain" data-field="state"' in page
    assert 'data-feed="plain" data-field="ticks">1,234<' in page
    assert 'data-feed="other" data-field="state"' in page


def test_feed_page_shows_what_is_live(admin_user: User) -> None:
    status = FeedStatus(state="paused", detail="maintenance", refused_symbols={"X": "no"})
    page = live_get(admin_user, f"{FEEDS}plain/change/", plain=status).content.decode()
    assert "tb-paused" in page
    assert 'data-field="detail">maintenance<' in page
    assert 'data-field="refused">1<' in page


REFUSED = FeedStatus(
    state="live",
    refusals={"jump_held": 1_234, "older": 2},
    recent_refusals=[
        RefusedTick(WALL_NS, "BTC-USD", "jump_held", "1 traded 5"),
        RefusedTick(WALL_NS + 10**9, "<b>", "older", ""),
    ],
    refused_symbols={"X-USD": "<i>no such product</i>"},
    stuck_assets=["ETH"],
    superseded=77,
)


@pytest.mark.parametrize("page", ["change", "refusals"])
def test_feed_page_explains_what_is_refused(admin_user: User, page: str) -> None:
    text = live_get(admin_user, f"{FEEDS}plain/{page}/", plain=REFUSED).content.decode()
    assert 'id="refused" data-refusals="plain" data-shown="1236,1,1"' in text
    assert 'data-refusal="jump_held">1234</td><td>The price stepped further than max_jump_percent' in text
    newest, older = text.index("2025-11-22 13:00:01"), text.index("2025-11-22 13:00:00")
    assert newest < older
    assert "1 traded 5" in text
    assert "X-USD</td><td>&lt;i&gt;no such product&lt;/i&gt;" in text
    assert "&lt;b&gt;" in text
    assert "<p>ETH</p>" in text


def test_what_is_refused_is_for_who_may_view_feeds(client: Client) -> None:
    client.force_login(User.objects.create_user("looker", is_staff=True))
    assert client.get(f"{FEEDS}plain/refusals/").status_code == 403


def test_what_is_refused_at_an_unknown_feed_is_404(admin_client: Client) -> None:
    assert admin_client.get(f"{FEEDS}nowhere/refusals/").status_code == 404


def test_asset_list_shows_prices_and_ages(admin_user: User) -> None:
    page = live_get(admin_user, ASSETS, plain=FeedStatus(state="live")).content.decode()
    assert 'tb-fresh" data-asset="BTC" data-exchange="plain" data-field="price">67123.45<' in page
    assert 'tb-none" data-asset="BTC" data-exchange="other" data-field="age_ms">–<' in page


def test_json_endpoints_show_what_is_live(admin_user: User) -> None:
    status = FeedStatus(state="live", ticks=5)
    feeds = json.loads(live_get(admin_user, "/admin/exchange-feeds", plain=status).content)
    assets = json.loads(live_get(admin_user, "/admin/exchange-assets", plain=status).content)
    states = {feed["name"]: feed["status"]["state"] for feed in feeds["feeds"]}
    assert (feeds["live"], states) == (True, {"plain": "live", "other": "unknown"})
    prices = {row["exchange"]: row["live"] for row in assets["assets"]}
    assert prices["other"] is None
    assert (prices["plain"]["price"], prices["plain"]["fresh"]) == ("67123.45", True)


def test_json_endpoint_tells_what_was_refused(admin_user: User) -> None:
    document = json.loads(live_get(admin_user, "/admin/exchange-feeds", plain=REFUSED).content)
    status = next(feed["status"] for feed in document["feeds"] if feed["name"] == "plain")
    assert (status["refusals"], status["superseded"]) == ({"jump_held": 1_234, "older": 2}, 77)
    assert status["recent_refusals"][0] == {
        "at_ns": WALL_NS, "symbol": "BTC-USD", "reason": "jump_held", "detail": "1 traded 5"
    }  # fmt: skip
    assert (status["refused_symbols"], status["stuck_assets"]) == (REFUSED.refused_symbols, ["ETH"])
    assert document["refusal_reasons"]["older"].startswith("The trade is older")


def test_login_page_leads_to_the_command_centre(client: Client, admin_user: User) -> None:
    page = client.get("/admin/login/?next=/admin/").headers["Location"]
    signed_in = client.post(page, {"login": "admin", "password": "password"})
    assert (signed_in.status_code, signed_in.headers["Location"]) == (302, "/admin/")


# Changes


def test_saved_form_changes_the_row_and_names_user_and_door(admin_client: Client) -> None:
    form = form_of(admin_client, f"{FEEDS}plain/change/")
    response = admin_client.post(f"{FEEDS}plain/change/", {**form, "display_name": "New"})
    assert response.status_code == 302, response.context["adminform"].form.errors
    assert ExchangeFeed.objects.get(pk="plain").columns() == feed_row(display_name="New")
    entry = ExchangeFeed.history.filter(name="plain").first()
    assert (entry.history_user.username, entry.history_change_reason) == ("admin", "admin")


def test_new_feed_can_be_written_in_the_form(admin_client: Client) -> None:
    columns = feed_row(name="third", trade_match=json.dumps({"e": "trade"}), quirks="{}")
    assert admin_client.post(f"{FEEDS}add/", columns).status_code == 302
    assert ExchangeFeed.objects.get(pk="third").columns() == feed_row(name="third")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ws_url", "http://x"),
        ("ws_url", "wss://10.0.0.1/"),
        ("ws_url", "wss://169.254.169.254/latest"),
        ("ws_url", "ws://plain.example/"),
        ("rest_url", "https://[fd00:ec2::254]/{SYMBOL}"),
        ("price_path", "a["),
        ("subscribe_template", "{SYMBOLS"),
        ("trade_match", "{"),
        ("quirks", '{"colour": 1}'),
        ("timestamp_format", "days"),
        ("ping_interval_s", "-1"),
        ("display_name", ""),
    ],
)
def test_bad_column_is_said_beside_its_field(admin_client: Client, field: str, value: str) -> None:
    form = form_of(admin_client, f"{FEEDS}plain/change/")
    response = admin_client.post(f"{FEEDS}plain/change/", {**form, field: value})
    assert response.status_code == 200
    assert field in response.context["adminform"].form.errors


def test_deleted_feed_goes_with_its_assets_and_the_user_is_named(admin_client: Client) -> None:
    assert admin_client.post(f"{FEEDS}plain/delete/", {"post": "yes"}).status_code == 302
    assert set(ExchangeAsset.objects.values_list("exchange", flat=True)) == {"other"}
    assert ExchangeAsset.history.filter(history_type="-").get().history_user.username == "admin"


def act(client: Client, path: str, action: str, *keys: object) -> HttpResponse:
    return client.post(path, {"action": action, "_selected_action": keys}, follow=True)


def test_feeds_can_be_disabled_and_enabled_from_the_list(admin_client: Client) -> None:
    act(admin_client, FEEDS, "disable", "plain", "other")
    assert not ExchangeFeed.objects.enabled().exists()
    act(admin_client, FEEDS, "enable", "other")
    assert ExchangeFeed.objects.enabled().get().name == "other"


def test_feed_that_cannot_work_is_not_enabled_and_the_others_are(admin_client: Client) -> None:
    ExchangeFeed.objects.update(enabled=False)
    ExchangeFeed.objects.filter(pk="plain").update(price_path="[")
    page = act(admin_client, FEEDS, "enable", "plain", "other")
    assert b"price_path" in page.content
    assert ExchangeFeed.objects.enabled().get().name == "other"


def test_home_moves_from_the_list(admin_client: Client) -> None:
    act(admin_client, ASSETS, "make_home", ExchangeAsset.objects.get(exchange="other").pk)
    assert ExchangeAsset.objects.homes().get().exchange_id == "other"


def test_assets_are_hidden_and_shown_from_the_list(admin_client: Client) -> None:
    keys = list(ExchangeAsset.objects.values_list("pk", flat=True))
    act(admin_client, ASSETS, "disable", *keys)
    assert not ExchangeAsset.objects.enabled().exists()
    act(admin_client, ASSETS, "enable", keys[0])
    assert ExchangeAsset.objects.enabled().get().pk == keys[0]


def test_switches_in_the_list_are_saved(admin_client: Client) -> None:
    keys = list(ExchangeAsset.objects.values_list("pk", flat=True))
    data: dict[str, Any] = {
        "form-TOTAL_FORMS": 2,
        "form-INITIAL_FORMS": 2,
        "_save": "Save",
    }  # Any: form values
    data |= {f"form-{number}-id": key for number, key in enumerate(keys)}
    data |= {"form-0-enabled": "on", "form-1-enabled": "on", "form-0-prewarm": "on"}
    assert admin_client.post(ASSETS, data).status_code == 302
    assert dict(ExchangeAsset.objects.values_list("pk", "prewarm")) == {keys[0]: True, keys[1]: False}
    assert ExchangeAsset.history.first().history_change_reason == "admin"


def test_listing_spoilt_in_the_database_is_explained_in_the_list(admin_client: Client) -> None:
    ExchangeAsset.objects.filter(exchange="plain").update(symbol='"')
    keys = list(ExchangeAsset.objects.values_list("pk", flat=True))
    data: dict[str, Any] = {
        "form-TOTAL_FORMS": 2,
        "form-INITIAL_FORMS": 2,
        "_save": "Save",
    }  # Any: form values
    data |= {f"form-{number}-id": key for number, key in enumerate(keys)}
    response = admin_client.post(ASSETS, data)
    assert response.status_code == 200
    assert b"symbol: Use letters" in response.content


def test_new_asset_can_be_written_in_the_form(admin_client: Client) -> None:
    row = {"asset": "ETH", "exchange": "plain", "symbol": "ETH-USD", "category": "Major Currencies"}
    assert admin_client.post(f"{ASSETS}add/", {**row, "enabled": "on"}).status_code == 302
    listing = ExchangeAsset.objects.get(asset="ETH")
    assert (listing.enabled, listing.prewarm, listing.home) == (True, False, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"asset": "btc"},
        {"asset": "BTC"},
        {"symbol": "BTC-USD"},
        {"symbol": "btc-usd"},
        {"symbol": 'x"'},
        {"category": "Stones"},
    ],
)
def test_bad_asset_is_said_in_the_form(admin_client: Client, changes: dict[str, str]) -> None:
    row = {"asset": "ETH", "exchange": "plain", "symbol": "ETH-USD", "category": "Major Currencies"}
    response = admin_client.post(f"{ASSETS}add/", {**row, **changes})
    assert response.status_code == 200
    assert response.context["adminform"].form.errors


# What a service refuses is said


def spoil(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have a service refuse, as when another change came between the form and its saving."""

    def refuse(**arguments: object) -> None:
        raise SpecError({"assets[0].symbol": ["was taken meanwhile"]})

    monkeypatch.setattr(f"exchanges.services.{name}", refuse)


def test_hiding_names_the_row_that_cannot_be_saved_and_hides_the_others(admin_client: Client) -> None:
    ExchangeAsset.objects.filter(exchange="plain").update(symbol='"')
    page = act(admin_client, ASSETS, "disable", *ExchangeAsset.objects.values_list("pk", flat=True))
    assert "BTC at plain: assets[0].symbol: Use letters" in page.content.decode()
    assert ExchangeAsset.objects.enabled().get().exchange_id == "plain"


def test_switches_that_cannot_be_saved_are_explained(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "save_assets")
    keys = list(ExchangeAsset.objects.values_list("pk", flat=True))
    data: dict[str, Any] = {
        "form-TOTAL_FORMS": 2,
        "form-INITIAL_FORMS": 2,
        "_save": "Save",
    }  # Any: forms
    data |= {f"form-{number}-id": key for number, key in enumerate(keys)}
    page = admin_client.post(ASSETS, data, follow=True)
    assert "was taken meanwhile" in page.content.decode()


def test_deletion_that_is_refused_is_explained(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "delete_feed")
    page = admin_client.post(f"{FEEDS}plain/delete/", {"post": "yes"}, follow=True)
    assert "was taken meanwhile" in page.content.decode()


def test_loopback_that_is_not_allowed_is_saved_with_a_warning(admin_client: Client, settings: Any) -> None:
    form = form_of(admin_client, f"{FEEDS}plain/change/") | {"ws_url": "ws://127.0.0.1:9000/"}
    page = admin_client.post(f"{FEEDS}plain/change/", form, follow=True).content.decode()
    assert ExchangeFeed.objects.get(pk="plain").ws_url == "ws://127.0.0.1:9000/"
    assert "TRINITY_ALLOW_LOOPBACK_EXCHANGES" in page
    settings.TRINITY_ALLOW_LOOPBACK_EXCHANGES = True
    page = admin_client.post(f"{FEEDS}plain/change/", form, follow=True).content.decode()
    assert "TRINITY_ALLOW_LOOPBACK_EXCHANGES" not in page


# Try it


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check_feed(spec: object, symbols: list[str], **options: object) -> CheckReport:
        states = [CheckedSymbol(symbol=symbol, state="refused", detail="<no>") for symbol in symbols]
        return CheckReport(
            exchange="plain", ok=False, problem="refused: BTC-USD", symbols=states, frames={}, faults=[]
        )

    monkeypatch.setattr("exchanges.trial.check_feed", check_feed)


def test_trial_shows_its_report_per_symbol(admin_client: Client, tried: None) -> None:
    page = admin_client.post(f"{FEEDS}plain/try/").content.decode()
    assert 'data-report="failed"' in page
    assert "<td>BTC-USD</td>" in page
    assert "&lt;no&gt;" in page


def test_trial_of_an_unusable_row_names_the_column(admin_client: Client, tried: None) -> None:
    ExchangeFeed.objects.filter(pk="plain").update(price_path="[")
    assert b"<strong>price_path</strong>" in admin_client.post(f"{FEEDS}plain/try/").content


def test_trial_needs_the_right_to_change(client: Client, tried: None) -> None:
    client.force_login(User.objects.create_user("looker", is_staff=True))
    assert client.post(f"{FEEDS}plain/try/").status_code == 403


def test_trial_of_an_unknown_feed_is_404(admin_client: Client) -> None:
    assert admin_client.get(f"{FEEDS}nowhere/try/").status_code == 404


def test_buttons_of_a_feed_lead_to_its_trial_and_its_assets(admin_client: Client) -> None:
    for action in ("open-trial", "open-assets"):
        page = admin_client.get(f"{FEEDS}plain/{action}/")
        assert page.status_code == 302, action
    assert reverse("admin:exchanges_exchangefeed_try", args=["plain"]) == f"{FEEDS}plain/try/"
