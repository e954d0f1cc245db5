"""Rows for tests: one plain exchange that needs no quirks, and its listings."""

from __future__ import annotations

from typing import Any

from exchanges.feed.spec import FeedSpec, Listing, parse_feed


def feed_row(**changes: Any) -> dict[str, Any]:  # Any: JSON values, as in the table
    """Return the 19 columns of an exchange that sends {"e":"trade","s":symbol,"p":price,"T":ms,"i":id}."""
    row = {
        "name": "plain",
        "display_name": "Plain",
        "enabled": True,
        "quote_currency": "USD",
        "ws_url": "wss://stream.plain.example/ws",
        "subscribe_template": '{"op":"subscribe","args":[{SYMBOLS}],"id":{ID}}',
        "symbol_template": '"{SYMBOL}"',
        "symbols_per_frame": 0,
        "trade_match": {"e": "trade"},
        "trades_path": "$",
        "symbol_path": "s",
        "price_path": "p",
        "timestamp_path": "T",
        "timestamp_format": "unix_ms",
        "ping_interval_s": 0,
        "ping_payload": "",
        "rest_url": "https://api.plain.example/last?symbol={SYMBOL}",
        "rest_price_path": "last",
        "quirks": {},
    }
    return {**row, **changes}


def feed_spec(**changes: Any) -> FeedSpec:  # Any: JSON values, as in the table
    return parse_feed(feed_row(**changes))


def listing(asset: str, exchange: str = "plain", **changes: Any) -> Listing:  # Any: the listing's columns
    return Listing(**{"asset": asset, "exchange": exchange, "symbol": f"{asset}-USD", **changes})
