"""The price board in plain Python: its specification. Same interface, same bytes, one thread.

Every change of the memory is one call of ``_store``, in the order that the compiled writer keeps;
*stores_left* cuts a history off between any two of them, as a kill would.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from pricing.exceptions import BoardFull, LayoutError

MAGIC = int.from_bytes(b"TRBOARD1", "little")
LAYOUT_VERSION = 1
PRICE_BYTES, NAME_BYTES, SOURCE_BYTES = 40, 32, 40
MAX_EXCHANGES, MAX_SLOTS, STATUS_BYTES = 64, 1 << 24, 262_144
EXCHANGE_INDEX = 128

HEADER = struct.Struct(
    "=QIIQIIIIQqq"
)  # magic version slots size index assets exchanges - generation pid heartbeat
LABELS = struct.Struct("=HHI40s32s")  # source_length quote_length edition source quote; then CRC-32, zero
PRICE = struct.Struct(
    "=IBBHqqq40s"
)  # asset exchange length edition traded received mono price; then CRC-32, zero
SLOT_COUNT, INDEX_ENTRIES, ASSETS, EXCHANGES, GENERATION, PID, HEARTBEAT = 12, 24, 28, 32, 40, 48, 56
EXCHANGE_BYTES, EDITION, LABELS_AT, LABELS_BYTES, TICKS, LAST_TICK = 256, 52, 56, 88, 240, 248
ASSET_BYTES, HOME, ASSET_SLOTS = 320, 33, 36
SLOT_BYTES, COPY_BYTES = 256, 120
STATUS_COPY = 8 + STATUS_BYTES
STATUS_SIZE = 8 + 2 * STATUS_COPY + 40


class Killed(Exception):
    """The store at which this writer was to die has come."""


class ExchangeRow(NamedTuple):
    name: str
    source: str
    quote: str
    ticks: int
    last_tick_mono_ns: int


class Price(NamedTuple):
    asset: str
    exchange: str
    source: str
    quote: str
    price: str
    traded_ns: int
    received_ns: int
    received_mono_ns: int

    def age_ns(self, mono_ns: int) -> int:
        return max(0, self.received_ns - self.traded_ns) + max(0, mono_ns - self.received_mono_ns)


class Parts:
    """Where the parts of a board of so many slots begin, and where it ends."""

    def __init__(self, slots: int) -> None:
        if not 1 <= slots <= MAX_SLOTS:
            raise ValueError(slots)
        self.entries = 16
        while self.entries < 2 * slots:
            self.entries *= 2
        self.exchanges = HEADER.size
        self.exchange_index = self.exchanges + MAX_EXCHANGES * EXCHANGE_BYTES
        self.status = self.exchange_index + EXCHANGE_INDEX * 8
        self.asset_index = self.status + STATUS_SIZE
        self.assets = self.asset_index + self.entries * 8
        self.slots = self.assets + slots * ASSET_BYTES
        self.size = self.slots + slots * SLOT_BYTES


def board_size(slots: int) -> int:
    return Parts(slots).size


def format_board(buffer: bytearray, slots: int) -> None:
    parts = Parts(slots)
    if len(buffer) != parts.size:
        raise LayoutError("size", parts.size, len(buffer))
    header = HEADER.pack(MAGIC, LAYOUT_VERSION, slots, parts.size, parts.entries, 0, 0, 0, 0, 0, 0)
    buffer[:] = header + bytes(parts.size - len(header))


def hash_name(name: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in name:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFF_FFFF_FFFF_FFFF
    return value


def checked(value: bytes) -> bytes:
    return value + struct.pack("=II", zlib.crc32(value), 0)


class BoardReader:
    def __init__(self, buffer: bytearray) -> None:
        self._memory = memoryview(buffer)
        self.stores_left: int | None = None
        if len(buffer) < HEADER.size:
            raise LayoutError("size", HEADER.size, len(buffer))
        magic, version, slots, size, entries, *_ = HEADER.unpack_from(buffer)
        if magic != MAGIC or version != LAYOUT_VERSION or not 1 <= slots <= MAX_SLOTS:
            raise LayoutError("header", LAYOUT_VERSION, version)
        self._at = Parts(slots)
        if (size, entries, len(buffer)) != (self._at.size, self._at.entries, self._at.size):
            raise LayoutError("size", self._at.size, len(buffer))

    # -- words

    def _u32(self, offset: int) -> int:
        return int(struct.unpack_from("=I", self._memory, offset)[0])

    def _u64(self, offset: int) -> int:
        return int(struct.unpack_from("=Q", self._memory, offset)[0])

    def _i64(self, offset: int) -> int:
        return int(struct.unpack_from("=q", self._memory, offset)[0])

    def _name(self, row: int) -> bytes:
        return bytes(self._memory[row : row + self._memory[row + NAME_BYTES]])

    def _latched(self, offset: int, stride: int, size: int, *, gap: int) -> bytes | None:
        """The copy the sequence points at; the other one where its CRC is wrong; None before the first."""
        sequence = self._u64(offset)
        if sequence < 2:
            return None
        for other in (0, 1):
            at = offset + gap + ((sequence ^ other) & 1) * stride
            value = bytes(self._memory[at : at + size])
            if zlib.crc32(value) == self._u32(at + size):
                return value
        return None

    # -- look-up

    def _find(self, index: int, entries: int, rows: int, row_bytes: int, name: bytes) -> int | None:
        if not 1 <= len(name) <= NAME_BYTES:
            return None
        hashed = hash_name(name)
        for probe in range(entries):
            entry = self._u64(index + (hashed + probe) % entries * 8)
            if entry == 0:
                return None
            row = (entry & 0xFFFF_FFFF) - 1
            if entry >> 32 == hashed >> 32 and self._name(rows + row * row_bytes) == name:
                return row
        return None

    def _asset(self, name: str) -> int | None:
        data = name.encode(errors="surrogatepass")
        return self._find(self._at.asset_index, self._at.entries, self._at.assets, ASSET_BYTES, data)

    def _exchange(self, name: str) -> int | None:
        data = name.encode(errors="surrogatepass")
        return self._find(self._at.exchange_index, EXCHANGE_INDEX, self._at.exchanges, EXCHANGE_BYTES, data)

    def _asset_at(self, row: int) -> int:
        return self._at.assets + row * ASSET_BYTES

    def _exchange_at(self, row: int) -> int:
        return self._at.exchanges + row * EXCHANGE_BYTES

    def _slot_at(self, number: int) -> int:
        return self._at.slots + number * SLOT_BYTES

    def _entry_at(self, asset: int, exchange: int) -> int:
        return self._asset_at(asset) + ASSET_SLOTS + exchange * 4

    def _labels(self, exchange: int) -> tuple[int, str, str] | None:
        """The edition and the texts; None for a row that is nobody's."""
        value = self._latched(self._exchange_at(exchange) + LABELS_AT, LABELS_BYTES, LABELS.size, gap=8)
        if value is None:
            return None
        source_length, quote_length, edition, source, quote = LABELS.unpack(value)
        return (
            (edition, source[:source_length].decode(), quote[:quote_length].decode())
            if source_length
            else None
        )

    def _price(self, name: str, asset: int, exchange: int) -> Price | None:
        entry = self._u32(self._entry_at(asset, exchange))
        value = self._latched(self._slot_at(entry - 1), COPY_BYTES, PRICE.size, gap=16) if entry else None
        labels = self._labels(exchange)
        if value is None or labels is None:
            return None
        owner, column, length, edition, *times, price = PRICE.unpack(value)
        current = self._u32(self._exchange_at(exchange) + EDITION)
        if length == 0 or (owner, column) != (asset, exchange) or not edition == current == labels[0]:
            return None
        texts = (self._name(self._exchange_at(exchange)).decode(), *labels[1:], price[:length].decode())
        return Price(name, *texts, *times)

    # -- public

    def get(self, asset: str, exchange: str) -> Price | None:
        row, column = self._asset(asset), self._exchange(exchange)
        return None if row is None or column is None else self._price(asset, row, column)

    def best(self, asset: str, mono_ns: int, ttl_ns: int) -> Price | None:
        fresh = [price for price in self.all(asset) if price.age_ns(mono_ns) <= ttl_ns]
        home = self.home(asset)
        fresh.sort(key=lambda price: (price.exchange != home, price.age_ns(mono_ns)))
        return fresh[0] if fresh else None

    def all(self, asset: str) -> list[Price]:
        row = self._asset(asset)
        if row is None:
            return []
        prices = (self._price(asset, row, column) for column in range(self._u32(EXCHANGES)))
        return [price for price in prices if price is not None]

    def home(self, asset: str) -> str | None:
        row = self._asset(asset)
        home = 0 if row is None else self._memory[self._asset_at(row) + HOME]
        named = home and self._labels(home - 1) is not None
        return self._name(self._exchange_at(home - 1)).decode() if named else None

    def assets(self) -> list[str]:
        return [self._name(self._asset_at(row)).decode() for row in range(self._u32(ASSETS))]

    def exchanges(self) -> list[ExchangeRow]:
        return list(self._exchange_rows())

    def _exchange_rows(self) -> Iterator[ExchangeRow]:
        for column in range(self._u32(EXCHANGES)):
            at, labels = self._exchange_at(column), self._labels(column)
            if labels is not None:
                name = self._name(at).decode()
                yield ExchangeRow(
                    name, labels[1], labels[2], self._u64(at + TICKS), self._i64(at + LAST_TICK)
                )

    def status(self) -> bytes:
        sequence = self._u64(self._at.status)
        for other in (0, 1) if sequence >= 2 else ():
            at = self._at.status + 8 + ((sequence ^ other) & 1) * STATUS_COPY
            length, crc = struct.unpack_from("=II", self._memory, at)
            text = bytes(self._memory[at + 8 : at + 8 + (length + 7) // 8 * 8])
            if length <= STATUS_BYTES and zlib.crc32(text) == crc:
                return text[:length]
        return b""

    @property
    def generation(self) -> int:
        return self._u64(GENERATION)

    @property
    def writer_pid(self) -> int:
        return self._i64(PID)

    @property
    def heartbeat_mono_ns(self) -> int:
        return self._i64(HEARTBEAT)

    @property
    def slots(self) -> int:
        return self._u32(SLOT_COUNT)


class BoardWriter(BoardReader):
    def __init__(self, buffer: bytearray, pid: int, mono_ns: int) -> None:
        super().__init__(buffer)
        self._owners: dict[int, tuple[int, int]] = {}
        self._repair()
        self._store(PID, "q", pid)
        self.beat(mono_ns)
        self._store(GENERATION, "Q", self.generation + 1)
        self._free = [slot for slot in reversed(range(self.slots)) if slot not in self._owners]

    # -- stores

    def _store(self, offset: int, kind: str, value: int | bytes) -> None:
        if self.stores_left is not None:
            if self.stores_left == 0:
                raise Killed
            self.stores_left -= 1
        struct.pack_into("=" + kind, self._memory, offset, value)

    def _store_words(self, offset: int, value: bytes) -> None:
        for word in range(0, len(value), 8):
            self._store(offset + word, "8s", value[word : word + 8])

    def _latch(self, offset: int, stride: int, value: bytes, *, gap: int) -> None:
        odd = self._u64(offset) | 1
        self._store(offset, "Q", odd)
        self._store_words(offset + gap, value)
        self._store(offset, "Q", odd + 1)
        self._store_words(offset + gap + stride, value)

    def _latch_slot(self, slot: int, value: bytes) -> None:
        self._latch(self._slot_at(slot), COPY_BYTES, checked(value), gap=16)

    def _latch_labels(self, exchange: int, value: bytes) -> None:
        at = self._exchange_at(exchange)
        self._latch(at + LABELS_AT, LABELS_BYTES, checked(value), gap=8)
        self._store(at + EDITION, "I", LABELS.unpack(value)[2])

    def _index(self, index: int, entries: int, rows: int, row_bytes: int, row: int) -> None:
        name = self._name(rows + row * row_bytes)
        if not name or self._find(index, entries, rows, row_bytes, name) is not None:
            return
        place = hash_name(name)
        while entry := self._u64(index + place % entries * 8):
            if entry >> 32 != hash_name(self._name(rows + ((entry & 0xFFFF_FFFF) - 1) * row_bytes)) >> 32:
                break  # outdated: the row has another name by now
            place += 1
        self._store(index + place % entries * 8, "Q", hash_name(name) >> 32 << 32 | row + 1)

    def _index_exchange(self, row: int) -> None:
        self._index(self._at.exchange_index, EXCHANGE_INDEX, self._at.exchanges, EXCHANGE_BYTES, row)

    def _index_asset(self, row: int) -> None:
        self._index(self._at.asset_index, self._at.entries, self._at.assets, ASSET_BYTES, row)

    # -- taking over

    def _repair(self) -> None:
        at = self._at
        for column in range(self._u32(EXCHANGES)):
            row = self._exchange_at(column)
            self._index_exchange(column)
            labels = self._latched(row + LABELS_AT, LABELS_BYTES, LABELS.size, gap=8)
            if labels is not None:
                self._latch_labels(column, labels)
        for asset in range(self._u32(ASSETS)):
            self._index_asset(asset)
            for column in range(self._u32(EXCHANGES)):
                entry = self._u32(self._entry_at(asset, column))
                if entry:
                    self._owners[entry - 1] = asset, column
        for slot in reversed(range(self.slots)):
            self._repair_slot(slot)
        if self._u64(at.status):
            self.write_status(self.status())

    def _repair_slot(self, slot: int) -> None:
        at = self._slot_at(slot)
        first, second = (self._memory[at + 16 + copy : at + 96 + copy] for copy in (0, COPY_BYTES))
        if self._u64(at) & 1 or first != second:
            self._latch_slot(slot, self._latched(at, COPY_BYTES, PRICE.size, gap=16) or bytes(PRICE.size))

    # -- public

    def set_exchange(self, name: str, *, source: str, quote: str) -> None:
        texts = encoded(source, SOURCE_BYTES), encoded(quote, NAME_BYTES)
        row = self._exchange(name)
        if row is None:
            self._append_exchange(encoded(name, NAME_BYTES), texts)
        elif (known := self._labels(row)) is None or known[1:] != (source, quote):
            edition = self._u32(self._exchange_at(row) + EDITION) + 1
            self._latch_labels(row, LABELS.pack(len(texts[0]), len(texts[1]), edition, *texts))

    def _append_exchange(self, name: bytes, texts: tuple[bytes, bytes]) -> None:
        row = self._u32(EXCHANGES)
        if row == MAX_EXCHANGES:
            self._take_over_row(name, texts)
            return
        self._store_words(self._exchange_at(row), name_row(name, EXCHANGE_BYTES))
        self._latch_labels(row, LABELS.pack(len(texts[0]), len(texts[1]), 1, *texts))
        self._store(EXCHANGES, "I", row + 1)
        self._index_exchange(row)

    def _take_over_row(self, name: bytes, texts: tuple[bytes, bytes]) -> None:
        used = {column for _, column in self._owners.values()}
        row = next((row for row in range(MAX_EXCHANGES) if row not in used), None)
        if row is None:
            raise BoardFull("exchanges", MAX_EXCHANGES)
        at = self._exchange_at(row)
        for asset in range(self._u32(ASSETS)):
            if self._memory[self._asset_at(asset) + HOME] == row + 1:
                self._store(self._asset_at(asset) + HOME, "B", 0)
        edition = self._u32(at + EDITION)
        self._latch_labels(row, LABELS.pack(0, 0, edition + 1, b"", b""))
        words = name_row(name, NAME_BYTES + 8)
        self._store(at + NAME_BYTES, "Q", 0)
        self._store_words(at, words[:NAME_BYTES])
        self._store(at + TICKS, "Q", 0)
        self._store(at + LAST_TICK, "q", 0)
        self._store_words(at + NAME_BYTES, words[NAME_BYTES:])
        self._latch_labels(row, LABELS.pack(len(texts[0]), len(texts[1]), edition + 2, *texts))
        self._index_exchange(row)

    def _asset_for(self, asset: str) -> int:
        known = self._asset(asset)
        if known is not None:
            return known
        row = self._u32(ASSETS)
        if row == self.slots:
            raise BoardFull("assets", self.slots)
        name = encoded(asset, NAME_BYTES)
        self._store_words(self._asset_at(row), name_row(name, ASSET_BYTES))
        self._store(ASSETS, "I", row + 1)
        self._index_asset(row)
        return row

    def _known_exchange(self, exchange: str) -> int:
        row = self._exchange(exchange)
        if row is None:
            raise KeyError(exchange)
        return row

    def place(self, asset: str, exchange: str) -> int:
        column, row = self._known_exchange(exchange), self._asset(asset)
        if row is not None and (entry := self._u32(self._entry_at(row, column))):
            return entry - 1
        if not self._free:
            raise BoardFull("slots", self.slots)
        row = self._asset_for(asset)
        slot = self._free.pop()
        self._owners[slot] = row, column
        self._latch_slot(slot, bytes(PRICE.size))
        self._store(self._entry_at(row, column), "I", slot + 1)
        return slot

    def remove(self, asset: str, exchange: str) -> None:
        row, column = self._asset(asset), self._exchange(exchange)
        if row is None or column is None or not (entry := self._u32(self._entry_at(row, column))):
            return
        self._store(self._entry_at(row, column), "I", 0)
        self._latch_slot(entry - 1, bytes(PRICE.size))
        del self._owners[entry - 1]
        self._free.append(entry - 1)

    def set_home(self, asset: str, exchange: str | None) -> None:
        home = 0 if exchange is None else self._known_exchange(exchange) + 1
        self._store(self._asset_at(self._asset_for(asset)) + HOME, "B", home)

    def write(self, slot: int, price: str, traded_ns: int, received_ns: int, received_mono_ns: int) -> None:
        if slot not in self._owners or not price.isascii() or not 1 <= len(price) <= PRICE_BYTES:
            raise ValueError(slot, price)
        asset, column = self._owners[slot]
        at = self._exchange_at(column)
        identity = asset, column, len(price), self._u32(at + EDITION) & 0xFFFF
        self._latch_slot(
            slot, PRICE.pack(*identity, traded_ns, received_ns, received_mono_ns, price.encode())
        )
        self._store(at + TICKS, "Q", self._u64(at + TICKS) + 1)
        traded_mono_ns = received_mono_ns - max(0, received_ns - traded_ns)
        if traded_mono_ns > self._i64(at + LAST_TICK):
            self._store(at + LAST_TICK, "q", traded_mono_ns)

    def clear(self, slot: int) -> None:
        if slot not in self._owners:
            raise ValueError(slot)
        self._latch_slot(slot, bytes(PRICE.size))

    def beat(self, mono_ns: int) -> None:
        self._store(HEARTBEAT, "q", mono_ns)

    def write_status(self, document: bytes) -> None:
        if len(document) > STATUS_BYTES:
            raise ValueError(len(document))
        text = document + bytes(-len(document) % 8)
        self._latch(
            self._at.status, STATUS_COPY, struct.pack("=II", len(document), zlib.crc32(text)) + text, gap=8
        )


def encoded(text: str, limit: int) -> bytes:
    value = text.encode()
    if not 1 <= len(value) <= limit:
        raise ValueError(text)
    return value


def name_row(name: bytes, size: int) -> bytes:
    return struct.pack("=32sB", name, len(name)).ljust(size, b"\0")
