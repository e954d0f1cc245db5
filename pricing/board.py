"""The price board as its readers see it, and the choice among prices. Pure.

The board itself is `pricing._board`, in shared memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar


class PriceLike(Protocol):
    """What the board, tier 2 and tier 3 have in common."""

    @property
    def asset(self) -> str: ...
    @property
    def exchange(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def quote(self) -> str: ...
    @property
    def price(self) -> str: ...
    @property
    def traded_ns(self) -> int | None:
        """When it traded; None where an exchange tells over REST only what the latest price is."""

    @property
    def received_ns(self) -> int: ...
    def age_ns(self, now_ns: int, /) -> int:
        """Say how old it is, by the clock of its tier: CLOCK_MONOTONIC on the board, else the wall clock."""


class LivePrice(PriceLike, Protocol):
    @property
    def traded_ns(self) -> int: ...
    @property
    def received_mono_ns(self) -> int: ...


class ExchangeRow(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def ticks(self) -> int: ...
    @property
    def last_tick_mono_ns(self) -> int: ...


class Board(Protocol):
    def get(self, asset: str, exchange: str, /) -> LivePrice | None: ...
    def best(self, asset: str, mono_ns: int, ttl_ns: int, /) -> LivePrice | None: ...
    def all(self, asset: str, /) -> Sequence[LivePrice]: ...
    def exchanges(self) -> Sequence[ExchangeRow]: ...
    def status(self) -> bytes: ...
    @property
    def heartbeat_mono_ns(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def read_counts(self) -> Mapping[str, int]: ...


P = TypeVar("P", bound=PriceLike)


def choose(prices: Iterable[P], home: str | None, now_ns: int) -> P | None:
    """Choose among fresh prices of an asset: the home exchange's, else the freshest, as `Board.best` does.

    A price whose trade has no time comes after those whose age is known.
    """

    def rank(price: P) -> tuple[bool, bool, int]:
        return price.exchange != home, price.traded_ns is None, price.age_ns(now_ns)

    return min(prices, key=rank, default=None)
