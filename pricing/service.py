"""One question in, one price or one reason out: the board, then Valkey, then the exchange's REST interface.

Adapter: no Django. Everything it needs is handed in, clocks included.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from pricing.board import Board, choose
from pricing.catalogue import EMPTY, Catalogue, PublicView
from pricing.exceptions import FallbackError
from pricing.flights import Flights
from pricing.parameters import MS, Parameters
from pricing.problems import Problem
from pricing.protocol import PriceAnswer, PriceQuery
from pricing.tick import StoredPrice
from telemetry._counters import (
    CACHE_MISSES,
    ELASTICACHE_HITS,
    REST_FALLBACKS,
    STALE_REFUSALS,
    SYNCMAP_HITS,
)

FUTURE_NS = 5_000 * MS

logger = logging.getLogger(__name__)


class FallbackPrice(msgspec.Struct, frozen=True):
    """An exchange's latest trade as its REST interface tells it."""

    price: str
    traded_ns: int | None
    """None where the exchange does not tell when it traded."""
    received_ns: int
    source: str
    quote: str


class Fallback(Protocol):
    def knows_trades(self, exchange: str) -> bool:
        """Say whether *exchange* tells when the price traded."""

    def admits(self, asset: str, exchange: str) -> bool:
        """Take the right to ask once; False with nothing to ask, or enough asked for now."""

    async def latest(self, asset: str, exchange: str) -> FallbackPrice | None:
        """Ask *exchange* once. None: it has no REST interface for the asset, so asking again is pointless."""


class Tier2(Protocol):
    failures: int
    malformed: int

    async def read(self, asset: str) -> Mapping[str, StoredPrice]:
        """Return what is known by exchange; nothing when tier 2 is dead or slow. Never raises."""

    async def keep(self, price: StoredPrice) -> None:
        """Store one price if that is possible now. Never raises."""


class _Flight(NamedTuple):
    """What a request over REST is for, as the tables were in their *edition*."""

    asset: str
    exchange: str
    edition: int


class CounterRow(Protocol):
    def add(self, index: int, n: int = 1, /) -> None: ...


