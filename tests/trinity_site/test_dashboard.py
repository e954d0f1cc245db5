"""The command centre's first page."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client, RequestFactory
from django.utils import timezone

from billing.models import SecurityEvent
from billing.security import Attempt, record
from exchanges.feed.status import FeedStatus, RefusedTick
from exchanges.models import ExchangeFeed
from exchanges.services import Author, Door, save_assets, save_feed, toggle_feed
from pricing._board_writer import BoardWriter
from telemetry._counters import DROPPED_EMPTY
from telemetry.ledger import set_aside
from telemetry.models import Quarantined
from tests.exchanges.boards import WALL_NS, make_board, state_with, write_price
from tests.exchanges.rows import feed_row
from tests.telemetry.counted import CountedNode
from trinity_site.dashboard import dashboard, environment, feeds_badge

pytestmark = pytest.mark.django_db
AUTHOR = Author(Door.COMMAND)
LIVE = FeedStatus(state="live", ticks_per_s=7.0)
BTC = {"asset": "BTC", "symbol": "BTC-USD", "category": "Major Currencies", "home": True}


@pytest.fixture(autouse=True)
def rows() -> None:
    save_feed(columns=feed_row(), author=AUTHOR)
    save_feed(columns=feed_row(name="other", display_name="Other"), author=AUTHOR)
    save_assets(rows=[BTC, {**BTC, "asset": "ETH", "symbol": "ETH-USD"}], exchange="plain", author=AUTHOR)


def shown(user: User, board: BoardWriter | None) -> dict[str, Any]:  # Any: a template's context
    request = RequestFactory().get("/admin/")
    request.user = user
    if board:
        request.scope = {"state": state_with(board)}  # type: ignore[attr-defined]  # as an ASGI request has it
    return dashboard(request, {}) | {"badge": feeds_badge(request)}


def figures(context: dict[str, Any]) -> dict[str, str]:
    return {card.key: card.text or str(card.age_ms) for card in context["cards"]}


def test_cards_count_what_is_live_and_fresh(admin_user: User) -> None:
    now = time.monotonic_ns()
    board = make_board(now, plain=LIVE, other=FeedStatus(state="backoff", detail="no"))
    write_price(board, "BTC", "plain", "1", mono_ns=now)
    write_price(board, "ETH", "plain", "1", mono_ns=now - 60 * 10**9)
    context = shown(admin_user, board)
    cards = figures(context)
    assert (cards["feeds_live"], cards["assets_fresh"], cards["ticks_per_s"]) == ("1 / 2", "1 / 2", "7")
    assert int(cards["oldest_home"]) >= 60_000
    assert context["badge"] == "1/2"


def test_cards_tell_the_traffic_where_the_process_counts(admin_user: User, tmp_path: Path) -> None:
    node = CountedNode(tmp_path)
    node.worker().drop(DROPPED_EMPTY, 3)
    request = RequestFactory().get("/admin/")
    request.user = admin_user
    request.scope = {"state": {"runtime": SimpleNamespace(traffic=node.traffic())}}  # type: ignore[attr-defined]  # as an ASGI request has it
    cards = {card.key: (card.text, card.note) for card in dashboard(request, {})["cards"]}
    assert cards["http_per_s"] == ("–", "no answer in the last seconds")
    assert cards["udp_dropped"] == ("3", "3 empty")
    assert "udp_dropped" not in figures(shown(admin_user, make_board(time.monotonic_ns())))


def test_needs_name_what_is_wrong_with_enabled_feeds(admin_user: User) -> None:
    plain = FeedStatus(state="live", refused_symbols=dict.fromkeys("ABCDEFG", "no"), stuck_assets=["ETH"])
    board = make_board(time.monotonic_ns(), plain=plain, other=FeedStatus(state="backoff", detail="no route"))
    assert {(need.state, need.text) for need in shown(admin_user, board)["needs"]} == {
        ("backoff", "Other: no route"),
        ("refused", "Plain: 7 symbols refused: A, B, C, D, E and 2 more"),
        ("quiet", "Plain: 1 assets stuck: ETH"),
    }


def test_need_names_who_guesses_and_leads_to_the_attempts(admin_user: User) -> None:
    unknown, password = SecurityEvent.Kind.KEY_UNKNOWN, SecurityEvent.Kind.PASSWORD_REFUSED
    record(
        [Attempt(unknown, "198.51.100.1", "tb_live_abcd", 12), Attempt(password, "198.51.100.1", "ada", 9)]
    )
    record([Attempt(unknown, "198.51.100.2", "tb_live_abcd", 19)])
    board = make_board(time.monotonic_ns(), plain=LIVE, other=LIVE)
    (need,) = shown(admin_user, board)["needs"]
    assert need.text == "198.51.100.1: 21 refused attempts within the hour"
    assert need.link == "/admin/billing/securityevent/?q=198.51.100.1"
    client = Client()
    client.force_login(admin_user)
    assert client.get(need.link).context["cl"].result_count == 2


def test_who_may_not_see_security_events_is_not_told_of_guesses(django_user_model: Any) -> None:
    record([Attempt(SecurityEvent.Kind.KEY_UNKNOWN, "198.51.100.1", "", 99)])
    user = django_user_model.objects.create_user("watcher", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_exchangefeed"))
    assert shown(user, make_board(time.monotonic_ns(), plain=LIVE, other=LIVE))["needs"] == []


def refused_tick(reason: str, *, ago_s: int) -> RefusedTick:
    return RefusedTick(WALL_NS - ago_s * 10**9, "BTC-USD", reason, "")


def test_need_about_refusals_leads_to_them(admin_user: User) -> None:
    recent = [refused_tick("bad_price", ago_s=10), refused_tick("bad_time", ago_s=70)]
    plain = FeedStatus(
        state="live",
        refused_symbols={"A": "no"},
        stuck_assets=["ETH"],
        recent_refusals=[*recent, refused_tick("repeat", ago_s=1)],
    )
    needs = shown(admin_user, make_board(time.monotonic_ns(), plain=plain, other=LIVE))["needs"]
    assert {need.link for need in needs} == {"/admin/exchanges/exchangefeed/plain/change/#refused"}
    assert needs[-1].text == "Plain: ticks refused just now: bad_price"


def test_ticks_refused_as_usual_need_nobody(admin_user: User) -> None:
    plain = FeedStatus(state="live", recent_refusals=[refused_tick("older", ago_s=1)])
    assert shown(admin_user, make_board(time.monotonic_ns(), plain=plain, other=LIVE))["needs"] == []


def test_disabled_feed_needs_nobody(admin_user: User) -> None:
    toggle_feed(name="other", enabled=False, author=AUTHOR)
    board = make_board(time.monotonic_ns(), plain=FeedStatus(state="live"))
    context = shown(admin_user, board)
    assert (context["needs"], context["badge"]) == ([], "1/1")


def test_unusable_row_needs_somebody_even_without_a_board(admin_user: User) -> None:
    ExchangeFeed.objects.filter(pk="plain").update(price_path="[")
    (need,) = shown(admin_user, None)["needs"]
    assert "Plain: the row cannot be used: price_path" in need.text


def test_dead_feed_process_is_said(admin_user: User) -> None:
    board = make_board(time.monotonic_ns() - 60 * 10**9, plain=FeedStatus(state="live"))
    context = shown(admin_user, board)
    assert "does not report" in context["explanation"]
    assert figures(context)["feeds_live"] == "0 / 2"


def usage_of(context: dict[str, Any]) -> dict[str, str]:
    return {card.key: card.text for card in context["usage"]}


def test_cards_and_needs_tell_of_usage(admin_user: User, settings: Any, tmp_path: Path) -> None:
    settings.TRINITY_DATA_DIR, settings.TRINITY_SPOOL_BYTES = tmp_path, 1 << 20
    (tmp_path / "spool" / "1").mkdir(parents=True)
    (tmp_path / "spool" / "1" / "1.new").write_bytes(bytes(900_000))
    for document in (b"one", b"two"):
        set_aside(document, "no reason")
    board = make_board(time.monotonic_ns(), plain=LIVE, other=LIVE)
    context = shown(admin_user, board)
    assert usage_of(context) == {"spool_percent": "86 %", "usage_waits": "nothing", "set_aside": "2"}
    spool, aside = context["needs"]
    assert spool.text.startswith("The usage spool is nearly full")
    assert aside.text.startswith("2 envelopes of usage could not be written")
    client = Client()
    client.force_login(admin_user)
    assert client.get(aside.link).context["cl"].result_count == 2
    page = client.get("/admin/").content.decode()
    assert 'data-list="usage"' in page
    Quarantined.objects.filter(document=b"two").update(replayed_at=timezone.now())
    assert shown(admin_user, board)["needs"][1].text.startswith("An envelope of usage could not")


def test_who_may_not_see_usage_is_told_nothing_of_it(django_user_model: Any) -> None:
    set_aside(b"one", "no reason")
    user = django_user_model.objects.create_user("watcher", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_exchangefeed"))
    context = shown(user, make_board(time.monotonic_ns(), plain=LIVE, other=LIVE))
    assert (context["usage"], context["needs"]) == ([], [])


def test_account_without_the_right_sees_no_figures() -> None:
    user = User.objects.create_user("looker", is_staff=True)
    assert "cards" not in shown(user, None)
    client = Client()
    client.force_login(user)
    assert client.get("/admin/").status_code == 200


def test_simulated_exchanges_are_said_on_every_page(admin_client: Client, settings: Any) -> None:
    assert environment(RequestFactory().get("/")) == ["BeastMain", "info"]
    settings.TRINITY_SIMULATOR_URL = "http://127.0.0.1:1"
    assert b"Simulated exchanges" in admin_client.get("/admin/exchanges/exchangefeed/").content
