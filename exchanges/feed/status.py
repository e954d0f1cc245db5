"""What the feed process says about itself once a second: one JSON document on the board. Pure.

The manager writes it; the command centre, the health checks and the metrics read it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

RECENT_REFUSALS = 20
TEXT_CHARACTERS = 200

FeedState = Literal["connecting", "live", "quiet", "paused", "backoff", "refused", "disabled"]


class RefusedTick(msgspec.Struct, frozen=True):
    """One tick that the guard did not let through."""

    at_ns: int
    symbol: str
    reason: str
    detail: str


class FeedStatus(msgspec.Struct, kw_only=True):
    """One exchange. Counts start with the feed process; a connection's own start with the connection."""

    state: FeedState
    detail: str = ""
    since_ns: int = 0
    connections: int = 0
    """Open at this instant."""
    symbols: int = 0
    """Asked for."""
    live: int = 0
    """Symbols that have ticked on their present connection."""
    refused_symbols: dict[str, str] = {}
    """Symbol → what the exchange said."""
    frames: int = 0
    ticks: int = 0
    """Written to the board."""
    ticks_per_s: float = 0
    """Since the status before."""
    reconnects: int = 0
    refusals: dict[str, int] = {}
    """Reason → ticks not let through."""
    superseded: int = 0
    """Trades that came in one frame with a newer one of their symbol: passed over, which is no refusal."""
    recent_refusals: list[RefusedTick] = []
    stuck_assets: list[str] = []
    """Not traded here although other exchanges traded the asset."""


class NodeStatus(msgspec.Struct, kw_only=True):
    generated_ns: int
    feeds: dict[str, FeedStatus] = {}


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(NodeStatus)


def encode_status(status: NodeStatus, *, limit_bytes: int) -> bytes:
    """Return the document, without its lists of single cases when it would be longer than *limit_bytes*."""
    document = _encoder.encode(status)
    if len(document) <= limit_bytes:
        return document
    for feed in status.feeds.values():
        feed.recent_refusals, feed.refused_symbols, feed.stuck_assets = [], {}, []
    return _encoder.encode(status)


def decode_status(document: bytes) -> NodeStatus | None:
    """Read a document from the board; None where there is none yet, or none of this shape."""
    try:
        return _decoder.decode(document)
    except msgspec.MsgspecError:
        return None
