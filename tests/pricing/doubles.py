"""What the price tests share: a real board in plain memory, clocks, counters, and tiers that record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pricing._board import BoardWriter, board_size, format_board
from pricing.catalogue import AssetInfo, Catalogue, ExchangeInfo, ListingInfo
from pricing.parameters import MS, Parameters
from pricing.service import Fallback, FallbackPrice, PriceService
from pricing.tick import StoredPrice
from telemetry._counters import NAMES

START_WALL_NS = 1_763_816_400_123_456_789
START_MONO_NS = 1_000_000_000_000


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


class CountersDouble:
    def __init__(self) -> None:
        self.counts = dict.fromkeys(NAMES, 0)

    def add(self, index: int, n: int = 1, /) -> None:
        self.counts[NAMES[index]] += n

    def seen(self) -> dict[str, int]:
        return {name: count for name, count in self.counts.items() if count}


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
        self.counters = CountersDouble()
        self.tier2 = Tier2Double()
        self.fallback = FallbackDouble()
        self.catalogue = CATALOGUE
        self.board = make_board(self.clock)
        self.parameters = parameters or Parameters()
        self.service = self.make_service(self.fallback)

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
        self.tier2.put(StoredPrice(asset, exchange, source, "USD", price, traded_ns, received_ns, polled))

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
) -> Answer:
    """Drive an ASGI application as a server would, a body in one or several pieces."""
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
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "server": server,
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return Answer(sent)
