"""The board by itself: what it stores, what it refuses, and that it is its twin's equal, byte for byte."""

from __future__ import annotations

import contextlib
import pickle
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pricing._board import (
    MAX_EXCHANGES,
    PRICE_BYTES,
    STATUS_BYTES,
    BoardReader,
    Price,
    board_size,
    format_board,
)
from pricing._board_writer import BoardWriter
from pricing.exceptions import BoardFull, LayoutError
from tests.twins import board as twin

SLOTS = 8
FIELDS = ("asset", "exchange", "source", "quote", "price", "traded_ns", "received_ns", "received_mono_ns")


def make_buffer(slots: int = SLOTS) -> bytearray:
    buffer = bytearray(board_size(slots))
    format_board(buffer, slots)
    return buffer


@pytest.fixture
def buffer() -> bytearray:
    return make_buffer()


@pytest.fixture
def writer(buffer: bytearray) -> BoardWriter:
    board = BoardWriter(buffer, pid=7, mono_ns=0)
    board.set_exchange("coinbase", source="coinbase-ws", quote="USD")
    board.set_exchange("okx", source="okx-ws", quote="USDT")
    return board


@pytest.fixture
def reader(buffer: bytearray, writer: BoardWriter) -> BoardReader:
    return BoardReader(buffer)


def put(writer: BoardWriter, asset: str, exchange: str, price: str, *, at: int = 0) -> int:
    slot = writer.place(asset, exchange)
    writer.write(slot, price, at, at, at)
    return slot


def text(price: Price | None) -> str:
    assert price is not None
    return price.price


# -- prices


def test_written_price_comes_back_with_every_field(writer: BoardWriter, reader: BoardReader) -> None:
    writer.write(writer.place("BTC", "coinbase"), "67123.4500", 100, 160, 1000)
    assert reader.get("BTC", "coinbase") == Price(
        "BTC", "coinbase", "coinbase-ws", "USD", "67123.4500", 100, 160, 1000
    )


@pytest.mark.parametrize("price", ["0", "0.000000000000000001", "9" * PRICE_BYTES])
def test_price_keeps_its_digits(price: str, writer: BoardWriter, reader: BoardReader) -> None:
    put(writer, "BTC", "okx", price)
    assert text(reader.get("BTC", "okx")) == price


@pytest.mark.parametrize("price", ["", "1" * (PRICE_BYTES + 1), "１", "\ud800", "1\u00a0"])
def test_price_that_is_no_short_ascii_is_refused(
    price: str, writer: BoardWriter, reader: BoardReader
) -> None:
    slot = put(writer, "BTC", "okx", "1")
    with pytest.raises(ValueError, match="ASCII"):
        writer.write(slot, price, 0, 0, 0)
    assert text(reader.get("BTC", "okx")) == "1"


def test_price_is_immutable_hashable_and_picklable() -> None:
    price = Price("BTC", "okx", "okx-ws", "USDT", "1", 2, 3, 4)
    with pytest.raises(AttributeError):
        price.price = "2"  # type: ignore[misc]  # that it is refused is the point
    assert hash(price) == hash(pickle.loads(pickle.dumps(price)))
    assert price == pickle.loads(pickle.dumps(price))
    assert price != Price("BTC", "okx", "okx-ws", "USDT", "1", 2, 3, 5)
    assert price != "1"
    assert repr(price).startswith("Price(asset='BTC', exchange='okx', ")


@pytest.mark.parametrize(
    ("traded", "received", "kept", "age"),
    [(100, 160, 40, 100), (160, 100, 40, 40), (100, 160, -5, 60), (0, 0, 0, 0)],
    ids=["late", "exchange ahead of us", "clock read before the tick came", "new"],
)
def test_age_is_delay_plus_time_here_and_never_negative(
    traded: int, received: int, kept: int, age: int
) -> None:
    assert Price("BTC", "okx", "okx-ws", "USDT", "1", traded, received, 1000).age_ns(1000 + kept) == age


@pytest.mark.parametrize("name", ["ETH", "", "x" * 33, "\ud800", "BT", "BTC\0", "btc"])
def test_unknown_name_is_a_miss(name: str, writer: BoardWriter, reader: BoardReader) -> None:
    put(writer, "BTC", "okx", "1")
    assert reader.get(name, "okx") is None
    assert reader.get("BTC", name) is None
    assert reader.best(name, 0, 1) is None
    assert reader.all(name) == []
    assert reader.home(name) is None


