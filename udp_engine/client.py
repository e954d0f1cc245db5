"""Clients of the UDP interface: they ask, ask again by id, and read the answer. Adapter: no Django."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any, Self

from udp_engine.exceptions import BadReply, ClientClosed, Refused
from udp_engine.questions import Answer, Lots, Retry, Tries
from udp_engine.wire import PORT, Price, Prices, Refusal, Summary, build_request, parse_reply

DEFAULT = Retry()
RECEIVE_BYTES = 65_535


class PriceClient:
    """Ask one question after another, in one thread. Use it as a context manager, or close it.

    Every method raises UdpError; making a client raises OSError where there is no such host.
    """

    def __init__(self, host: str, port: int = PORT, *, key: str, retry: Retry = DEFAULT) -> None:
        self._name = f"{type(self).__name__}({host!r}, {port})"
        self._key = key
        self._retry = retry
        self._error: OSError | None = None
        self._socket = _connected(socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM))

    def __repr__(self) -> str:
        return self._name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def price(self, asset: str, exchange: str | None = None, max_age_ms: int | None = None) -> Price:
        """Ask for one price."""
        id = _new_id()
        request = build_request(asset, self._key, id=id, exchange=exchange, max_age_ms=max_age_ms)
        return self._ask(request, id, Price)

    def prices(
        self, assets: Iterable[str], exchange: str | None = None, max_age_ms: int | None = None
    ) -> dict[str, Price | Refused]:
        """Ask for several, by their names in upper case: each has a price, or why there is none.

        What has no room in an answer is asked for again, which takes another request of the plan.
        """
        lots = Lots(assets, self._key, exchange, max_age_ms)
        while lots.left:
            id = _new_id()
            lots.take(self._ask(lots.request(id), id, Prices))
        return lots.result()

    def summary(self) -> Summary:
        """Ask what the key has used this month; reports have a port of their own, 2680."""
        id = _new_id()
        return self._ask(build_request(None, self._key, id=id), id, Summary)

    def _ask(self, request: bytes, id: str, kind: type[Answer]) -> Answer:
        clock = time.monotonic
        self._error = None
        tries: Tries[Answer] = Tries(self._retry, clock())
        while (wait_s := tries.next_wait_s(clock())) is not None:
            heard = self._try(request, id, kind, clock() + wait_s)
            time.sleep(tries.pause_s(heard, clock()))
        return tries.result(clock(), self._error)

    def _try(self, request: bytes, id: str, kind: type[Answer], until_s: float) -> Answer | Refusal | None:
        """Send once and listen until then, for the answer to this datagram or to an earlier one."""
        if self._socket.fileno() < 0:
            raise ClientClosed
        self._send(request)
        while (left_s := until_s - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                whose, answer = parse_reply(self._socket.recv(RECEIVE_BYTES))
            except TimeoutError:
                return None
            except OSError as error:  # an earlier datagram's fate: nobody listens there, or not yet again
                self._error = error
            except BadReply:
                continue
            else:
                if whose == id and isinstance(answer, (kind, Refusal)):
                    return answer
        return None

    def _send(self, request: bytes) -> None:
        for _ in range(2):  # the first may only be told of an earlier datagram's fate, and send nothing
            try:
                self._socket.send(request)
                return
            except OSError as error:
                self._error = error


class AsyncPriceClient:
    """Ask many questions at once, *in_flight* at most: further ones wait for room. Cancelling is safe.

    Use it with `async with`. Every method raises UdpError; entering raises OSError for no such host.
    """

    def __init__(
        self, host: str, port: int = PORT, *, key: str, retry: Retry = DEFAULT, in_flight: int = 64
    ) -> None:
        self._host, self._port = host, port
        self._key = key
        self._retry = retry
        self._room = asyncio.Semaphore(in_flight)
        self._mailbox: _Mailbox | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._host!r}, {self._port})"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
        _, self._mailbox = await loop.create_datagram_endpoint(_Mailbox, sock=_connected(found))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the socket; what still waits for an answer raises ClientClosed."""
        if self._mailbox is not None:
            self._mailbox.transport.close()
            await self._mailbox.closed.wait()

    async def price(self, asset: str, exchange: str | None = None, max_age_ms: int | None = None) -> Price:
        """Ask for one price."""
        id = _new_id()
        request = build_request(asset, self._key, id=id, exchange=exchange, max_age_ms=max_age_ms)
        return await self._ask(request, id, Price)

    async def prices(
        self, assets: Iterable[str], exchange: str | None = None, max_age_ms: int | None = None
    ) -> dict[str, Price | Refused]:
        """Ask for several, as `PriceClient.prices` does."""
        lots = Lots(assets, self._key, exchange, max_age_ms)
        while lots.left:
            id = _new_id()
            lots.take(await self._ask(lots.request(id), id, Prices))
        return lots.result()

    async def summary(self) -> Summary:
        """Ask what the key has used this month, as `PriceClient.summary` does."""
        id = _new_id()
        return await self._ask(build_request(None, self._key, id=id), id, Summary)

    async def _ask(self, request: bytes, id: str, kind: type[Answer]) -> Answer:
        clock = asyncio.get_running_loop().time
        async with self._room:
            if self._mailbox is None:
                raise ClientClosed
            tries: Tries[Answer] = Tries(self._retry, clock())
            while (wait_s := tries.next_wait_s(clock())) is not None:
                heard = await self._mailbox.ask(request, id, kind, wait_s)
                await asyncio.sleep(tries.pause_s(heard, clock()))
            return tries.result(clock(), self._mailbox.error)


class _Mailbox(asyncio.DatagramProtocol):
    """One connected socket, and who waits there for which answer."""

    def __init__(self) -> None:
        self.transport: Any = None  # Any: asyncio.DatagramTransport, or uvloop's own
        self.error: Exception | None = None
        self.closed = asyncio.Event()
        self._waiting: dict[str, tuple[type[Price | Prices | Summary], asyncio.Future[Any]]] = {}

    async def ask(
        self, request: bytes, id: str, kind: type[Answer], wait_s: float
    ) -> Answer | Refusal | None:
        if self.transport.is_closing():
            raise ClientClosed
        future: asyncio.Future[Answer | Refusal] = asyncio.get_running_loop().create_future()
        self._waiting[id] = kind, future
        try:
            self.transport.sendto(request)
            await asyncio.wait([future], timeout=wait_s)
        finally:
            del self._waiting[id]
        if future.cancelled():
            raise ClientClosed
        return future.result() if future.done() else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        try:
            id, answer = parse_reply(data)
        except BadReply:
            return
        kind, future = self._waiting.get(id or "", (Price, None))
        if future is not None and not future.done() and isinstance(answer, (kind, Refusal)):
            future.set_result(answer)

    def error_received(self, exc: Exception) -> None:
        self.error = exc

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        for _, future in self._waiting.values():
            future.cancel()


def _connected(found: Sequence[tuple[Any, ...]]) -> socket.socket:  # Any: what getaddrinfo tells
    """Open a socket that hears this server alone. IPv4 goes first: UDP does not tell what nobody serves."""
    family, kind, protocol, _, address = min(found, key=lambda row: row[0] != socket.AF_INET)
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setblocking(False)
        opened.connect(address)
    except OSError:
        opened.close()
        raise
    return opened


def _new_id() -> str:
    return secrets.token_hex(8)
