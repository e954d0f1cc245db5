"""One observed price: as a feed or a REST answer saw it, and as it is kept outside the board. Pure."""

from __future__ import annotations

import msgspec


class Tick(msgspec.Struct, frozen=True, gc=False):
    symbol: str
    """What the exchange calls the asset."""
    price: str
    """The exchange's own digits; exponents are written out."""
    traded_ns: int | None
    """Wall clock of the exchange; None where it gave no time (some REST answers)."""
    trade_id: str | int = ""


class StoredPrice(msgspec.Struct, frozen=True, gc=False):
    """A price in tier 2 or 3. Wall clocks only: another node's monotonic clock means nothing here."""

    asset: str
    exchange: str
    source: str
    quote: str
    price: str
    traded_ns: int | None
    """None where an exchange answers over REST without the trade's time: nobody knows then how old it is."""
    received_ns: int
    polled: bool = False
    """Asked for over REST: at *received_ns* the exchange itself called it the latest trade."""

    def age_ns(self, wall_ns: int) -> int:
        """Say how long ago the trade was; where that is unknown, how long ago the exchange answered."""
        late_ns = 0 if self.traded_ns is None else max(0, self.received_ns - self.traded_ns)
        return late_ns + max(0, wall_ns - self.received_ns)
