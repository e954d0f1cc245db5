"""Single flight: whoever asks for a key that is being fetched shares that fetch. Adapter: asyncio only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from telemetry.seldom import Seldom

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

logger = logging.getLogger(__name__)


class Flights(Generic[K, V]):
    """Fetch a key once at a time; remember what came, and for a while what failed.

    A flight belongs to nobody who waits for it: a caller may be cancelled or lose patience, the flight goes
    on and its result serves the next one. *fetch* has its own time limit and returns None for a failure.
    *admits* is asked before each start; its refusal is no failure of the key's.
    """

    def __init__(
        self,
        fetch: Callable[[K], Coroutine[Any, Any, V | None]],  # Any: what a coroutine may yield and be sent
        *,
        mono_ns: Callable[[], int],
        entries: int,
        limit: int,
        negative_ns: int,
        admits: Callable[[K], bool] = lambda key: True,
    ) -> None:
        self._fetch = fetch
        self._mono_ns = mono_ns
        self._entries = entries
        self._limit = limit
        self._negative_ns = negative_ns
        self._admits = admits
        self._may_log = Seldom(mono_ns)
        self._flying: dict[K, asyncio.Task[V | None]] = {}
        self._kept: dict[K, tuple[V, int]] = {}  # oldest first, at most `entries`
        self._failed: dict[K, int] = {}  # oldest first, at most `entries`

    def __len__(self) -> int:
        return len(self._flying)

    def kept(self, key: K) -> tuple[V, int] | None:
        """Return the last result for *key* and how many nanoseconds ago it came."""
        entry = self._kept.get(key)
        return None if entry is None else (entry[0], self._mono_ns() - entry[1])

    async def get(self, key: K, patience_s: float) -> tuple[V | None, bool]:
        """Fetch *key* or join the fetch under way; return the result and whether this call started it."""
        flight = self._flying.get(key)
        started = flight is None
        if flight is None:
            failed_ns = self._failed.get(key)
            if failed_ns is not None and self._mono_ns() - failed_ns < self._negative_ns:
                return None, False
            if len(self._flying) >= self._limit or not self._admits(key):
                return None, False
            flight = self._start(key)
        await asyncio.wait({flight}, timeout=patience_s)  # leaves the flight alone, whatever happens to us
        if not flight.done() or flight.cancelled() or flight.exception() is not None:
            return None, started
        return flight.result(), started

    def _start(self, key: K) -> asyncio.Task[V | None]:
        flight = asyncio.create_task(self._fetch(key), name=f"flight:{key}")
        self._flying[key] = flight
        flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    def _landed(self, key: K, flight: asyncio.Task[V | None]) -> None:
        del self._flying[key]
        if flight.cancelled():
            return
        error = flight.exception()
        if error is not None and self._may_log():
            logger.error("Fetching %s failed unexpectedly", key, exc_info=error)
        result = None if error is not None else flight.result()
        if result is None:
            self._remember(self._failed, key, self._mono_ns())
        else:
            self._failed.pop(key, None)
            self._remember(self._kept, key, (result, self._mono_ns()))

    def _remember(self, table: dict[K, Any], key: K, entry: object) -> None:  # Any: serves both tables
        table.pop(key, None)
        table[key] = entry
        if len(table) > self._entries:
            del table[next(iter(table))]

    async def aclose(self) -> None:
        """Cancel what is under way and wait until it is gone."""
        flights = list(self._flying.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
