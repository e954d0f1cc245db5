"""The only door to tier 2: one hash per asset in Valkey or Redis, one field per exchange.

Adapter: no Django. A dead or slow server costs its callers next to nothing and is found again by itself.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from pricing.board import Board, LivePrice
from pricing.exceptions import Tier2Error
from pricing.flights import Flights
from pricing.parameters import MS, Parameters
from pricing.tick import StoredPrice
from telemetry.seldom import Seldom

KEY = "tb:price:"
CONNECTIONS = 16
FLUSH_CHUNK = 500
FLUSH_TIMEOUT_MS = 1_000
FLUSH_PERIOD_S = 1.0
READ_LIMIT_MS = 1_000
READS = 256

# An older trade never replaces a newer one, whichever node writes it; unless the newer one was written by a
# clock that runs ahead. Where a trade's time is not known, who asked later knows more. Doubles are exact
# enough: they are 256 ns apart here.
WRITE = """
local function times(value)
  local traded = string.match(value, '"traded_ns":(%d+)')
  return traded and tonumber(traded), tonumber(string.match(value, '"received_ns":(%d+)') or 0)
end
for i = 2, #ARGV, 2 do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  local traded, received = times(ARGV[i + 1])
  local old_traded, old_received = times(old or '')
  local older
  if traded and old_traded then older = traded < old_traded else older = received < old_received end
  if not older or old_received > received + 5e9 then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""

_PRICE = re.compile(r"(?![0.]*$)[0-9]{1,40}(\.[0-9]{1,39})?", re.ASCII)  # never zero

logger = logging.getLogger(__name__)


class _Value(msgspec.Struct, omit_defaults=True):
    """What a field holds, as compact JSON. The script above reads the first two."""

    traded_ns: int | None
    received_ns: int
    price: str
    quote: str
    source: str
    polled: bool = False


_decoder = msgspec.json.Decoder(_Value)


class Breaker:
    """After a failure let nobody through for a while, then one at a time until somebody succeeds."""

    def __init__(self, retry_ns: int, mono_ns: Callable[[], int]) -> None:
        self._retry_ns = retry_ns
        self._mono_ns = mono_ns
        self._retry_at_ns: int | None = None

    def admits(self) -> bool:
        if self._retry_at_ns is None:
            return True
        if self._mono_ns() < self._retry_at_ns:
            return False
        self.failed()  # this caller is the probe; the others wait for what it finds
        return True

    def failed(self) -> None:
        self._retry_at_ns = self._mono_ns() + self._retry_ns

    def succeeded(self) -> None:
        self._retry_at_ns = None


class Valkey:
    """Tier 2 as seen by one process. `aclose` when done."""

    def __init__(
        self, url: str, parameters: Parameters, *, mono_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=None,  # every use sits under a time limit of its own
            socket_connect_timeout=1.0,
            # With one the library would use wait_for, which in Python 3.11 loses a cancellation that comes
            # just when the command has been sent.
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )
        self._client = Redis.from_pool(pool)
        self._script = self._client.register_script(WRITE)
        self._parameters = parameters
        self._breaker = Breaker(parameters.cache_retry_ms * MS, mono_ns)
        self._may_log = Seldom(mono_ns)
        self._mono_ns = mono_ns
        # Who misses at once shares one read. It may outlast its callers' patience, so that a connection that
        # takes long to make is there for the next; nothing is remembered.
        self._reads: Flights[str, Mapping[str, StoredPrice] | Tier2Error] = Flights(
            self._read, mono_ns=mono_ns, entries=0, limit=READS, negative_ns=0
        )
        self.failures = 0
        self.malformed = 0

    async def read(self, asset: str) -> Mapping[str, StoredPrice]:
        """Return what is known of *asset* by exchange; nothing when the server is dead or slow."""
        if not self._breaker.admits():
            return {}
        limit_ms = self._parameters.cache_read_ms
        found, started = await self._reads.get(asset, limit_ms / 1_000)
        if found is None:
            found = Tier2Error(f"no answer within {limit_ms} ms")
        if not isinstance(found, Tier2Error):
            return found
        if started:
            self._failed(found)
        return {}

    async def _read(self, asset: str) -> Mapping[str, StoredPrice] | Tier2Error:
        start_ns = self._mono_ns()
        try:
            async with translated(READ_LIMIT_MS):
                fields: dict[bytes, bytes] = await self._client.hgetall(KEY + asset)  # type: ignore[assignment]  # decode_responses is off
        except Tier2Error as error:
            return error
        if self._mono_ns() - start_ns <= self._parameters.cache_read_ms * MS:
            self._breaker.succeeded()  # a late answer is no recovery
        prices = (self._parse(asset, name, value) for name, value in fields.items())
        return {price.exchange: price for price in prices if price is not None}

    async def keep(self, price: StoredPrice) -> None:
        """Store one price if that is possible now."""
        if not self._breaker.admits():
            return
        try:
            await self.write([price], timeout_ms=self._parameters.cache_read_ms)
        except Tier2Error as error:
            self._failed(error)
        else:
            self._breaker.succeeded()

    async def write(self, prices: Sequence[StoredPrice], *, timeout_ms: int = FLUSH_TIMEOUT_MS) -> None:
        """Store *prices* in one round trip. Raises Tier2Error; some may then be stored."""
        by_asset: dict[str, list[bytes | str | int]] = {}
        for price in prices:
            arguments = by_asset.setdefault(price.asset, [self._parameters.cache_expiry_s])
            arguments += (price.exchange, _render(price))
        async with translated(timeout_ms), self._client.pipeline(transaction=False) as pipeline:
            for asset, arguments in by_asset.items():
                await self._script(keys=[KEY + asset], args=arguments, client=pipeline)
            await pipeline.execute()

    async def remove(self, places: Iterable[tuple[str, str]], *, timeout_ms: int = FLUSH_TIMEOUT_MS) -> None:
        """Forget the prices of (asset, exchange). Raises Tier2Error."""
        async with translated(timeout_ms), self._client.pipeline(transaction=False) as pipeline:
            for asset, exchange in places:
                pipeline.hdel(KEY + asset, exchange)
            await pipeline.execute()

    async def aclose(self) -> None:
        await self._reads.aclose()
        await self._client.aclose()

    def _parse(self, asset: str, name: bytes, value: bytes) -> StoredPrice | None:
        try:
            exchange, row = name.decode(), _decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.malformed += 1
            return None
        if not _PRICE.fullmatch(row.price):
            self.malformed += 1
            return None
        return StoredPrice(
            asset, exchange, row.source, row.quote, row.price, row.traded_ns, row.received_ns, row.polled
        )

    def _failed(self, error: Tier2Error) -> None:
        self._breaker.failed()
        self.failures += 1
        if self._may_log():
            logger.warning("Tier 2 does not answer, going on without it: %s", error)


