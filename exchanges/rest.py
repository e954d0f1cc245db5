"""Tier 3: ask an exchange's REST interface for its latest trade, as the exchange's row says.

The only door to `httpcore`. Requests go to addresses that `exchanges.addresses` has checked, follow no
redirect, and are bounded in time, in size and in number per second.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import httpcore

from exchanges.addresses import HTTP, Resolver, check_url, open_socket, resolve, tls_context
from exchanges.exceptions import AddressRefused
from exchanges.feed.connection import Network
from exchanges.feed.decode import RestRule
from exchanges.feed.spec import FeedSpec, Listing
from pricing.exceptions import FallbackError
from pricing.service import FallbackPrice

MAX_BODY_BYTES: Final = 262_144
CONNECTIONS_PER_EXCHANGE: Final = 4
KEEPALIVE_S: Final = 30.0
CLOSE_S: Final = 1.0
_HEADERS: Final = (
    ("Accept", "application/json"),
    ("Accept-Encoding", "identity"),  # a compressed answer could unpack to any size
    ("User-Agent", "trinity-beast"),
)


class TokenBucket:
    """At most *rate_per_s* requests a second, as many at once. Time comes in."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._tokens = rate_per_s
        self._filled_ns = 0

    def take(self, mono_ns: int) -> bool:
        gained = (mono_ns - self._filled_ns) * self._rate_per_s / 1e9
        self._tokens = min(self._rate_per_s, self._tokens + gained)
        self._filled_ns = mono_ns
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Exchange:
    """One row's way to its REST interface."""

    def __init__(self, spec: FeedSpec, pool: httpcore.AsyncConnectionPool) -> None:
        self.spec = spec
        self.rule = RestRule(spec)
        self.bucket = TokenBucket(spec.quirks.rest.rate_per_s)
        self.pool = pool


