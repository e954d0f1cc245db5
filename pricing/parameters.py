"""The tunables of the price service, with their defaults and limits. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields

MS = 1_000_000
"""Nanoseconds in a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    price_ttl_ms: int = 13_000
    """A live price older than this is not fresh; also how long one REST answer serves later questions."""
    cache_read_ms: int = 50
    """The longest a question waits for tier 2."""
    cache_retry_ms: int = 2_000
    """After a failed read tier 2 is left alone for so long; recovery is promised within 5 s."""
    cache_expiry_s: int = 3_600
    """Tier 2 forgets an asset that nobody has written for so long."""
    fallback_timeout_ms: int = 2_500
    """The longest a question waits for tier 3, all exchanges together."""
    fallback_fresh_ms: int = 3_600_000
    """The oldest trade that a REST answer may carry: an illiquid asset's latest trade is its price."""
    fallback_pause_ms: int = 1_000
    """However fresh a price is demanded, an exchange is not asked for the same asset more often."""
    fallback_attempts: int = 2
    """Requests that one question may cause: to the home exchange, and to one other."""
    fallback_reach_ms: int = 250
    """No answer over REST is younger: with a fresh price on the board none is asked for less."""
    fallback_flights: int = 64
    """REST requests under way at once, per process."""
    negative_ttl_ms: int = 5_000
    """An exchange that gave no price for an asset is not asked again for so long."""
    local_entries: int = 2_048
    """REST answers and failures remembered by a process."""
    heartbeat_ms: int = 5_000
    """A board whose writer has been silent for longer is not ready; a gate's keyring is called dead."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{field.name} must be a whole number above 0, not {value!r}")
        if self.cache_retry_ms > 5_000:
            raise ValueError("cache_retry_ms must be at most 5000: tier 2 is back within 5 s")
