"""What compiled answer paths find on the board, asked through the one that UDP has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import pytest

from pricing._board import MAX_EXCHANGES, board_size, format_board
from pricing._board_writer import BoardWriter
from pricing._finder import Finder
from pricing.parameters import MS
from tests.pricing.doubles import KEYS, START_MONO_NS, START_WALL_NS, Clock, make_gate
from tests.telemetry.spooling import SpoolInMemory
from tests.udp_engine.engines import HOME, make_counters
from udp_engine._batch import Batch
from udp_engine.wire import LABEL

TTL_MS = 13_000
LISTED = {"BTC": ("coinbase", "kraken"), "ETH": ("kraken",), "NEW": ("coinbase",)}


class Found(NamedTuple):
    price: str
    source: str
    quote: str


class World:
    """A board and a finder on it, listing LISTED."""

    def __init__(self, *, slots: int = 64, listed: Mapping[str, tuple[str, ...]] = LISTED) -> None:
        memory = bytearray(board_size(slots))
        format_board(memory, slots)
        self.board = BoardWriter(memory, 1, START_MONO_NS)
        self.gate = make_gate(Clock())
        self.use(Finder(self.board, ttl_ms=TTL_MS, label=LABEL))
        self.finder.follow(listed)

    def use(self, finder: Finder) -> None:
        self.finder = finder
        self.batch = Batch(-1, finder, self.gate, make_counters()[1], SpoolInMemory().appender)

    def exchange(self, name: str, *, source: str | None = None, quote: str = "USD") -> None:
        self.board.set_exchange(name, source=source or f"{name}-ws", quote=quote)

    def tick(
        self, asset: str, exchange: str, price: str, *, age_ms: int = 0, traded_ns: int = START_WALL_NS
    ) -> None:
        slot = self.board.place(asset, exchange)
        self.board.write(slot, price, traded_ns, START_WALL_NS, START_MONO_NS - age_ms * MS)

    def find(self, asset: str, exchange: str | None = None, *, max_age_ms: int | None = None) -> Found | None:
        demands = {"exchange": exchange, "max_age_ms": max_age_ms}
        known = {name: value for name, value in demands.items() if value is not None}
        question = msgspec.json.encode({"asset": asset, "api_key": KEYS["partner"], **known})
        reply = self.batch.respond(question, *HOME)
        if not isinstance(reply, bytes):
            return None
        told = msgspec.json.decode(reply)
        return Found(told["price"], told["source"], told["quote"])

    def find_learned(self, asset: str, exchange: str | None = None) -> Found | None:
        """Find after the finder has had the chance to look, as it has after each batch."""
        self.find(asset, exchange)
        self.finder.learn()
        return self.find(asset, exchange)


@pytest.fixture
def world() -> World:
    world = World()
    for name in ("coinbase", "kraken"):
        world.exchange(name)
    world.tick("BTC", "coinbase", "1")
    world.tick("BTC", "kraken", "2")
    world.board.set_home("BTC", "coinbase")
    assert world.find_learned("BTC") == Found("1", "coinbase-ws", "USD")
    return world


def test_first_question_is_a_miss_and_the_next_is_answered() -> None:
    world = World()
    world.exchange("coinbase")
    world.tick("BTC", "coinbase", "1")
    assert world.find("BTC") is None
    world.finder.learn()
    assert world.find("BTC") == Found("1", "coinbase-ws", "USD")


def test_learning_without_a_miss_looks_at_nothing(world: World) -> None:
    world.exchange("okx")
    world.finder.follow({"BTC": ("okx",)})
    world.tick("BTC", "okx", "3")
    world.finder.learn()
    assert world.find("BTC", "okx") is None
    assert world.find_learned("BTC", "okx") == Found("3", "okx-ws", "USD")


def test_home_answers_and_an_exchange_when_asked_for(world: World) -> None:
    assert world.find("BTC") == Found("1", "coinbase-ws", "USD")
    assert world.find("BTC", "kraken") == Found("2", "kraken-ws", "USD")
    assert world.find("BTC", "nobody") is None
    assert world.find("XXX") is None


def test_new_asset_is_learned(world: World) -> None:
    world.tick("ETH", "kraken", "30")
    assert world.find("ETH") is None
    world.finder.learn()
    assert world.find("ETH") == Found("30", "kraken-ws", "USD")


def test_changed_labels_are_never_mixed(world: World) -> None:
    world.exchange("coinbase", source="coinbase-v2", quote="USDC")
    assert world.find("BTC", "coinbase") is None  # a price of the old labels
    world.tick("BTC", "coinbase", "5")
    assert world.find("BTC", "coinbase") is None  # not looked at yet
    world.finder.learn()
    assert world.find("BTC", "coinbase") == Found("5", "coinbase-v2", "USDC")
    world.exchange("coinbase")
    world.tick("BTC", "coinbase", "6")
    assert world.find_learned("BTC", "coinbase") == Found("6", "coinbase-ws", "USD")


def test_what_is_not_listed_is_not_told(world: World) -> None:
    world.exchange("okx")
    world.tick("BTC", "okx", "3")
    world.tick("ETH", "coinbase", "30")
    assert world.find_learned("BTC", "okx") is None
    assert world.find_learned("ETH") is None
    world.tick("GUSD", "coinbase", "1")
    assert world.find_learned("GUSD") is None


def test_following_changes_what_is_told(world: World) -> None:
    world.finder.follow({"BTC": ("kraken",)})
    assert world.find("BTC", "coinbase") is None
    assert world.find("BTC") is None  # the home's is the best one, and not listed
    assert world.find("BTC", "kraken") == Found("2", "kraken-ws", "USD")
    world.finder.follow({})
    assert world.find("BTC", "kraken") is None
    world.finder.follow(LISTED)
    assert world.find("BTC") == Found("1", "coinbase-ws", "USD")


@pytest.mark.parametrize("source", ['a"b', "a\\b", "a\tb", "börse"])
def test_label_that_needs_an_escape_is_left_to_others(world: World, source: str) -> None:
    world.exchange("coinbase", source=source)
    world.tick("BTC", "coinbase", "5")
    assert world.find_learned("BTC", "coinbase") is None
    assert world.find("BTC", "kraken") == Found("2", "kraken-ws", "USD")
    world.exchange("coinbase")
    world.tick("BTC", "coinbase", "6")
    assert world.find_learned("BTC", "coinbase") == Found("6", "coinbase-ws", "USD")


@pytest.mark.parametrize("price", ['1"', "1\\", "1\t"])
def test_price_that_needs_an_escape_is_left_to_others(world: World, price: str) -> None:
    world.tick("BTC", "coinbase", price)
    assert world.find("BTC", "coinbase") is None


def test_label_that_is_too_long_is_left_to_others(world: World) -> None:
    world.use(Finder(world.board, ttl_ms=TTL_MS, label="x" * 1_000))
    world.finder.follow(LISTED)
    assert world.find_learned("BTC") is None


def test_time_before_1970_is_left_to_others(world: World) -> None:
    world.tick("BTC", "coinbase", "1", traded_ns=-1)
    assert world.find("BTC", "coinbase") is None


@pytest.mark.parametrize(
    ("age_ms", "max_age_ms", "is_told"),
    [
        (TTL_MS, None, True),
        (TTL_MS + 1, None, False),
        (TTL_MS + 1, 86_400_000, False),
        (500, 500, True),
        (500, 499, False),
        (0, 0, True),
    ],
)
def test_price_is_told_while_it_is_fresh(
    world: World, age_ms: int, max_age_ms: int | None, is_told: bool
) -> None:
    world.tick("BTC", "kraken", "7", age_ms=age_ms)
    assert (world.find("BTC", "kraken", max_age_ms=max_age_ms) is not None) == is_told


def test_row_of_a_forgotten_exchange_does_not_speak_for_the_next_one() -> None:
    """Where all rows are taken, one without a place gets another exchange."""
    names = [f"x{number}" for number in range(MAX_EXCHANGES)]
    world = World(listed={"BTC": tuple(names)})
    for number, name in enumerate(names):
        world.exchange(name)
        world.tick("BTC", name, str(number))
    assert world.find_learned("BTC", "x5") == Found("5", "x5-ws", "USD")
    world.board.remove("BTC", "x5")
    world.exchange("y")
    world.tick("BTC", "y", "99")
    assert world.find_learned("BTC", "y") is None  # not listed
    assert world.find_learned("BTC", "x5") is None
    world.finder.follow({"BTC": ("y",)})
    assert world.find_learned("BTC", "y") == Found("99", "y-ws", "USD")


def test_board_full_of_assets_is_known_to_the_last() -> None:
    names = [f"A{number}" for number in range(32)]
    world = World(slots=32, listed=dict.fromkeys(names, ("coinbase",)))
    world.exchange("coinbase")
    for number, name in enumerate(names):
        world.tick(name, "coinbase", str(number))
    assert world.find_learned(names[0]) is not None
    assert [world.find(name) for name in names] == [
        Found(str(number), "coinbase-ws", "USD") for number in range(32)
    ]


def test_closed_board_tells_nothing(world: World) -> None:
    world.board.close()
    assert world.find("BTC") is None
    world.finder.follow({})
    with pytest.raises(ValueError):
        Finder(world.board, ttl_ms=TTL_MS, label=LABEL)
