"""The usage spool's segments in plain Python: their specification. Same interface, same bytes.

*stores_left* cuts a history off between any two stores of the appender, as a kill would.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from telemetry.exceptions import LayoutError

MAGIC = int.from_bytes(b"TRSPOOL1", "little")
LAYOUT_VERSION = 1
HEADER_BYTES = 4096
IDENTITY = struct.Struct("=QIIQQQII64sI")  # magic version record size created boot row capacity node -
RECORD = struct.Struct("=QQQIIHBBBBBB32s32s40s8s")
RECORD_BYTES = RECORD.size + 8
COPY, SEALED, WRITTEN, TALLY = 2048, 192, 256, 264
ENTERED, LEFT, OPENED, CLOSED, SHED = range(5)
LEAST, MOST = 65_536, 1 << 30
LOW = 2**32 - 1


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def crc32c(text: bytes, crc: int = 0) -> int:
    crc ^= LOW
    for byte in text:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ LOW


class Killed(Exception):
    """The store at which this appender was to die has come."""


class SegmentHeader(NamedTuple):
    node: str
    row: int
    created_ns: int
    boot_ns: int
    segment_bytes: int
    capacity: int
    seed: int


class Tally(NamedTuple):
    entered: int
    left: int
    opened: int
    closed: int
    shed: int


class UsageLog(NamedTuple):
    time_ns: int
    key_id: int
    account_id: int
    month: int
    latency_us: int
    status: int
    assets: int = 0
    tier: int = 0
    source: int = 0
    flags: int = 0
    protocol: int = 0
    endpoint: int = 0
    asset: str = ""
    exchange: str = ""
    price: str = ""
    quote: str = ""
    sequence: int = 0


def checked(seed: int, count: int) -> int:
    return crc32c(count.to_bytes(8, "little"), seed) << 32 | count


def make_header(node: str, row: int, created_ns: int, segment_bytes: int, boot_ns: int) -> bytes:
    name = node.encode()
    if not 1 <= len(name) <= 64 or not LEAST <= segment_bytes <= MOST or segment_bytes % HEADER_BYTES:
        raise ValueError(node, segment_bytes)
    capacity = (segment_bytes - HEADER_BYTES) // RECORD_BYTES
    identity = IDENTITY.pack(
        MAGIC, LAYOUT_VERSION, RECORD_BYTES, segment_bytes, created_ns, boot_ns, row, capacity, name, 0
    )
    identity += crc32c(identity).to_bytes(4, "little")
    return identity.ljust(COPY, b"\0") + identity.ljust(HEADER_BYTES - COPY, b"\0")


def read_header(page: bytes) -> SegmentHeader:
    """The first of the two identities that is whole; else the first one's fault."""
    faults = []
    for place in (0, COPY) if len(page) >= HEADER_BYTES else (0,):
        identity = page[place : place + IDENTITY.size + 4]
        if len(identity) < IDENTITY.size + 4:
            raise LayoutError("size", IDENTITY.size + 4, len(identity))
        words = IDENTITY.unpack_from(identity)
        magic, version, record, size, created_ns, boot_ns, row, capacity, node, _ = words
        crc = int.from_bytes(identity[-4:], "little")
        expected = (MAGIC, LAYOUT_VERSION, crc32c(identity[:-4]), RECORD_BYTES, True)
        fits = LEAST <= size <= MOST and capacity == (size - HEADER_BYTES) // RECORD_BYTES
        if (magic, version, crc, record, fits) == expected:
            return SegmentHeader(node.rstrip(b"\0").decode(), row, created_ns, boot_ns, size, capacity, crc)
        faults.append(LayoutError("identity", expected, (magic, version, crc, record, fits)))
    raise faults[0]


def read_counts(page: bytes, header: SegmentHeader) -> tuple[int | None, int | None]:
    def count(place: int) -> int | None:
        word = int.from_bytes(page[place : place + 8], "little")
        found = word & LOW
        return found if found <= header.capacity and word == checked(header.seed, found) else None

    nothing = not any(page[WRITTEN : WRITTEN + 8])
    return count(SEALED), 0 if nothing else count(WRITTEN)


def read_tally(page: bytes) -> Tally:
    return Tally(*struct.unpack_from("=5Q", page, TALLY))


def record_bytes(log: UsageLog, seed: int, sequence: int) -> bytes:
    texts = (log.asset, log.exchange, log.price, log.quote)  # cut to their fields, padded with zeros
    fields = RECORD.pack(
        log.time_ns,
        log.key_id,
        log.account_id,
        log.month,
        min(log.latency_us, LOW),
        log.status,
        min(log.assets, 255),
        *log[7:12],
        *(text.encode() for text in texts),
    )
    return fields + (crc32c(fields, seed ^ sequence) << 32 | sequence).to_bytes(8, "little")