@asynccontextmanager
async def translated(timeout_ms: int) -> AsyncIterator[None]:
    """Bound what is inside, and turn whatever the client library raises into Tier2Error."""
    try:
        async with asyncio.timeout(timeout_ms / 1_000):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        raise Tier2Error(str(error) or type(error).__name__) from error


def _render(price: StoredPrice) -> bytes:
    value = _Value(
        price.traded_ns, price.received_ns, price.price, price.quote, price.source, polled=price.polled
    )
    return msgspec.json.encode(value)


class BoardFlusher:
    """Copy what has changed on the board to tier 2 about every second, as long as the feed process runs."""

    def __init__(
        self,
        board: Board,
        valkey: Valkey,
        assets: Callable[[], Iterable[str]],
        *,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._board = board
        self._valkey = valkey
        self._assets = assets
        # When the price that was last written had been received; only of what is still on the board.
        self._written: dict[tuple[str, str], int] = {}
        self._gone: set[tuple[str, str]] = set()
        self._may_log = Seldom(mono_ns)

    async def run(self, stop: asyncio.Event) -> None:
        """Flush until *stop* is set. A dead server is tried every time; what it missed goes out then."""
        while not stop.is_set():
            try:
                await self.flush()
            except Exception as error:
                if self._may_log():
                    unexpected = not isinstance(error, Tier2Error)
                    logger.warning("The board cannot be flushed to tier 2: %s", error, exc_info=unexpected)
            try:
                async with asyncio.timeout(FLUSH_PERIOD_S):
                    await stop.wait()
            except TimeoutError:
                continue

    async def flush(self) -> int:
        """Write every price received since it was last written, and remove those that left the board.

        A corrected symbol takes its old price off the board, and tier 2 must not go on with it.
        Raises Tier2Error.
        """
        changed = self._changed()
        if self._gone:
            await self._valkey.remove(self._gone)
            self._gone.clear()
        for start in range(0, len(changed), FLUSH_CHUNK):
            chunk = changed[start : start + FLUSH_CHUNK]
            await self._valkey.write([_stored(row) for row in chunk])
            self._written.update({(row.asset, row.exchange): row.received_mono_ns for row in chunk})
        return len(changed)

    def _changed(self) -> list[LivePrice]:
        rows = [row for asset in self._assets() for row in self._board.all(asset)]
        known, self._written = self._written, {}
        changed = []
        for row in rows:
            place = row.asset, row.exchange
            if known.get(place) == row.received_mono_ns:
                self._written[place] = row.received_mono_ns
            else:
                changed.append(row)
        left = known.keys() - {(row.asset, row.exchange) for row in rows}
        self._gone |= {place for place in left if self._board.get(*place) is None}
        return changed


def _stored(row: LivePrice) -> StoredPrice:
    return StoredPrice(
        row.asset, row.exchange, row.source, row.quote, row.price, row.traded_ns, row.received_ns
    )