def test_name_of_32_bytes_and_of_other_scripts_is_found(writer: BoardWriter, reader: BoardReader) -> None:
    for name in ("x" * 32, "₿" * 10, "A"):
        put(writer, name, "okx", "5")
        assert text(reader.get(name, "okx")) == "5"


@pytest.mark.parametrize("name", ["", "x" * 33, "₿" * 11, "\ud800"])
def test_name_that_does_not_fit_is_refused(name: str, writer: BoardWriter) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        writer.place(name, "okx")
    with pytest.raises(ValueError, match="32 bytes"):
        writer.set_exchange(name, source="x", quote="USD")
    with pytest.raises(ValueError, match="32 bytes"):
        writer.set_home(name, None)


def test_source_that_does_not_fit_is_refused(writer: BoardWriter) -> None:
    with pytest.raises(ValueError, match="40 bytes"):
        writer.set_exchange("okx", source="x" * 41, quote="USD")


# -- places


def test_place_is_the_same_again_for_the_same_pair(writer: BoardWriter) -> None:
    assert writer.place("BTC", "okx") == writer.place("BTC", "okx")
    assert writer.place("BTC", "okx") != writer.place("BTC", "coinbase")


def test_place_on_an_unknown_exchange_is_refused(writer: BoardWriter) -> None:
    with pytest.raises(KeyError, match="nowhere"):
        writer.place("BTC", "nowhere")


def test_full_board_says_what_is_full(writer: BoardWriter) -> None:
    for number in range(SLOTS):
        writer.place(f"A{number}", "okx")
    with pytest.raises(BoardFull, match="all 8 slots are taken"):
        writer.place("B", "okx")
    assert writer.place("A0", "okx") >= 0


def test_asset_rows_run_out_with_a_message(writer: BoardWriter) -> None:
    for number in range(SLOTS):
        writer.place(f"A{number}", "okx")
        writer.remove(f"A{number}", "okx")
    with pytest.raises(BoardFull, match="all 8 assets are taken"):
        writer.place("B", "okx")


def crowded_board() -> tuple[bytearray, BoardWriter]:
    """A board whose every exchange row has a price."""
    buffer = make_buffer(slots=MAX_EXCHANGES + 1)
    writer = BoardWriter(buffer, pid=1, mono_ns=0)
    for number in range(MAX_EXCHANGES):
        writer.set_exchange(f"e{number}", source=f"s{number}", quote="USD")
        put(writer, "BTC", f"e{number}", str(number))
    return buffer, writer


def test_exchange_rows_that_all_have_places_run_out_with_a_message() -> None:
    _, writer = crowded_board()
    with pytest.raises(BoardFull, match="all 64 exchanges are taken"):
        writer.set_exchange("one more", source="s", quote="USD")
    assert text(writer.get("BTC", "e63")) == "63"


def test_exchange_row_without_a_place_is_used_again() -> None:
    buffer, writer = crowded_board()
    reader = BoardReader(buffer)
    assert [row.name for row in reader.exchanges()][5] == "e5"
    writer.set_home("BTC", "e5")
    writer.remove("BTC", "e5")
    writer.set_exchange("next", source="next-ws", quote="USDT")
    assert tuple(reader.exchanges()[5]) == ("next", "next-ws", "USDT", 0, 0)
    assert (reader.get("BTC", "e5"), reader.get("BTC", "next"), reader.home("BTC")) == (None, None, None)
    put(writer, "BTC", "next", "7")
    assert (reader.get("BTC", "e5"), text(reader.get("BTC", "next"))) == (None, "7")
    assert [price.exchange for price in reader.all("BTC")][5] == "next"
    with pytest.raises(KeyError):
        writer.place("BTC", "e5")


def test_exchanges_without_end_come_and_go() -> None:
    """The index of 128 entries would be full of old names after so many."""
    buffer, writer = crowded_board()
    reader = BoardReader(buffer)
    gone = "e63"
    for number in range(1000):
        writer.remove("BTC", gone)
        name = f"n{number % 200}"
        writer.set_exchange(name, source=f"{name}-ws", quote="USD")
        put(writer, "BTC", name, str(number))
        assert reader.get("BTC", gone) is None
        assert text(reader.get("BTC", name)) == str(number)
        gone = name
    assert len(reader.exchanges()) == MAX_EXCHANGES
    assert [text(reader.get("BTC", f"e{number}")) for number in range(63)] == [str(n) for n in range(63)]


