"""The command centre's first page: a few figures, and the list of what needs somebody now."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from exchanges.feed.spec import SpecError
from exchanges.live import Live, LiveFeed, board_of, live_now
from exchanges.models import ExchangeAsset, ExchangeFeed
from exchanges.renderers import age_text, count_text, state_badge
from pricing.board import Board

SAMPLE_S = 0.25
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Card:
    """One figure; *key* is what the live page finds it by."""

    key: str
    title: str
    figure: str
    note: str


@dataclass(frozen=True, slots=True)
class Need:
    """Something that needs a person, and the page where to begin."""

    state: str
    text: str
    link: str


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:  # Any: a template's context
    if not request.user.has_perm("exchanges.view_exchangefeed"):
        return context
    feeds = list(ExchangeFeed.objects.with_asset_counts())
    homes = [(row.asset, row.exchange_id) for row in ExchangeAsset.objects.enabled().homes()]
    live = live_now(request, homes)
    board = board_of(request)
    rate = async_to_sync(_ticks_per_s)(board) if board else None
    return context | {
        "explanation": live.explanation,
        "cards": [_feeds_card(feeds, live), _fresh_card(homes, live), _rate_card(rate), _oldest_card(live)],
        "needs": [need for feed in feeds for need in _needs(feed, live)],
        "feeds": [_feed_row(feed, live.feed(feed.name)) for feed in feeds],
    }


def _feed_row(feed: ExchangeFeed, live: LiveFeed) -> tuple[ExchangeFeed, LiveFeed, SafeString]:
    return feed, live, state_badge(feed.name, live)


async def _ticks_per_s(board: Board) -> float:
    """Watch the board for a moment: it counts ticks, and a rate is between two looks."""

    def ticks() -> int:
        return sum(row.ticks for row in board.exchanges())

    before, since = ticks(), time.monotonic()
    await asyncio.sleep(SAMPLE_S)
    return (ticks() - before) / (time.monotonic() - since)


def _feeds_card(feeds: list[ExchangeFeed], live: Live) -> Card:
    enabled = [feed for feed in feeds if feed.enabled]
    count = sum(live.feed(feed.name).is_live for feed in enabled)
    return Card("feeds_live", "Feeds live", f"{count} / {len(enabled)}", f"{len(feeds)} in the table")


def _fresh_card(homes: list[tuple[str, str]], live: Live) -> Card:
    count = sum(price.fresh for price in live.prices.values())
    return Card("assets_fresh", "Assets fresh", f"{count} / {len(homes)}", "at their home exchange")


def _rate_card(rate: float | None) -> Card:
    figure = "–" if rate is None else count_text(round(rate))
    return Card("ticks_per_s", "Ticks per second", figure, "written to the board")


def _oldest_card(live: Live) -> Card:
    oldest = max(live.prices.items(), key=lambda item: item[1].age_ms, default=None)
    if oldest is None:
        return Card("oldest_home", "Oldest home price", "–", "no price yet")
    (asset, exchange), price = oldest
    return Card("oldest_home", "Oldest home price", age_text(price.age_ms), f"{asset} at {exchange}")


def _needs(feed: ExchangeFeed, live: Live) -> list[Need]:
    """Say what is wrong with an enabled feed; a disabled one is as somebody wanted it."""
    if not feed.enabled:
        return []
    link = reverse("admin:exchanges_exchangefeed_change", args=[feed.name])
    try:
        feed.to_spec()
    except SpecError as error:
        return [Need("refused", f"{feed.display_name}: the row cannot be used: {error}", link)]
    if not live.known:
        return []
    now = live.feed(feed.name)
    return [Need(state, f"{feed.display_name}: {text}", link) for state, text in _complaints(now)]


def _complaints(feed: LiveFeed) -> list[tuple[str, str]]:
    complaints = []
    if not feed.is_live:
        complaints.append((feed.state, feed.detail or f"is {feed.state}"))
    if refused := feed.status.refused_symbols:
        complaints.append(("refused", f"{len(refused)} symbols refused: {_named(list(refused))}"))
    if stuck := feed.status.stuck_assets:
        complaints.append(("quiet", f"{len(stuck)} assets stuck: {_named(stuck)}"))
    return complaints


def _named(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


# Callbacks of the sidebar and the header


def environment(request: HttpRequest) -> list[str]:
    if settings.TRINITY_SIMULATOR_URL:
        return ["Simulated exchanges", "danger"]
    return [settings.CLUSTER_NODE, "info"]


def feeds_badge(request: HttpRequest) -> str:
    """Count the live ones of the enabled feeds. Never empty: Unfold would draw a badge without text."""
    live = live_now(request)
    names = ExchangeFeed.objects.enabled().values_list("name", flat=True)
    count = sum(live.feed(name).is_live for name in names)
    return f"{count}/{len(names)}" if live.known else "–"


def may_view_feeds(request: HttpRequest) -> bool:
    return request.user.has_perm("exchanges.view_exchangefeed")


def may_view_assets(request: HttpRequest) -> bool:
    return request.user.has_perm("exchanges.view_exchangeasset")


def may_view_users(request: HttpRequest) -> bool:
    return request.user.has_perm("auth.view_user")


def may_view_accounts(request: HttpRequest) -> bool:
    return request.user.has_perm("billing.view_account")


def may_view_keys(request: HttpRequest) -> bool:
    return request.user.has_perm("billing.view_apikey")


def may_view_plans(request: HttpRequest) -> bool:
    return request.user.has_perm("billing.view_plan")


def may_view_counts(request: HttpRequest) -> bool:
    return request.user.has_perm("billing.view_monthlycount")


def may_view_security(request: HttpRequest) -> bool:
    return request.user.has_perm("billing.view_securityevent")
