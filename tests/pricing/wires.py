"""A worker's connection without a socket: bytes in, bytes out, on a world that can be looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.server import ServerState

from pricing._http import FastPath
from pricing.doors import Limits
from pricing.edge import EdgeConfig, EdgeProtocol
from pricing.http import PriceApi, make_fast_path
from telemetry._counters import CounterReader, Counters, counters_size, format_counters
from tests.pricing.doubles import World, spool_state

DATE = (b"date", b"Sun, 22 Nov 2026 13:00:00 GMT")
NEVER_S = 3_600.0


class TransportDouble(asyncio.Transport):
    def __init__(self, client: tuple[str, int], port: int) -> None:
        super().__init__({"peername": client, "sockname": ("127.0.0.1", port)})
        self.written = b""
        self.closing = False

    def write(self, data: Any) -> None:  # Any: whatever has bytes
        if not self.closing:
            self.written += bytes(data)

    def close(self) -> None:
        self.closing = True

    abort = close

    def write_eof(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


class Wired(World):
    """A world with a worker in it; without *fast* even plain questions go the ordinary way."""

    def __init__(self, *, fast: bool) -> None:
        super().__init__()
        self.memory = bytearray(counters_size())
        format_counters(self.memory)
        self.counters = Counters(self.memory, 1)
        self.counted = CounterReader(self.memory)
        self.service = self.make_service(self.fallback)
        self.admission = self.make_admission()
        api = PriceApi(
            self.service,
            self.board,
            self.counters,
            self.admission,
            counted=self.counted,
            spool=spool_state,
            health_port=8081,
            worker=1,
            mono_ns=self.clock.mono_ns,
        )
        self.app_state: dict[str, Any] = {"fast_path": self.make_fast_path()} if fast else {}
        limits = Limits(head_s=NEVER_S, body_s=NEVER_S, write_s=NEVER_S, linger_s=NEVER_S)
        options: dict[str, Any] = {"lifespan": "off", "log_config": None, "access_log": False}
        self.config = EdgeConfig(api, limits=limits, health_port=8081, **options)
        self.config.load()
        self.server_state = ServerState()
        self.server_state.default_headers = [DATE]

    def make_fast_path(self, clock: Callable[[], tuple[int, int]] | None = None) -> FastPath:
        time, ttl_ms = self.clock, self.parameters.price_ttl_ms
        path = make_fast_path(
            self.board,
            self.gate,
            self.counters,  # type: ignore[arg-type]  # real ones here
            self.spool.appender,
            ttl_ms=ttl_ms,
            clock=clock or (lambda: (time.mono, time.wall)),
        )
        path.follow(self.service.view.listed())
        return path

    def connect(self, client: str = "192.0.2.7", *, port: int = 8080) -> Wire:
        return Wire(self, TransportDouble((client, 50_000), port))

    async def aclose(self) -> None:
        await super().aclose()
        self.counters.close()
        self.counted.close()


class Wire:
    """One connection."""

    def __init__(self, world: Wired, transport: TransportDouble) -> None:
        self.world, self.transport = world, transport
        self.protocol = EdgeProtocol(world.config, world.server_state, world.app_state)
        self.protocol.access_log = False  # pytest's handler would have it on
        self.protocol.connection_made(transport)
        self.fast = 0  # pieces that were answered at once
        self.slow = 0  # questions that took the ordinary way

    async def send(self, *pieces: bytes) -> bytes:
        """Hand pieces over as they arrive, and return what was answered to all of them."""
        begin = len(self.transport.written)
        for piece in pieces:
            if not self.transport.closing:
                written = len(self.transport.written)
                self.protocol.data_received(piece)
                self.fast += self.transport.written.startswith(b"HTTP/1.1 200", written)
                self.slow += len(self.world.server_state.tasks)
                await self._settled()
        return self.transport.written[begin:]

    async def _settled(self) -> None:
        async with asyncio.timeout(10):
            while self.world.server_state.tasks:  # noqa: ASYNC110  # uvicorn tells nobody
                await asyncio.sleep(0)
        await asyncio.sleep(0)

    def close(self) -> None:
        self.protocol.connection_lost(None)