def test_age_of_an_exchange_is_that_of_its_newest_trade(writer: BoardWriter, reader: BoardReader) -> None:
    def newest() -> int:
        return reader.exchanges()[1].last_tick_mono_ns

    slot = writer.place("BTC", "okx")
    writer.write(slot, "1", 100, 400, 5000)
    assert newest() == 4700
    writer.write(writer.place("ETH", "okx"), "1", 100, 500, 5100)
    assert newest() == 4700, "an older trade makes nothing fresh"
    writer.write(slot, "1", 700, 600, 5200)
    assert newest() == 5200, "an exchange whose clock is ahead"
    writer.write(slot, "1", 0, 10**18, 5300)
    assert newest() == 5200


def test_assets_are_listed_as_they_came(writer: BoardWriter, reader: BoardReader) -> None:
    put(writer, "BTC", "okx", "1")
    writer.set_home("ETH", None)
    writer.remove("BTC", "okx")
    assert reader.assets() == ["BTC", "ETH"]


def test_removed_price_is_a_miss_and_its_slot_is_reused(writer: BoardWriter, reader: BoardReader) -> None:
    slot = put(writer, "BTC", "okx", "1")
    writer.remove("BTC", "okx")
    assert reader.get("BTC", "okx") is None
    assert writer.place("ETH", "coinbase") == slot
    assert reader.get("ETH", "coinbase") is None
    writer.write(slot, "2", 0, 0, 0)
    assert reader.get("BTC", "okx") is None
    assert text(reader.get("ETH", "coinbase")) == "2"


def test_slot_number_held_from_before_its_reuse_is_a_miss(
    buffer: bytearray, writer: BoardWriter, reader: BoardReader
) -> None:
    slot = put(writer, "BTC", "okx", "1")
    put(writer, "ETH", "coinbase", "2")
    for asset, exchange in ((0, 1), (1, 1), (0, 0)):  # rows of BTC on okx, ETH on okx, BTC on coinbase
        entry = twin.Parts(SLOTS).assets + asset * twin.ASSET_BYTES + twin.ASSET_SLOTS + 4 * exchange
        struct.pack_into("=I", buffer, entry, slot + 2)  # as if taken before ETH on coinbase came
    assert reader.get("BTC", "okx") is None
    assert reader.get("ETH", "okx") is None
    assert reader.get("BTC", "coinbase") is None
    assert text(reader.get("ETH", "coinbase")) == "2"


def test_price_is_forgotten_when_its_place_is_given_up_and_taken_again(
    writer: BoardWriter, reader: BoardReader
) -> None:
    slot = put(writer, "BTC", "okx", "1")
    writer.remove("BTC", "okx")
    assert writer.place("BTC", "okx") == slot
    assert reader.get("BTC", "okx") is None


def test_removing_what_is_not_there_does_nothing(buffer: bytearray, writer: BoardWriter) -> None:
    before = bytes(buffer)
    writer.remove("BTC", "okx")
    writer.remove("BTC", "nowhere")
    assert buffer == before


@pytest.mark.parametrize("slot", [0, SLOTS, 2**32 - 1])
def test_write_to_a_slot_of_nobody_is_refused(slot: int, writer: BoardWriter) -> None:
    with pytest.raises(ValueError, match="nobody's"):
        writer.write(slot, "1", 0, 0, 0)
    with pytest.raises(ValueError, match="nobody's"):
        writer.clear(slot)


def test_cleared_price_is_a_miss_and_keeps_its_place(writer: BoardWriter, reader: BoardReader) -> None:
    slot = put(writer, "BTC", "okx", "1")
    writer.clear(slot)
    assert reader.get("BTC", "okx") is None
    assert writer.place("BTC", "okx") == slot


# -- best, all, home


def test_best_is_the_home_exchange_while_it_is_fresh(writer: BoardWriter, reader: BoardReader) -> None:
    put(writer, "BTC", "coinbase", "1", at=100)
    put(writer, "BTC", "okx", "2", at=150)
    writer.set_home("BTC", "coinbase")
    assert text(reader.best("BTC", 200, 100)) == "1"
    assert text(reader.best("BTC", 201, 100)) == "2"
    assert reader.best("BTC", 251, 100) is None


