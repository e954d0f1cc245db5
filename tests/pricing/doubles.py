"""What the price tests share: a real board and gate in plain memory, clocks, counters, tiers that record."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from typing_extensions import Buffer

from billing import keys
from billing._gate import PARTNER, SCOPE_PRICES, SCOPE_REPORTS, GateKey, format_gate, gate_size
from billing._gate_writer import GateWriter
from billing.admission import pack_network
from billing.demo import DemoTokens
from billing.ratelimit import SECOND_NS, emission_ns
from pricing._board import board_size, format_board
from pricing._board_writer import BoardWriter
from pricing.admission import Admission
from pricing.catalogue import AssetInfo, Catalogue, ExchangeInfo, ListingInfo
from pricing.parameters import MS, Parameters
from pricing.service import Fallback, FallbackPrice, PriceService
from pricing.tick import StoredPrice
from telemetry._counters import CounterReader, Counters, counters_size, format_counters
from telemetry.recorder import Recorder
from telemetry.spool import SpoolState
from tests.telemetry.spooling import SpoolInMemory

START_WALL_NS = 1_763_816_400_123_456_789
START_MONO_NS = 1_000_000_000_000
MONTH, MONTH_S = 202511, 30 * 86_400
ELSEWHERE = (pack_network("198.51.100.0/24"),)

_chance = random.Random(1)
KEYS = {
    name: keys.generate(_chance.randbytes)
    for name in (
        "partner",
        "free",
        "pro",
        "unlimited",
        "revoked",
        "expired",
        "reports",
        "elsewhere",
        "unknown",
    )
}
_LIMITS: dict[str, dict[str, Any]] = {
    "partner": {"flags": PARTNER | SCOPE_PRICES | SCOPE_REPORTS},
    "free": {"emission_ns": emission_ns(1), "burst": 5, "cap": 1_000},
    "pro": {"emission_ns": emission_ns(10), "burst": 20, "cap": 50_000},
    "unlimited": {"emission_ns": emission_ns(100), "burst": 200},
    "revoked": {"revoked": True},
    "expired": {"expires_s": START_WALL_NS // SECOND_NS},
    "reports": {"flags": SCOPE_REPORTS},
    "elsewhere": {"networks": ELSEWHERE},
}


def listing(exchange: str, *, enabled: bool = True) -> ListingInfo:
    return ListingInfo(exchange, f"X-{exchange}", enabled, True)


CATALOGUE = Catalogue(
    exchanges={
        "coinbase": ExchangeInfo("coinbase", "Coinbase", "USD", True),
        "kraken": ExchangeInfo("kraken", "Kraken", "USD", True),
        "okx": ExchangeInfo("okx", "OKX", "USDT", True),
        "gemini": ExchangeInfo("gemini", "Gemini", "USD", False),
    },
    assets={
        "BTC": AssetInfo(
            "BTC",
            "Major Currencies",
            "coinbase",
            (listing("kraken"), listing("coinbase"), listing("okx"), listing("gemini")),
        ),
        "ETH": AssetInfo("ETH", "Major Currencies", "kraken", (listing("kraken"),)),
        "UNI": AssetInfo(
            "UNI", "DeFi", "okx", (listing("okx", enabled=False), listing("coinbase"), listing("kraken"))
        ),
        "GUSD": AssetInfo("GUSD", "DeFi", "gemini", (listing("gemini"),)),
    },
)


def spool_state() -> SpoolState:
    return SpoolState(
        appended=0, refused=0, shed=0, failures=0, used_bytes=4_096, bound_bytes=8_192, near=False
    )


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.wall = START_WALL_NS
        self.mono = START_MONO_NS

    def wall_ns(self) -> int:
        return self.wall

    def mono_ns(self) -> int:
        return self.mono

    def forward(self, ms: int) -> None:
        self.wall += ms * MS
        self.mono += ms * MS


def make_gate(clock: Clock, buffer: Buffer | None = None) -> GateWriter:
    """Make a gate with a key of each kind, in the month of the clock's start."""
    buffer = bytearray(gate_size(8_192)) if buffer is None else buffer
    format_gate(buffer, 8_192)
    gate = GateWriter(buffer, 1, clock.mono)
    for number, (name, limits) in enumerate(_LIMITS.items(), 1):
        gate.put(GateKey(keys.digest(KEYS[name]), number, 100 + number, **limits))
    gate.set_month(MONTH, clock.mono + MONTH_S * SECOND_NS)
    return gate


class GuessesDouble:
    """Slows down the addresses in `slowed`."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str, str]] = []
        self.slowed: dict[str, int] = {}

    def refused(self, address: str, prefix: str, mono_ns: int) -> int | None:
        self.noted.append(("refused", address, prefix))
        return self.slowed.get(address)

    def note(self, kind: str, address: str, prefix: str) -> None:
        self.noted.append((kind, address, prefix))


class CountersInMemory:
    """A worker's counters, and what is read of all of them."""

    def __init__(self) -> None:
        memory = bytearray(counters_size())
        format_counters(memory)
        row, self.reader = Counters(memory, 3), CounterReader(memory)
        self.add, self.drop, self.latency, self.open_socket = row.add, row.drop, row.latency, row.open_socket
        self.unrecorded = row.unrecorded

    def seen(self) -> dict[str, int]:
        return {name: count for name, count in self.reader.totals().items() if count}


