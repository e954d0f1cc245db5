"""The simulator: seven exchanges' WebSocket and REST servers on one loopback port, and their control."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from exchanges.simulator import faults as f
from exchanges.simulator.control import control
from exchanges.simulator.dialects import DIALECTS
from exchanges.simulator.dialects.base import Limits, Session
from exchanges.simulator.exchange import Blast, SimulatedExchange
from exchanges.simulator.markets import MARKETS, Market
from exchanges.simulator.peer import Peer
from exchanges.simulator.replay import Replay
from exchanges.simulator.walk import Walk
from exchanges.simulator.wire import text_frame

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
DEFAULT_RATE = 8.0
_STEP_S = 0.05
_BLAST_WRITE_BYTES = 65_536


class UnknownExchange(LookupError):
    """No simulated exchange has this name."""


class Simulator:
    """Serve the exchanges while the context is open. Binds the loopback address only."""

    def __init__(
        self,
        *,
        port: int = 0,
        seed: int = 1,
        rate: float = DEFAULT_RATE,
        dialects: Mapping[str, type[Session]] = DIALECTS,
        limits: Mapping[str, Limits] | None = None,
        markets: Mapping[str, Market] = MARKETS,
        replays: Mapping[str, Replay] | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.now_ns = clock
        self.peers: set[Peer] = set()
        self.walk = Walk(seed, markets)
        self.exchanges = {
            name: SimulatedExchange(
                name,
                dialect,
                self.walk,
                seed=seed,
                rate=rate,
                limits=(limits or {}).get(name),
                replay=(replays or {}).get(name),
            )
            for name, dialect in dialects.items()
        }
        self._port = port
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Blast]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Peer(self), HOST, self._port, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]
        self._ticking = loop.create_task(self._tick(), name="simulator")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [self._ticking, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._server.close()
        for peer in tuple(self.peers):
            peer.abort()
        await self._server.wait_closed()
        await self.until(lambda: not self.peers)

    # Where it is.

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    def ws_url(self, name: str) -> str:
        return f"ws://{HOST}:{self._port}/ws/{self.exchange(name).name}"

    def rest_url(self, name: str) -> str:
        return f"{self.url}/rest/{self.exchange(name).name}"

    # What happened.

    def exchange(self, name: str) -> SimulatedExchange:
        try:
            return self.exchanges[name]
        except KeyError:
            raise UnknownExchange(f"no exchange {name}; there are {', '.join(self.exchanges)}") from None

    def received(self, name: str) -> list[str]:
        """Return the clients' frames, oldest first (the last ten thousand)."""
        return list(self.exchange(name).received)

    def connections(self, name: str) -> int:
        return len(self.exchange(name).lines)

    def counts(self, name: str) -> dict[str, int]:
        """Return totals since the start: handshakes, accepted, received, frames, requests …"""
        return dict(self.exchange(name).counts)

    async def until(self, condition: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
        """Wait until *condition* holds; it is looked at whenever a client connects, sends or leaves."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def changed(self) -> None:
        self._changed.set()

    # What shall happen.

    async def fault(self, name: str, fault: f.Fault) -> None:
        """Begin a fault at one exchange, or at ``all`` that can have it. Raises UnknownAnnouncement."""
        self.begin_fault(name, fault)

    def begin_fault(self, name: str, fault: f.Fault) -> None:
        exchanges = self.named(name)
        if isinstance(fault, f.Crash):
            exchanges = exchanges[:1]  # there is one market: it must not crash once per exchange
        elif isinstance(fault, f.Maintenance) and name == "all":
            exchanges = [exchange for exchange in exchanges if exchange.announces]
        for exchange in exchanges:
            exchange.start(fault, self.now_ns())

    async def clear(self, name: str = "all", kind: str = "") -> None:
        """End the faults of one exchange, or of ``all``; those of one *kind* when it is given."""
        for exchange in self.named(name):
            exchange.clear(kind, self.now_ns())

    def named(self, name: str) -> list[SimulatedExchange]:
        return list(self.exchanges.values()) if name == "all" else [self.exchange(name)]

    async def blast(self, name: str, frames: int) -> Blast:
        """Send so many single-trade frames to each subscriber as fast as it takes them; made beforehand."""
        exchange = self.exchange(name)
        sent = size = 0
        elapsed = 0.0
        for peer in [peer for peer in self.peers if peer in exchange.lines and peer.session.subscribed]:
            exchange.lines.discard(peer)  # no ordinary trades meanwhile
            try:
                writes = await self._prepare(exchange, peer.session, frames)
                began = time.perf_counter()
                for data, count in writes:
                    if not await peer.write_all(data):
                        break
                    sent, size = sent + count, size + len(data)
                elapsed += time.perf_counter() - began
            finally:
                if not peer.gone:
                    exchange.lines.add(peer)
        exchange.counts["frames"] += sent
        exchange.blasts.append(Blast(sent, size, elapsed))
        return exchange.blasts[-1]

    def begin_blast(self, name: str, frames: int) -> None:
        """Blast in the background; the figures appear in the exchange's state."""
        task = asyncio.get_running_loop().create_task(self.blast(name, frames), name=f"blast:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _prepare(
        self, exchange: SimulatedExchange, session: Session, frames: int
    ) -> list[tuple[bytes, int]]:
        now_ns = self.now_ns()
        symbols = list(session.subscribed)
        writes: list[tuple[bytes, int]] = []
        parts: list[bytes] = []
        size = 0
        for number in range(frames):
            trade = exchange.tape.next(symbols[number % len(symbols)], now_ns + number * 1_000)
            parts += [text_frame(text) for text in session.trades([trade], now_ns)]
            size += len(parts[-1])
            if size >= _BLAST_WRITE_BYTES or number == frames - 1:
                writes.append((b"".join(parts), len(parts)))
                parts, size = [], 0
                await asyncio.sleep(0)
        return writes

    # Serving.

    def exchange_at(self, target: str) -> SimulatedExchange | None:
        """Return the exchange of ``/ws/<name>``; anything behind the name is ignored."""
        parts = PurePosixPath(urlsplit(target).path).parts
        return self.exchanges.get(parts[2]) if len(parts) >= 3 and parts[1] == "ws" else None

    def serve_http(
        self, peer: Peer, method: str, target: str, body: bytes, headers: Mapping[str, str]
    ) -> None:
        url = urlsplit(target)
        query = dict(parse_qsl(url.query))
        _, _, rest = url.path.partition("/rest/")
        name, _, path = rest.partition("/")
        if url.path.startswith("/rest/") and name in self.exchanges:
            self._serve_rest(peer, self.exchanges[name], "/" + unquote(path), query)
        elif "origin" in headers:
            peer.answer(403, b'{"error":"not for web pages"}')
        else:
            status, answer = control(self, method, url.path, query, body)
            peer.answer(status, answer)

    def _serve_rest(
        self, peer: Peer, exchange: SimulatedExchange, path: str, query: Mapping[str, str]
    ) -> None:
        status, text = exchange.rest(path, query, self.now_ns())
        self.changed()
        fault = exchange.active(f.RestFault)
        match fault.mode if fault else "":
            case "error-body":
                status, text = exchange.dialect.rest_error()
            case "500" | "429" as code:
                status, text = int(code), '{"message":"no"}'
            case "oversized" if fault:
                text += " " * fault.size_bytes
            case "garbage":
                text = "<html>it works!</html>\x00{"
            case "slow" if fault:
                peer.later(fault.seconds, peer.answer, status, text.encode())
                return
        peer.answer(status, text.encode())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_STEP_S)
            try:
                now_ns = self.now_ns()
                for exchange in self.exchanges.values():
                    exchange.step(now_ns)
                for peer in tuple(self.peers):
                    peer.go_on()
                self.changed()
            except Exception:  # the one place: a fault in one step must not end the demo
                logger.exception("a step of the simulator failed")