class PriceService:
    """Answer price questions from three tiers. One per process; `aclose` ends the REST requests under way."""

    def __init__(
        self,
        board: Board,
        tier2: Tier2 | None,
        fallback: Fallback | None,
        parameters: Parameters,
        counters: CounterRow,
        *,
        catalogue: Callable[[], Catalogue],
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.parameters = parameters
        self._board = board
        self.tier2 = tier2
        self._fallback = fallback
        self._counters = counters
        self.view = PublicView(catalogue)
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns
        self._tables = EMPTY
        self._edition = 0
        self._flights: Flights[_Flight, StoredPrice] = Flights(
            self._ask,
            mono_ns=mono_ns,
            entries=parameters.local_entries,
            limit=parameters.fallback_flights,
            negative_ns=parameters.negative_ttl_ms * MS,
            admits=lambda key: fallback is not None and fallback.admits(key.asset, key.exchange),
        )

    async def price(self, query: PriceQuery) -> PriceAnswer | Problem:
        """Answer from the first tier that has a price as fresh as asked. Cancelling is safe."""
        answer = self.at_once(query)
        return await self.below(query) if answer is None else answer

    def at_once(self, query: PriceQuery) -> PriceAnswer | Problem | None:
        """Answer from the board alone; None when the lower tiers must be asked with `below`."""
        exchanges = self._exchanges(query)
        if isinstance(exchanges, Problem):
            return exchanges
        if query.min_sources is not None and len(self._live_sources(query)) < query.min_sources:
            return None
        return self._on_board(query, exchanges)

    async def below(self, query: PriceQuery) -> PriceAnswer | Problem:
        """Answer a question that the board alone could not."""
        exchanges = self._exchanges(query)
        if isinstance(exchanges, Problem):
            return exchanges
        stored = await self._stored(query.asset)
        if query.min_sources is not None:
            refusal = self._too_few(query, stored)
            if refusal is not None:
                return refusal
        answer = self._on_board(query, exchanges) or self._in_tier2(query, exchanges, stored)
        if answer is None:
            self._counters.add(CACHE_MISSES)
            answer = await self._fetched(query, exchanges)
        return answer or self._refusal(query, exchanges, stored)

    async def aclose(self) -> None:
        await self._flights.aclose()

    def _exchanges(self, query: PriceQuery) -> tuple[str, ...] | Problem:
        """Return the exchanges that may answer, home first."""
        exchanges = self.view.exchanges_of(query.asset)
        if not exchanges:
            if self.view.catalogue() is EMPTY:  # the tables could not be read yet: not the caller's mistake
                figures: dict[str, object] = {"asset": query.asset, "age_ms": None}
                return Problem("unavailable", "What is listed is not known at the moment.", figures)
            detail = f"{query.asset} is not listed; see /assets."
            return Problem("unknown_asset", detail, {"asset": query.asset})
        if query.exchange is None:
            return exchanges
        if query.exchange in exchanges:
            return (query.exchange,)
        return Problem(
            "unknown_exchange",
            f"{query.asset} is not listed on {query.exchange}; it is on {', '.join(exchanges)}.",
            {"asset": query.asset, "exchange": query.exchange},
        )

    def _on_board(self, query: PriceQuery, exchanges: tuple[str, ...]) -> PriceAnswer | None:
        mono_ns, ttl_ns = self._mono_ns(), self._ttl_ns(query)
        if query.exchange is None:
            price = self._board.best(query.asset, mono_ns, ttl_ns)
            if price is not None and price.exchange not in exchanges:  # live, but not shown in public
                listed = [row for row in self._board.all(query.asset) if row.exchange in exchanges]
                fresh = [row for row in listed if row.age_ns(mono_ns) <= ttl_ns]
                price = choose(fresh, self.view.home_of(query.asset), mono_ns)
        else:
            price = self._board.get(query.asset, query.exchange)
        if price is None or (age_ns := price.age_ns(mono_ns)) > ttl_ns:
            return None
        self._counters.add(SYNCMAP_HITS)
        return PriceAnswer(price, age_ns, 1, cached=True)

    def _ttl_ns(self, query: PriceQuery) -> int:
        ttl_ms = self.parameters.price_ttl_ms
        return MS * (ttl_ms if query.max_age_ms is None else min(ttl_ms, query.max_age_ms))

    def _live_sources(self, query: PriceQuery) -> set[str]:
        """Name the exchanges, whichever was asked for, that have a fresh price on the board."""
        mono_ns, ttl_ns = self._mono_ns(), self._ttl_ns(query)
        listed = self.view.exchanges_of(query.asset)
        rows = self._board.all(query.asset)
        return {row.exchange for row in rows if row.age_ns(mono_ns) <= ttl_ns and row.exchange in listed}

    async def _stored(self, asset: str) -> Mapping[str, StoredPrice]:
        if self.tier2 is None:
            return {}
        stored = await self.tier2.read(asset)
        return {name: price for name, price in stored.items() if self._is_sound(price)}

    def _is_sound(self, price: StoredPrice) -> bool:
        """Leave out what comes from the future (a clock is wrong, the age unknown), and what contradicts the
        tables: it was written before they changed, or by a node that has others.
        """
        exchange = self.view.catalogue().exchanges.get(price.exchange)
        source = f"{price.exchange}-{'rest' if price.polled else 'ws'}"
        return (
            max(price.received_ns, price.traded_ns or 0) <= self._wall_ns() + FUTURE_NS
            and exchange is not None
            and price.quote == exchange.quote
            and price.source.removesuffix("-sim") == source
        )

    def _in_tier2(
        self, query: PriceQuery, exchanges: tuple[str, ...], stored: Mapping[str, StoredPrice]
    ) -> PriceAnswer | None:
        wall_ns = self._wall_ns()
        fresh = [row for name, row in stored.items() if name in exchanges and self._is_fresh(row, query)]
        price = choose(fresh, self.view.home_of(query.asset), wall_ns)
        if price is None:
            return None
        self._counters.add(ELASTICACHE_HITS)
        return PriceAnswer(price, price.age_ns(wall_ns), 2, cached=True)

    def _is_fresh(self, price: StoredPrice, query: PriceQuery) -> bool:
        wall_ns, parameters = self._wall_ns(), self.parameters
        age_ns = price.age_ns(wall_ns)
        if query.max_age_ms is not None and (price.traded_ns is None or age_ns > query.max_age_ms * MS):
            return False
        if not price.polled:
            return age_ns <= parameters.price_ttl_ms * MS
        confirmed = wall_ns - price.received_ns <= parameters.price_ttl_ms * MS
        return confirmed and age_ns <= parameters.fallback_fresh_ms * MS

    def _too_few(self, query: PriceQuery, stored: Mapping[str, StoredPrice]) -> Problem | None:
        listed = self.view.exchanges_of(query.asset)
        traded = {name: row for name, row in stored.items() if name in listed and row.traded_ns is not None}
        fresh = {name for name, row in traded.items() if self._is_fresh(row, query)}
        sources = len(fresh | self._live_sources(query))
        if sources >= (query.min_sources or 0):
            return None
        detail = f"{sources} exchanges have a fresh price of {query.asset}, not {query.min_sources}."
        figures: dict[str, object] = {"asset": query.asset, "sources": sources}
        return Problem("too_few_sources", detail, figures | {"min_sources": query.min_sources})

    async def _fetched(self, query: PriceQuery, exchanges: tuple[str, ...]) -> PriceAnswer | None:
        """Ask home, then another one; each but the last gets half of the time that is left."""
        if self._fallback is None or self._is_out_of_reach(query, exchanges):
            return None
        if query.max_age_ms is not None:
            exchanges = tuple(filter(self._fallback.knows_trades, exchanges))
        clock = asyncio.get_running_loop().time
        end_s = clock() + self.parameters.fallback_timeout_ms / 1_000
        attempts = self.parameters.fallback_attempts
        for place, exchange in enumerate(exchanges, 1):
            is_last = attempts == 1 or place == len(exchanges)
            patience_s = (end_s - clock()) / (1 if is_last else 2)
            if attempts == 0 or patience_s <= 0:
                break
            price, started = await self._fetch(query, exchange, patience_s)
            if price is not None and self._is_fresh(price, query):
                return PriceAnswer(price, price.age_ns(self._wall_ns()), 3, cached=not started)
            attempts -= started
        return None

    def _is_out_of_reach(self, query: PriceQuery, exchanges: tuple[str, ...]) -> bool:
        """Say whether less is asked for than REST can give, while the board has a fresh price."""
        if query.max_age_ms is None or query.max_age_ms >= self.parameters.fallback_reach_ms:
            return False
        mono_ns, ttl_ns = self._mono_ns(), self.parameters.price_ttl_ms * MS
        rows = self._board.all(query.asset)
        return any(row.exchange in exchanges and row.age_ns(mono_ns) <= ttl_ns for row in rows)

    async def _fetch(
        self, query: PriceQuery, exchange: str, patience_s: float
    ) -> tuple[StoredPrice | None, bool]:
        key = self._flight(query.asset, exchange)
        kept = self._flights.kept(key)
        if kept is not None:
            price, since_ns = kept
            if since_ns < self.parameters.fallback_pause_ms * MS or self._is_fresh(price, query):
                return price, False
        return await self._flights.get(key, patience_s)

    def _flight(self, asset: str, exchange: str) -> _Flight:
        """Name a fetch. After a change of the tables the same words may mean another symbol or address."""
        if (tables := self.view.catalogue()) is not self._tables:
            self._tables, self._edition = tables, self._edition + 1
        return _Flight(asset, exchange, self._edition)

    async def _ask(self, flight: _Flight) -> StoredPrice | None:
        asset, exchange = flight.asset, flight.exchange
        if self._fallback is None:
            return None
        self._counters.add(REST_FALLBACKS)
        try:
            async with asyncio.timeout(self.parameters.fallback_timeout_ms / 1_000):
                found = await self._fallback.latest(asset, exchange)
        except (FallbackError, TimeoutError) as error:
            logger.debug("No price of %s from %s over REST: %r", asset, exchange, error)
            return None
        if found is None or flight != self._flight(asset, exchange):
            return None
        times = found.traded_ns, found.received_ns
        price = StoredPrice(asset, exchange, found.source, found.quote, found.price, *times, polled=True)
        if self.tier2 is not None:
            await self.tier2.keep(price)
        return price

    def _refusal(
        self, query: PriceQuery, exchanges: tuple[str, ...], stored: Mapping[str, StoredPrice]
    ) -> Problem:
        self._counters.add(STALE_REFUSALS)
        known = self._known(query.asset, exchanges, stored)
        ages_ns = [age_ns for age_ns, from_trade in known if from_trade or query.max_age_ms is None]
        age_ms = min(ages_ns) // MS if ages_ns else None
        figures: dict[str, object] = {"asset": query.asset, "age_ms": age_ms}
        if query.exchange is not None:
            figures["exchange"] = query.exchange
        if not known:
            return Problem("unavailable", f"No price of {query.asset} is known at the moment.", figures)
        newest = f"The newest known price of {query.asset} is {age_ms} ms old"
        if query.max_age_ms is None or (age_ms is not None and age_ms <= query.max_age_ms):
            limit_ms = self.parameters.price_ttl_ms
            return Problem("unavailable", f"{newest}; none older than {limit_ms} ms is given out.", figures)
        if age_ms is None:
            newest = f"It is not known when {query.asset} last traded"
        figures["max_age_ms"] = query.max_age_ms
        return Problem("stale", f"{newest}; at most {query.max_age_ms} ms were asked for.", figures)

    def _known(
        self, asset: str, exchanges: tuple[str, ...], stored: Mapping[str, StoredPrice]
    ) -> list[tuple[int, bool]]:
        """List the age of every price known, and whether it counts from a trade."""
        mono_ns, wall_ns = self._mono_ns(), self._wall_ns()
        live = [row.age_ns(mono_ns) for row in self._board.all(asset) if row.exchange in exchanges]
        kept = (self._flights.kept(self._flight(asset, name)) for name in exchanges)
        rows = [row for name, row in stored.items() if name in exchanges]
        rows += [entry[0] for entry in kept if entry is not None]
        return [(age_ns, True) for age_ns in live] + [
            (row.age_ns(wall_ns), row.traded_ns is not None) for row in rows
        ]