class Tier2Double:
    def __init__(self) -> None:
        self.failures = 0
        self.malformed = 0
        self.prices: dict[str, dict[str, StoredPrice]] = {}
        self.reads: list[str] = []
        self.kept: list[StoredPrice] = []

    async def read(self, asset: str) -> Mapping[str, StoredPrice]:
        self.reads.append(asset)
        return self.prices.get(asset, {})

    async def keep(self, price: StoredPrice) -> None:
        self.kept.append(price)
        self.put(price)

    def put(self, price: StoredPrice) -> None:
        self.prices.setdefault(price.asset, {})[price.exchange] = price


class FallbackDouble:
    """Answers per exchange what it was given: a price, None, or an error to raise; a gate holds it back.

    Exchanges in `spent` may not be asked, those in `untimed` do not tell when a price traded.
    """

    def __init__(self) -> None:
        self.answers: dict[str, FallbackPrice | Exception | None] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.asked: list[tuple[str, str]] = []
        self.spent: set[str] = set()
        self.untimed: set[str] = set()

    def knows_trades(self, exchange: str) -> bool:
        return exchange not in self.untimed

    def admits(self, asset: str, exchange: str) -> bool:
        return exchange not in self.spent

    async def latest(self, asset: str, exchange: str) -> FallbackPrice | None:
        self.asked.append((asset, exchange))
        if exchange in self.gates:
            await self.gates[exchange].wait()
        answer = self.answers.get(exchange)
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    """A price service with everything around it under the test's hand."""

    def __init__(self, parameters: Parameters | None = None) -> None:
        self.clock = Clock()
        self.counters = CountersInMemory()
        self.tier2 = Tier2Double()
        self.fallback = FallbackDouble()
        self.catalogue = CATALOGUE
        self.board = make_board(self.clock)
        self.parameters = parameters or Parameters()
        self.service = self.make_service(self.fallback)
        self.gate = make_gate(self.clock)
        self.guesses = GuessesDouble()
        self.spool = SpoolInMemory()
        self.tokens = DemoTokens("secret", random.Random(2).randbytes)
        for row in self.tokens.rows():
            self.gate.put(row)
        self.admission = self.make_admission()

    def make_admission(self, *, trusts_proxy: bool = False) -> Admission:
        clock = self.clock
        return Admission(
            self.gate,
            self.counters,
            Recorder(self.spool.appender, self.counters, wall_ns=clock.wall_ns, mono_ns=clock.mono_ns),
            guesses=self.guesses,
            tokens=self.tokens,
            trusts_proxy=trusts_proxy,
            mono_ns=self.clock.mono_ns,
            wall_s=lambda: self.clock.wall / SECOND_NS,
        )

    def make_service(self, fallback: Fallback | None) -> PriceService:
        return PriceService(
            self.board,
            self.tier2,
            fallback,
            self.parameters,
            self.counters,
            catalogue=lambda: self.catalogue,
            wall_ns=self.clock.wall_ns,
            mono_ns=self.clock.mono_ns,
        )

    async def aclose(self) -> None:
        await self.service.aclose()
        self.board.close()
        self.gate.close()

    def tick(self, asset: str, exchange: str, price: str, *, delay_ms: int = 0) -> None:
        """Write a trade to the board that is received now, *delay_ms* after it happened."""
        now = self.clock
        slot = self.board.place(asset, exchange)
        self.board.write(slot, price, now.wall - delay_ms * MS, now.wall, now.mono)

    def store(
        self, asset: str, exchange: str, price: str, *, age_ms: int = 0, polled_ms: int | None = None
    ) -> None:
        """Put a trade into tier 2: traded *age_ms* ago, received then or, over REST, *polled_ms* ago."""
        polled = polled_ms is not None
        received_ns = self.clock.wall - (age_ms if polled_ms is None else polled_ms) * MS
        traded_ns = self.clock.wall - age_ms * MS
        source = f"{exchange}-{'rest' if polled else 'ws'}"
        quote = CATALOGUE.exchanges[exchange].quote
        self.tier2.put(StoredPrice(asset, exchange, source, quote, price, traded_ns, received_ns, polled))

    def polled(self, price: str, *, age_ms: int | None = 0, source: str = "coinbase-rest") -> FallbackPrice:
        """Make a REST answer received now; None for an exchange that gives no time."""
        now_ns = self.clock.wall
        return FallbackPrice(price, None if age_ms is None else now_ns - age_ms * MS, now_ns, source, "USD")


def make_board(clock: Clock) -> BoardWriter:
    buffer = bytearray(board_size(64))
    format_board(buffer, 64)
    board = BoardWriter(buffer, 1, clock.mono)
    for name, row in CATALOGUE.exchanges.items():
        board.set_exchange(name, source=f"{name}-ws", quote=row.quote)
    for asset in CATALOGUE.assets.values():
        for one in asset.listings:
            board.place(asset.asset, one.exchange)
        board.set_home(asset.asset, asset.home)
    board.beat(clock.mono)
    return board


class Answer:
    def __init__(self, messages: list[dict[str, Any]]) -> None:
        start, *rest = messages
        self.status: int = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body = b"".join(message["body"] for message in rest)

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


async def ask(
    app: Callable[..., Any],
    target: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | list[bytes] = b"",
    server: tuple[str, int | None] | None = ("127.0.0.1", 8080),
    client: tuple[str, int] | None = ("192.0.2.7", 50_000),
    key: str | None = KEYS["partner"],
) -> Answer:
    """Drive an ASGI application as a server would, a body in one or several pieces."""
    headers = {**({} if key is None else {"X-API-Key": key}), **(headers or {})}
    path, _, query = target.partition("?")
    pieces = [body] if isinstance(body, bytes) else body
    incoming = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        for number, piece in enumerate(pieces, 1)
    ]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode("latin-1"),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "server": server,
        "client": client,
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return Answer(sent)
