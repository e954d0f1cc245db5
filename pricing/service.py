"""One question in, one price or one reason out: the board, then Valkey, then the exchange's REST interface.

Adapter: no Django. Everything it needs is handed in, clocks included.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class FallbackPrice(msgspec.Struct, frozen=True):
    """An exchange's latest trade as its REST interface tells it."""

    price: str
    traded_ns: int | None
    """None where the exchange gives no time; the time of receipt then stands for it."""
    received_ns: int
    source: str
    quote: str


class FallbackError(Exception):
    """The exchange gave no price: refused, limited, unreachable, unreadable. *reason* is a stable word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Fallback(Protocol):
    async def latest(self, asset: str, exchange: str) -> FallbackPrice | None:
        """Ask *exchange* once. None: it has no REST interface for the asset, so asking again is pointless."""