def test_best_without_a_home_is_the_freshest(writer: BoardWriter, reader: BoardReader) -> None:
    put(writer, "BTC", "coinbase", "1", at=100)
    put(writer, "BTC", "okx", "2", at=150)
    assert text(reader.best("BTC", 150, 100)) == "2"
    writer.set_home("BTC", "coinbase")
    assert reader.home("BTC") == "coinbase"
    writer.set_home("BTC", None)
    assert reader.home("BTC") is None
    assert text(reader.best("BTC", 150, 100)) == "2"


def test_all_lists_prices_in_the_order_of_the_exchanges(writer: BoardWriter, reader: BoardReader) -> None:
    writer.set_exchange("kraken", source="kraken-ws", quote="USD")
    put(writer, "BTC", "kraken", "3")
    put(writer, "BTC", "coinbase", "1")
    writer.place("BTC", "okx")
    assert [price.price for price in reader.all("BTC")] == ["1", "3"]


def test_home_on_an_unknown_exchange_is_refused(writer: BoardWriter) -> None:
    with pytest.raises(KeyError, match="nowhere"):
        writer.set_home("BTC", "nowhere")


# -- exchanges, status, header


def test_exchange_rows_count_ticks(writer: BoardWriter, reader: BoardReader) -> None:
    for at in (5, 9):
        put(writer, "BTC", "okx", "1", at=at)
    assert [tuple(row) for row in reader.exchanges()] == [
        ("coinbase", "coinbase-ws", "USD", 0, 0),
        ("okx", "okx-ws", "USDT", 2, 9),
    ]


def test_price_from_before_a_change_of_labels_is_a_miss(writer: BoardWriter, reader: BoardReader) -> None:
    slot = put(writer, "BTC", "okx", "1")
    assert reader.get("BTC", "okx") is not None
    writer.set_exchange("okx", source="okx-ws", quote="USD")
    assert reader.get("BTC", "okx") is None
    assert reader.best("BTC", 0, 10) is None
    writer.write(slot, "1", 0, 0, 0)
    price = reader.get("BTC", "okx")
    assert price is not None
    assert price.quote == "USD"


def test_best_passes_over_a_price_from_before_a_change_of_labels(
    writer: BoardWriter, reader: BoardReader
) -> None:
    put(writer, "BTC", "okx", "1")
    put(writer, "BTC", "coinbase", "2")
    writer.set_home("BTC", "okx")
    writer.set_exchange("okx", source="okx-ws", quote="USD")
    assert text(reader.best("BTC", 0, 10)) == "2"


def test_same_labels_again_change_nothing(buffer: bytearray, writer: BoardWriter) -> None:
    before = bytes(buffer)
    writer.set_exchange("okx", source="okx-ws", quote="USDT")
    assert buffer == before


@pytest.mark.parametrize("size", [1, 7, 8, 9, STATUS_BYTES])
def test_status_document_comes_back(size: int, writer: BoardWriter, reader: BoardReader) -> None:
    assert reader.status() == b""
    writer.write_status(b"x" * size)
    writer.write_status(b"y" * size)
    assert reader.status() == b"y" * size
    writer.write_status(b"")
    assert reader.status() == b""


def test_status_document_that_does_not_fit_is_refused(writer: BoardWriter, reader: BoardReader) -> None:
    writer.write_status(b"kept")
    with pytest.raises(ValueError, match="at most 262144 bytes"):
        writer.write_status(bytes(STATUS_BYTES + 1))
    assert reader.status() == b"kept"


def test_writer_leaves_its_pid_and_heartbeat(buffer: bytearray, writer: BoardWriter) -> None:
    reader = BoardReader(buffer)
    writer.beat(123)
    assert (reader.writer_pid, reader.heartbeat_mono_ns, reader.generation, reader.slots) == (
        7,
        123,
        1,
        SLOTS,
    )
    BoardWriter(buffer, pid=8, mono_ns=456)
    assert (reader.writer_pid, reader.heartbeat_mono_ns, reader.generation) == (8, 456, 2)


def test_next_writer_keeps_prices_places_and_free_slots(buffer: bytearray, writer: BoardWriter) -> None:
    slot = put(writer, "BTC", "okx", "1")
    successor = BoardWriter(buffer, pid=8, mono_ns=0)
    assert text(successor.get("BTC", "okx")) == "1"
    assert successor.place("BTC", "okx") == slot
    others = {successor.place(f"A{number}", "okx") for number in range(SLOTS - 1)}
    assert slot not in others
    assert len(others) == SLOTS - 1


