"""An exchange on loopback that does what a test tells it, down to single bytes; and a sink that records."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from exchanges.feed.decode import Fault, Faults
from pricing.tick import Tick

Script = Callable[[ServerConnection], Awaitable[None]]


def trade(symbol: str, price: str, *, trade_id: int = 1, ms: int | None = None) -> str:
    """Return a trade frame as the row in tests.exchanges.rows expects it."""
    stamp = time.time_ns() // 1_000_000 if ms is None else ms
    return json.dumps({"e": "trade", "s": symbol, "p": price, "T": stamp, "i": trade_id})


async def say_nothing(socket: ServerConnection) -> None:
    await socket.wait_closed()


class ScriptedExchange:
    """Run *script* for each connection; what clients send is kept in `received`."""

    def __init__(
        self,
        script: Script = say_nothing,
        *,
        tls: ssl.SSLContext | None = None,
        answer: Callable[[ServerConnection, Request], Response | None] | None = None,
    ) -> None:
        self.script = script
        self.received: list[Any] = []  # Any: decoded JSON
        self.handshakes: list[str] = []
        self.closed: list[int | None] = []
        self.arrived = asyncio.Event()
        self._tls = tls
        self._answer = answer
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._handle, "127.0.0.1", 0, compression=None, ssl=self._tls, process_request=self._request,
            close_timeout=0.5, ping_interval=None,
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}/feed"

    def _request(self, socket: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append(request.path)
        return self._answer(socket, request) if self._answer else None

    async def _handle(self, socket: ServerConnection) -> None:
        reading = asyncio.create_task(self._read(socket))
        try:
            await self.script(socket)
        except ConnectionClosed:
            pass
        finally:
            await socket.close()
            await reading
            self.closed.append(socket.close_code)

    async def _read(self, socket: ServerConnection) -> None:
        try:
            async for frame in socket:
                self.received.append(json.loads(frame))
                self.arrived.set()
        except ConnectionClosed:
            pass


class Record:
    """A Sink that keeps everything."""

    def __init__(self) -> None:
        self.seen: list[Tick] = []
        self.bad: list[Fault] = []
        self.batches: list[tuple[int, int]] = []
        self.changed = asyncio.Event()
        self.of_use = True

    def ticks(self, ticks: Sequence[Tick], wall_ns: int, mono_ns: int) -> int:
        self.seen += ticks
        self.batches.append((wall_ns, mono_ns))
        self.changed.set()
        return len(ticks) if self.of_use else 0

    def faults(self, faults: Faults, wall_ns: int) -> None:
        self.bad += faults.samples
        self.changed.set()

    async def until(self, condition: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
        """Wait until *condition* holds; it is looked at whenever something comes."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()
