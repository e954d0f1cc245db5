"""JSON for machines beside the command centre: the exchange tables, with what is live about them."""

from dataclasses import asdict
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse, JsonResponse

from exchanges.api import endpoint, read_body
from exchanges.batches import ASSET_COLUMNS
from exchanges.feed.reasons import EXPLANATIONS
from exchanges.live import Live, LiveFeed, live_now
from exchanges.models import ExchangeAsset, ExchangeFeed
from exchanges.services import Author, get_feed, save_assets, save_feed, toggle_feed
from pricing.exceptions import RequestRefused


@endpoint("GET", "exchanges.view_exchangefeed")
def feeds(request: HttpRequest, author: Author) -> HttpResponse:
    """List the feeds with their live status."""
    live = live_now(request)
    rows = ExchangeFeed.objects.with_asset_counts()
    return JsonResponse(
        {
            **_liveness(live),
            "refusal_reasons": EXPLANATIONS,
            "feeds": [_feed_document(row, live) for row in rows],
        }
    )


@endpoint("POST", "exchanges.add_exchangefeed", "exchanges.change_exchangefeed")
def feed_save(request: HttpRequest, author: Author) -> HttpResponse:
    """Create or change a feed: the body is its columns, or an object with them under `feed`."""
    body = read_body(request)
    columns = body["feed"] if list(body) == ["feed"] else body
    if not isinstance(columns, dict):
        raise RequestRefused("invalid", "feed: must be an object", errors={"feed": ["must be an object"]})
    if not columns.get("name"):
        raise RequestRefused("invalid", "name: is missing", errors={"name": ["is missing"]})
    return JsonResponse({"feed": save_feed(columns=columns, author=author).columns()})


@endpoint("POST", "exchanges.change_exchangefeed")
def feed_toggle(request: HttpRequest, author: Author) -> HttpResponse:
    """Enable or disable a feed: `{"name": …, "enabled": …}`; without `enabled` it is turned round."""
    body = read_body(request)
    errors = {key: ["there is no such key"] for key in body if key not in ("name", "enabled")}
    name, enabled = body.get("name"), body.get("enabled")
    if not isinstance(name, str):
        errors["name"] = ["must be text"]
    if "enabled" in body and not isinstance(enabled, bool):
        errors["enabled"] = ["must be true or false"]
    if errors:
        raise RequestRefused("invalid", "The feed cannot be toggled.", errors=errors)
    feed = toggle_feed(name=str(name), enabled=enabled, author=author)
    return JsonResponse({"name": feed.name, "enabled": feed.enabled})


@endpoint("GET", "exchanges.view_exchangeasset")
def assets(request: HttpRequest, author: Author) -> HttpResponse:
    """List the listings, of one exchange when `?exchange=` names it, with the age of their prices."""
    exchange = request.GET.get("exchange", "")
    listings = list(
        ExchangeAsset.objects.at(get_feed(exchange).name) if exchange else ExchangeAsset.objects.all()
    )
    live = live_now(request, [(row.asset, row.exchange_id) for row in listings])
    return JsonResponse({**_liveness(live), "assets": [_asset_document(row, live) for row in listings]})


@endpoint("POST", "exchanges.add_exchangeasset", "exchanges.change_exchangeasset")
def assets_save(request: HttpRequest, author: Author) -> HttpResponse:
    """Save a batch, all or nothing: `{"exchange": …, "assets": [{"asset", "symbol", …}, …]}`."""
    body = read_body(request)
    errors = {key: ["there is no such key"] for key in body if key not in ("exchange", "assets")}
    rows, exchange = body.get("assets"), body.get("exchange")
    if not isinstance(rows, list) or not rows:
        errors["assets"] = ["must be a list of at least one row"]
    if exchange is not None and not isinstance(exchange, str):
        errors["exchange"] = ["must be text"]
    if errors:
        raise RequestRefused("invalid", "The batch cannot be saved.", errors=errors)
    saved = save_assets(rows=rows or [], exchange=exchange, author=author)
    return JsonResponse({"saved": len(saved), "assets": [_columns(row) for row in saved]})


Document = dict[str, Any]  # Any: JSON


def _liveness(live: Live) -> Document:
    return {"live": live.reporting, "live_detail": live.explanation}


def _feed_document(feed: ExchangeFeed, live: Live) -> Document:
    counts = {"asset_count": feed.asset_count, "home_count": feed.home_count}  # type: ignore[attr-defined]  # annotated
    return {**feed.columns(), **counts, "status": _status(live.feed(feed.name)) if live.known else None}


def _status(feed: LiveFeed) -> Document:
    known = feed.status
    return {
        "state": feed.state,
        "detail": feed.detail,
        "since_ns": known.since_ns,
        "connections": known.connections,
        "symbols": known.symbols,
        "live_symbols": known.live,
        "frames": known.frames,
        "ticks": feed.ticks,
        "last_tick_age_ms": feed.last_tick_age_ms,
        "reconnects": known.reconnects,
        "refused_symbols": known.refused_symbols,
        "refusals": known.refusals,
        "superseded": known.superseded,
        "recent_refusals": msgspec.to_builtins(known.recent_refusals),
        "stuck_assets": known.stuck_assets,
    }


def _columns(listing: ExchangeAsset) -> Document:
    return {"exchange": listing.exchange_id} | {field: getattr(listing, field) for field in ASSET_COLUMNS}


def _asset_document(listing: ExchangeAsset, live: Live) -> Document:
    price = live.prices.get((listing.asset, listing.exchange_id))
    return {**_columns(listing), "live": asdict(price) if price else None}