# -- memory


def test_read_only_memory_can_be_read_and_not_written(buffer: bytearray, writer: BoardWriter) -> None:
    put(writer, "BTC", "okx", "1")
    assert text(BoardReader(bytes(buffer)).get("BTC", "okx")) == "1"
    with pytest.raises(BufferError):
        BoardWriter(bytes(buffer), pid=1, mono_ns=0)


def test_closed_board_refuses_calls(writer: BoardWriter) -> None:
    writer.close()
    calls: list[Callable[[], object]] = [
        lambda: writer.get("BTC", "okx"),
        lambda: writer.best("BTC", 0, 0),
        lambda: writer.all("BTC"),
        lambda: writer.home("BTC"),
        writer.exchanges,
        writer.status,
        lambda: writer.generation,
        lambda: writer.set_exchange("okx", source="s", quote="USD"),
        lambda: writer.place("BTC", "okx"),
        lambda: writer.remove("BTC", "okx"),
        lambda: writer.set_home("BTC", None),
        lambda: writer.write(0, "1", 0, 0, 0),
        lambda: writer.clear(0),
        lambda: writer.beat(0),
        lambda: writer.write_status(b""),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()


def test_format_empties_memory_that_held_a_board(buffer: bytearray, writer: BoardWriter) -> None:
    put(writer, "BTC", "okx", "1")
    writer.close()
    format_board(buffer, SLOTS)
    assert buffer == make_buffer()


def test_board_with_more_rows_than_it_can_have_is_refused(buffer: bytearray) -> None:
    struct.pack_into("=II", buffer, 28, 9, 65)
    with pytest.raises(LayoutError, match="65 exchanges and 9 assets"):
        BoardReader(buffer)


# -- spoilt memory


def slot_at(slot: int) -> int:
    return twin.Parts(SLOTS).slots + slot * twin.SLOT_BYTES


@pytest.mark.parametrize("byte", range(0, 76, 5))
def test_spoilt_copy_is_found_by_its_crc_and_the_other_one_taken(
    byte: int, buffer: bytearray, writer: BoardWriter, reader: BoardReader
) -> None:
    slot = put(writer, "BTC", "okx", "1.25", at=3)
    whole = reader.get("BTC", "okx")
    buffer[slot_at(slot) + 16 + byte] ^= 0x10
    assert reader.get("BTC", "okx") == whole
    assert reader.read_counts["spoilt"] == 1


def test_price_with_both_copies_spoilt_is_a_miss(
    buffer: bytearray, writer: BoardWriter, reader: BoardReader
) -> None:
    slot = put(writer, "BTC", "okx", "1.25")
    for copy in (16, 136):
        buffer[slot_at(slot) + copy + 40] ^= 1
    assert reader.get("BTC", "okx") is None
    assert reader.read_counts == {"retries": 0, "spoilt": 2, "exhausted": 0}


def test_spoilt_status_copy_is_found_and_the_other_one_taken(
    buffer: bytearray, writer: BoardWriter, reader: BoardReader
) -> None:
    writer.write_status(b"document")
    buffer[twin.Parts(SLOTS).status + 16] ^= 1
    assert reader.status() == b"document"
    assert reader.read_counts["spoilt"] == 1


# -- the twin


NAMES = st.sampled_from(["BTC", "ETH", "x" * 32, "₿", "A0", "A1", "A2", "A3", "A4", "", "y" * 33])
EXCHANGES = st.sampled_from(["coinbase", "okx", "kraken", "nowhere", ""])
SOURCES = st.sampled_from(["a-ws", "b-ws", "z" * 41])
TIMES = st.integers(-(2**40), 2**62)
PRICES = st.text("0123456789.", min_size=1, max_size=PRICE_BYTES) | st.sampled_from(["", "9" * 41, "é"])


class BoardAndTwin(RuleBasedStateMachine):
    """Any history leaves the board and its twin with the same answers, the same errors and the same bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.buffers = make_buffer(), bytearray(twin.board_size(SLOTS))
        twin.format_board(self.buffers[1], SLOTS)
        self.take_over(pid=1, mono_ns=0)

    def both(self, method: str, *args: object, **named: object) -> None:
        results = []
        for board in (self.board, self.twin):
            try:
                results.append(getattr(board, method)(*args, **named))
            except (ValueError, KeyError, BoardFull) as error:
                results.append(type(error))
        assert results[0] == results[1]

    @rule(pid=st.integers(1, 2**31), mono_ns=TIMES)
    def take_over(self, pid: int, mono_ns: int) -> None:
        self.board = BoardWriter(self.buffers[0], pid, mono_ns)
        self.twin = twin.BoardWriter(self.buffers[1], pid, mono_ns)
        self.readers = BoardReader(self.buffers[0]), twin.BoardReader(self.buffers[1])

    @rule(
        name=EXCHANGES,
        source=st.sampled_from(["a-ws", "b-ws", "z" * 41]),
        quote=st.sampled_from(["USD", "USDT"]),
    )
    def set_exchange(self, name: str, source: str, quote: str) -> None:
        self.both("set_exchange", name, source=source, quote=quote)

    @rule()
    def set_many_exchanges(self) -> None:
        for number in range(MAX_EXCHANGES):
            self.both("set_exchange", f"e{number}", source="e-ws", quote="USD")

    @rule(asset=NAMES, exchange=EXCHANGES)
    def place(self, asset: str, exchange: str) -> None:
        self.both("place", asset, exchange)

    @rule(asset=NAMES, exchange=EXCHANGES)
    def remove(self, asset: str, exchange: str) -> None:
        self.both("remove", asset, exchange)

    @rule(asset=NAMES, exchange=EXCHANGES | st.none())
    def set_home(self, asset: str, exchange: str | None) -> None:
        self.both("set_home", asset, exchange)

    @rule(slot=st.integers(0, SLOTS), price=PRICES, times=st.tuples(TIMES, TIMES, TIMES))
    def write(self, slot: int, price: str, times: tuple[int, int, int]) -> None:
        self.both("write", slot, price, *times)

    @rule(slot=st.integers(0, SLOTS))
    def clear(self, slot: int) -> None:
        self.both("clear", slot)

    @rule(document=st.binary(max_size=50))
    def write_status(self, document: bytes) -> None:
        self.both("write_status", document)

    @rule(asset=NAMES, exchange=EXCHANGES, mono_ns=TIMES, ttl_ns=st.integers(0, 2**62))
    def read(self, asset: str, exchange: str, mono_ns: int, ttl_ns: int) -> None:
        board, other = self.readers
        assert fields(board.get(asset, exchange)) == fields(other.get(asset, exchange))
        assert fields(board.best(asset, mono_ns, ttl_ns)) == fields(other.best(asset, mono_ns, ttl_ns))
        assert list(map(fields, board.all(asset))) == list(map(fields, other.all(asset)))

    @invariant()
    def bytes_are_the_same(self) -> None:
        assert self.buffers[0] == self.buffers[1]

    @invariant()
    def answers_are_the_same(self) -> None:
        assert seen(self.readers[0]) == seen(self.readers[1])


TestBoardAndTwin = BoardAndTwin.TestCase
TestBoardAndTwin.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def fields(price: Price | twin.Price | None) -> tuple[object, ...] | None:
    return None if price is None else tuple(getattr(price, name) for name in FIELDS)


def seen(board: BoardReader | twin.BoardReader) -> dict[str, object]:
    """All that a reader can see of the assets in these tests, the writer's own marks left out."""
    assets = ("BTC", "ETH", "A0", "x" * 32)
    return {
        "prices": {asset: [fields(price) for price in board.all(asset)] for asset in assets},
        "homes": {asset: board.home(asset) for asset in assets},
        "exchanges": [tuple(row) for row in board.exchanges()],
        "status": board.status(),
    }


# -- a writer killed at each of its stores

STEPS: dict[str, Callable[[Any], object]] = {
    "write": lambda w: w.write(w.place("BTC", "okx"), "2.5", 20, 21, 22),
    "first write": lambda w: w.write(w.place("ETH", "okx"), "2.5", 20, 21, 22),
    "place of a new asset": lambda w: w.place("A0", "okx"),
    "remove": lambda w: w.remove("BTC", "okx"),
    "clear": lambda w: w.clear(w.place("BTC", "okx")),
    "home": lambda w: w.set_home("BTC", "okx"),
    "new exchange": lambda w: w.set_exchange("kraken", source="kraken-ws", quote="USD"),
    "new labels": lambda w: w.set_exchange("okx", source="okx-sim", quote="USD"),
    "status": lambda w: w.write_status(b"the second document"),
    "first status and more": lambda w: (w.write_status(b"a"), w.write_status(b"bc")),
}


def history() -> bytearray:
    buffer = make_buffer()
    with BoardWriter(buffer, pid=1, mono_ns=0) as writer:
        writer.set_exchange("coinbase", source="coinbase-ws", quote="USD")
        writer.set_exchange("okx", source="okx-ws", quote="USDT")
        put(writer, "BTC", "okx", "1.5", at=10)
        writer.place("ETH", "okx")
        writer.set_home("BTC", "coinbase")
        writer.write_status(b"the first document")
    return buffer


def crowded_history() -> bytearray:
    """Sixty-four exchanges, of which the second is without a price and BTC's home."""
    buffer = history()
    with BoardWriter(buffer, pid=1, mono_ns=0) as writer:
        for number in range(2, MAX_EXCHANGES):
            writer.set_exchange(f"e{number}", source="e-ws", quote="USD")
        writer.place("BTC", "coinbase")
        writer.remove("BTC", "okx")
        writer.remove("ETH", "okx")
        writer.set_home("BTC", "okx")
    return buffer


def killed_at_each_store(
    step: Callable[[Any], object], history: Callable[[], bytearray] = history
) -> Iterator[bytearray]:
    """The memory as a writer leaves it that dies before its first store, its second, … and after its last."""
    for stores in range(10_000):
        buffer = history()
        writer = twin.BoardWriter(buffer, pid=2, mono_ns=0)
        writer.stores_left = stores
        try:
            step(writer)
        except twin.Killed:
            yield buffer
            continue
        yield buffer
        return


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_writer_killed_at_any_store_leaves_whole_values_and_is_repaired(
    step: Callable[[Any], object],
) -> None:
    try_every_kill(step, history)


@pytest.mark.parametrize("name", ["kraken", "an exchange with a longer name", "okxx", "ok"])
def test_writer_killed_while_it_gives_a_row_away_leaves_whole_values_and_is_repaired(name: str) -> None:
    try_every_kill(lambda w: w.set_exchange(name, source="new-ws", quote="USD"), crowded_history)


def try_every_kill(step: Callable[[Any], object], history: Callable[[], bytearray]) -> None:
    whole = wholes(step, history)
    *_, finished = killed_at_each_store(step, history)
    for buffer in killed_at_each_store(step, history):
        reader = BoardReader(buffer)
        assert seen(reader) in whole
        assert reader.read_counts["exhausted"] == 0
        before = seen(reader)
        successor = BoardWriter(buffer, pid=3, mono_ns=0)
        assert seen(reader) in whole[whole.index(before) :]
        step(successor)
        assert seen(reader) == whole[-1] | {"exchanges": seen(reader)["exchanges"]}
        assert no_latch_is_half_done(buffer)
        assert rows_in_use(buffer) == rows_in_use(finished)


def wholes(step: Callable[[Any], object], history: Callable[[], bytearray]) -> list[dict[str, object]]:
    """What may be seen: every state between the step's changes of anything visible, in their order."""
    states: list[dict[str, object]] = []
    for buffer in killed_at_each_store(step, history):
        state = seen(twin.BoardReader(buffer))
        if not states or state != states[-1]:
            states.append(state)
    assert 1 <= len(states) <= 4
    return states


def rows_in_use(buffer: bytearray) -> bytes:
    """The numbers of assets and exchanges: a row that was not yet findable is not made twice."""
    return bytes(buffer[twin.ASSETS : twin.EXCHANGES + 4])


def no_latch_is_half_done(buffer: bytearray) -> bool:
    return all(
        buffer[slot_at(slot) + 16 : slot_at(slot) + 96] == buffer[slot_at(slot) + 136 : slot_at(slot) + 216]
        and buffer[slot_at(slot)] % 2 == 0
        for slot in range(SLOTS)
    )


def test_reader_goes_on_with_the_other_copy_while_the_writer_stands_in_mid_write() -> None:
    buffer = history()
    writer = twin.BoardWriter(buffer, pid=2, mono_ns=0)
    writer.stores_left = 5
    with contextlib.suppress(twin.Killed):
        STEPS["write"](writer)
    reader = BoardReader(buffer)
    assert buffer[slot_at(0)] % 2 == 1
    assert text(reader.get("BTC", "okx")) == "1.5"
    assert reader.read_counts == {"retries": 0, "spoilt": 0, "exhausted": 0}