def sift(records: bytearray, start: int, seed: int) -> tuple[int, int]:
    whole = []
    for place in range(len(records) // RECORD_BYTES):
        record = bytes(records[place * RECORD_BYTES :][:RECORD_BYTES])
        sequence = int.from_bytes(record[-8:-4], "little")
        crc = int.from_bytes(record[-4:], "little")
        if sequence == start + place + 1 and crc == crc32c(record[:-8], seed ^ sequence):
            whole.append((place, record))
    kept = b"".join(record for _, record in whole)
    records[: len(kept)] = kept
    return len(whole), whole[-1][0] + 1 if whole else 0


class Appender:
    def __init__(self) -> None:
        self.stores_left: int | None = None
        self.sheds = False
        self.appended = self.refused = self._promised = 0
        self._memories: dict[int, bytearray] = {}
        self._condemned: set[int] = set()
        self._current: int | None = None
        self._next: int | None = None
        self._used = 0
        self._words = [0] * 5
        self._retired: list[int] = []
        self._numbers = 0
        self._closed = False

    @property
    def wanting(self) -> bool:
        return not self._closed and self._next is None

    @property
    def tally(self) -> Tally:
        return Tally(*self._words)

    def publish(self, memory: bytearray) -> int:
        if not self.wanting or any(memory[SEALED : SEALED + 8]) or any(memory[WRITTEN : WRITTEN + 8]):
            raise ValueError
        if read_header(memory[:HEADER_BYTES]).segment_bytes != len(memory):
            raise LayoutError("size", "", len(memory))
        self._numbers += 1
        self._memories[self._numbers] = memory
        self._next = self._numbers
        return self._numbers

    def condemn(self, number: int) -> None:
        if number not in self._memories:
            raise KeyError(number)
        self._condemned.add(number)

    def admits(self) -> bool:
        """Is there a place for one more record, beside those of the answers that are owed?"""
        owed = self._words[OPENED] - self._words[CLOSED] + self._promised
        if not self._places(self._current, self._used):
            self._go_on()
        places = self._places(self._current, self._used) + self._places(self._next, 0)
        return places > owed or self.sheds

    def refuse(self) -> None:
        self.refused += 1

    def enter(self) -> None:
        self._raise(ENTERED)

    def leave(self) -> None:
        self._raise(LEFT)

    def open_answer(self) -> None:
        self._raise(OPENED)

    def close_answer(self) -> None:
        self._raise(CLOSED)

    def promise(self) -> None:
        self._promised += 1

    def fulfil(self) -> None:
        self._promised -= 1

    def append(self, log: UsageLog) -> bool:
        if not self._places(self._current, self._used):
            self._go_on()
        if self._current is None:
            self._raise(SHED)
            return False
        memory, header = self._memories[self._current], self._header()
        record = record_bytes(log, header.seed, self._used + 1)
        at = HEADER_BYTES + self._used * RECORD_BYTES
        for word in range(0, RECORD_BYTES, 8):
            self._store(memory, at + word, record[word : word + 8])
        self._used += 1
        self._store(memory, WRITTEN, checked(header.seed, self._used).to_bytes(8, "little"))
        self.appended += 1
        if self._used == header.capacity:
            self._seal()
        return True

    def take_retired(self) -> list[int]:
        taken, self._retired = self._retired, []
        return taken

    def release(self, number: int) -> None:
        del self._memories[number]

    def close(self) -> list[int]:
        if self._current is not None:
            self._seal()
        self._closed, self._next = True, None
        return self.take_retired()

    def _header(self) -> SegmentHeader:
        assert self._current is not None
        return read_header(bytes(self._memories[self._current][:HEADER_BYTES]))

    def _places(self, number: int | None, used: int) -> int:
        """How many records more fit into a segment."""
        if number is None or number in self._condemned:
            return 0
        return read_header(bytes(self._memories[number][:HEADER_BYTES])).capacity - used

    def _go_on(self) -> None:
        """Seal the current segment as it is, and take the prepared one, with what was counted so far."""
        if self._current is not None:
            self._seal()
        self._current, self._next, self._used = self._next, None, 0
        if self._current is not None:
            for word in range(5):
                self._store_word(word)
            if self._current in self._condemned:
                self._seal()

    def _seal(self) -> None:
        assert self._current is not None
        word = checked(self._header().seed, self._used).to_bytes(8, "little")
        self._store(self._memories[self._current], SEALED, word)
        self._retired.append(self._current)
        self._current = None

    def _raise(self, word: int) -> None:
        self._words[word] += 1
        if self._current is not None:
            self._store_word(word)

    def _store_word(self, word: int) -> None:
        assert self._current is not None
        at, value = TALLY + 8 * word, self._words[word]
        self._store(self._memories[self._current], at, value.to_bytes(8, "little"))

    def _store(self, memory: bytearray, at: int, word: bytes) -> None:
        if self.stores_left is not None:
            if self.stores_left == 0:
                raise Killed
            self.stores_left -= 1
        memory[at : at + 8] = word