class RestClient:
    """Implements `pricing.service.Fallback` for the exchanges and listings it was last given."""

    def __init__(
        self,
        *,
        allow_loopback: bool,
        timeout_s: float = 2.0,
        tls: ssl.SSLContext | None = None,
        resolver: Resolver = resolve,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._allow_loopback = allow_loopback
        self._timeout_s = timeout_s
        self._tls = tls or tls_context()
        self._backend = _CheckedBackend(allow_loopback=allow_loopback, resolver=resolver)
        self._wall_ns, self._mono_ns = wall_ns, mono_ns
        self._exchanges: dict[str, _Exchange] = {}
        self._symbols: dict[tuple[str, str], str] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def follow(self, specs: Iterable[FeedSpec], listings: Iterable[Listing]) -> None:
        """Take over new tables; rows that did not change keep their connections and their rate."""
        known, self._exchanges = self._exchanges, {}
        for spec in specs:
            if spec.enabled and spec.rest_url:
                old = known.get(spec.name)
                if old is not None and old.spec == spec:
                    self._exchanges[spec.name] = known.pop(spec.name)
                else:
                    self._exchanges[spec.name] = _Exchange(spec, self._pool())
        self._retire(known.values())
        self._symbols = {(row.asset, row.exchange): row.asked_by_rest for row in listings if row.enabled}

    def knows_trades(self, exchange: str) -> bool:
        """Say whether *exchange* tells when the price traded."""
        asked = self._exchanges.get(exchange)
        return asked is not None and asked.spec.quirks.rest.time_is == "trade"

    def admits(self, asset: str, exchange: str) -> bool:
        """Take one of the requests that the row's rate allows; False when none is left, or nothing to ask."""
        asked = self._exchanges.get(exchange)
        return asked is not None and (asset, exchange) in self._symbols and asked.bucket.take(self._mono_ns())

    async def latest(self, asset: str, exchange: str) -> FallbackPrice | None:
        """Ask *exchange* once for *asset*, after `admits`; FallbackError with the reason for no price."""
        asked = self._exchanges.get(exchange)
        symbol = self._symbols.get((asset, exchange))
        if asked is None or symbol is None:
            return None
        with _reasons():
            async with asyncio.timeout(self._timeout_s):
                url = asked.rule.url(symbol)
                check_url(url, schemes=HTTP, allow_loopback=self._allow_loopback)
                body = await _ask(asked.pool, "GET", url)
        tick = asked.rule.read(body, symbol)
        if isinstance(tick, str):
            raise FallbackError(tick)
        return FallbackPrice(
            price=tick.price,
            traded_ns=tick.traded_ns if self.knows_trades(exchange) else None,
            received_ns=self._wall_ns(),
            source=asked.spec.rest_source,
            quote=asked.spec.quote_currency,
        )

    async def aclose(self) -> None:
        """Close every connection. Harmless when repeated."""
        self._retire(self._exchanges.values())
        self._exchanges = {}
        await asyncio.gather(*self._closing)

    def _retire(self, exchanges: Iterable[_Exchange]) -> None:
        for exchange in exchanges:
            task = asyncio.create_task(_close(exchange.pool), name=f"rest:close:{exchange.spec.name}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _pool(self) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            max_connections=CONNECTIONS_PER_EXCHANGE,
            keepalive_expiry=KEEPALIVE_S,
            network_backend=self._backend,
        )


async def _close(pool: httpcore.AsyncConnectionPool) -> None:
    """Close what should close at once, for as long as that may take and no longer."""
    with contextlib.suppress(TimeoutError):  # what is left is an idle connection, which its peer will close
        async with asyncio.timeout(CLOSE_S):
            await pool.aclose()


async def ask_token(url: str, network: Network) -> bytes:
    """Return what a POST without a body answers: how some exchanges give out a feed's address.

    Raise AddressRefused, or OSError with the reason.
    """
    check_url(url, schemes=HTTP, allow_loopback=network.allow_loopback)
    backend = _CheckedBackend(allow_loopback=network.allow_loopback, resolver=network.resolver)
    try:
        with _reasons():
            async with (
                asyncio.timeout(network.open_timeout_s),
                httpcore.AsyncConnectionPool(ssl_context=network.tls, network_backend=backend) as pool,
            ):
                return await _ask(pool, "POST", url)
    except FallbackError as error:
        raise ConnectionError(f"no token from {url}: {error.reason}") from error


async def _ask(pool: httpcore.AsyncConnectionPool, method: str, url: str) -> bytes:
    async with pool.stream(method, url, headers=list(_HEADERS)) as response:
        if response.status != 200:
            raise FallbackError(f"http_{response.status}")
        body = bytearray()
        async for part in response.aiter_stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise FallbackError("too_large")
        return bytes(body)


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Turn what the network and its library raise into a FallbackError with a stable word."""
    try:
        yield
    except AddressRefused as error:
        raise FallbackError("address_refused") from error
    except (TimeoutError, httpcore.TimeoutException) as error:
        raise FallbackError("timeout") from error
    except ssl.SSLError as error:
        raise FallbackError("tls") from error
    except (OSError, httpcore.NetworkError) as error:
        raise FallbackError("unreachable") from error
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise FallbackError("not_http") from error


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections for `httpcore` through `exchanges.addresses` only."""

    def __init__(self, *, allow_loopback: bool, resolver: Resolver) -> None:
        self._allow_loopback = allow_loopback
        self._resolver = resolver

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        sock = await open_socket(
            host,
            port,
            allow_loopback=self._allow_loopback,
            timeout_s=timeout or 10.0,
            resolver=self._resolver,
        )
        return _Stream(*await asyncio.open_connection(sock=sock))


class _Stream(httpcore.AsyncNetworkStream):
    """An asyncio stream as `httpcore` wants it; the whole request is under one timeout, so none is here."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self._writer.write(buffer)
        await self._writer.drain()

    async def aclose(self) -> None:
        # Closing in good manners waits for a TLS peer's farewell, which may never come, and httpcore shields
        # that wait from every time limit. Nothing that was written is still wanted.
        self._writer.transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        try:
            await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except BaseException:
            self._writer.transport.abort()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:  # Any: httpcore's signature
        if info == "is_readable":  # asked of idle connections: has the server closed it?
            return self._reader.at_eof() or self._writer.is_closing()
        return self._writer.get_extra_info("sslcontext" if info == "ssl_context" else info)
