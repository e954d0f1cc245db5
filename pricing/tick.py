"""One observed trade price, as a feed or a REST answer saw it. Pure."""

from __future__ import annotations

import msgspec


class Tick(msgspec.Struct, frozen=True, gc=False):
    symbol: str
    """What the exchange calls the asset."""
    price: str
    """The exchange's own digits; exponents are written out."""
    traded_ns: int | None
    """Wall clock of the exchange; None where it gave no time (some REST answers)."""
    trade_id: str = ""
