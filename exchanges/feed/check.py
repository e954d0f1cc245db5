"""Try a row before it goes live: connect, subscribe, listen for a while, and report per symbol."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from uuid import uuid4

import msgspec

from exchanges.feed.connection import AskToken, Ended, FeedConnection, Network
from exchanges.feed.decode import Faults
from exchanges.feed.protocol import FeedProtocol
from exchanges.feed.spec import FeedSpec
from exchanges.feed.subscriptions import SymbolState
from exchanges.rest import ask_token
from pricing.tick import Tick

MAX_FAULTS = 10


class CheckedSymbol(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    state: str
    """asked, acked, refused or live; waiting when it was never asked for."""
    detail: str = ""
    """What the exchange said when it refused."""
    price: str = ""
    age_ms: int | None = None
    """How old the trade was when it came."""


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    exchange: str
    ok: bool
    problem: str
    """Why it cannot go live; empty when it can."""
    symbols: list[CheckedSymbol]
    frames: dict[str, int]
    """Frames by kind."""
    faults: list[str]
    """What could not be read."""

    def to_json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(self)).decode()

    def to_text(self) -> str:
        width = max((len(one.symbol) for one in self.symbols), default=0)
        lines = [
            f"{one.symbol:<{width}}  {one.state:<8} {one.price:<16} "
            f"{'' if one.age_ms is None else f'{one.age_ms} ms old'} {one.detail}".rstrip()
            for one in self.symbols
        ]
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.frames.items())) or "none"
        lines += [f"Frames: {kinds}.", *self.faults]
        verdict = f"{self.exchange} is ready to go live." if self.ok else f"{self.exchange}: {self.problem}"
        return "\n".join([*lines, verdict])


class _Listener:
    """A Sink that keeps the latest price of each symbol, and says when there is nothing left to wait for."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.enough = asyncio.Event()
        self.heard: dict[str, tuple[Tick, int]] = {}
        self.unreadable: list[str] = []
        self._missing = {symbol.casefold() for symbol in symbols}

    def ticks(self, ticks: Sequence[Tick], wall_ns: int, mono_ns: int) -> int:
        for tick in ticks:
            self.heard[tick.symbol.casefold()] = tick, wall_ns
            self._answered(tick.symbol)
        return len(ticks)

    def faults(self, faults: Faults, wall_ns: int) -> None:
        for fault in faults.samples:
            if fault.reason == "refused":
                self._answered(fault.symbol)
            elif len(self.unreadable) < MAX_FAULTS:
                self.unreadable.append(f"{fault.reason} {fault.symbol} {fault.detail}".strip())

    def _answered(self, symbol: str) -> None:
        self._missing.discard(symbol.casefold())
        if not self._missing:
            self.enough.set()


async def check_feed(
    spec: FeedSpec,
    symbols: Sequence[str],
    *,
    seconds: float,
    allow_loopback: bool,
    network: Network | None = None,
    ask_token: AskToken = ask_token,
) -> CheckReport:
    """Listen until every symbol was priced or refused, at most so many seconds."""
    network = network or Network(allow_loopback=allow_loopback)
    listener = _Listener(symbols)
    size = spec.quirks.symbols_per_connection or max(1, len(symbols))
    connections = [
        FeedConnection(
            FeedProtocol(spec, symbols[start : start + size], uuid=lambda: str(uuid4())),
            network=network,
            sink=listener,
            ask_token=ask_token,
        )
        for start in range(0, len(symbols), size)
    ]
    ended: list[Ended] = []

    async def run(connection: FeedConnection) -> None:
        ended.append(await connection.run())
        listener.enough.set()

    tasks = [asyncio.create_task(run(one), name=f"check:{spec.name}") for one in connections]
    try:
        async with asyncio.timeout(seconds):
            await (listener.enough.wait() if tasks else asyncio.sleep(0))
    except TimeoutError:
        pass
    finally:
        failure = ended[0].reason if ended else ""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return _report(spec, connections, listener, failure)


def _report(
    spec: FeedSpec, connections: Sequence[FeedConnection], listener: _Listener, failure: str
) -> CheckReport:
    checked = [
        _checked(state, listener)
        for connection in connections
        for state in connection.protocol.symbol_states().values()
    ]
    frames = sum((connection.protocol.counts for connection in connections), Counter[str]())
    problem = _problem(checked, listener, failure)
    return CheckReport(
        exchange=spec.name,
        ok=not problem,
        problem=problem,
        symbols=checked,
        frames=dict(frames),
        faults=listener.unreadable,
    )


def _checked(state: SymbolState, listener: _Listener) -> CheckedSymbol:
    heard = listener.heard.get(state.symbol.casefold())
    if heard is None:
        return CheckedSymbol(symbol=state.symbol, state=state.state, detail=state.detail)
    tick, wall_ns = heard
    age_ms = None if tick.traded_ns is None else max(0, wall_ns - tick.traded_ns) // 10**6
    return CheckedSymbol(symbol=state.symbol, state=state.state, price=tick.price, age_ms=age_ms)


def _problem(checked: Sequence[CheckedSymbol], listener: _Listener, failure: str) -> str:
    refused = [one.symbol for one in checked if one.state == "refused"]
    if failure:
        return failure
    if not checked:
        return "there are no symbols to subscribe"
    if refused:
        return f"refused: {', '.join(refused)}"
    if listener.unreadable:
        return f"trades that could not be read: {listener.unreadable[0]}"
    if not listener.heard:
        return "no trade came"
    return ""
