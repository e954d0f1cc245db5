"""The gate in plain Python: its specification. Same interface, same bytes, one thread.

Every change of the memory by the writer is one call of ``_store``, in the order that the compiled writer
keeps; *stores_left* cuts a history off between any two of them, as a kill would.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from typing import NamedTuple

from billing import keys, ratelimit
from billing._gate import GateKey, Usage
from billing.admission import Code
from billing.exceptions import GateFull
from billing.ratelimit import Rate
from telemetry.exceptions import LayoutError

MAGIC = int.from_bytes(b"TRGATE01", "little")
LAYOUT_VERSION = 1
MAX_ROWS, MAX_NETWORKS, MAX_BURST = 1 << 24, 8, (1 << 20) - 1
FREE, LIVE, BARRED = 0, 1, 2
PARTNER, PRICES, REPORTS = 1, 2, 4
COUNT_BITS, EMISSION_BITS, LIST_BITS = 46, 44, 40
COUNT_MASK, EMISSION_MASK = (1 << COUNT_BITS) - 1, (1 << EMISSION_BITS) - 1
LOW = 0xFFFF_FFFF
MILLISECOND_NS = 1_000_000

HEADER = struct.Struct(
    "=QIIQIIQqqQQ56x"
)  # magic version rows size index lists generation pid heartbeat keys month
GENERATION, PID, HEARTBEAT, KEYS, MONTH, MOVES = 32, 40, 48, 56, 64, 72
ROW_BYTES, LIST_BYTES, PREFIXES = 128, 136, 128
KEY_ID, RATE, CAP, STATUS, TAT, USED, OTHERS, LAST_USED = 32, 40, 48, 56, 64, 72, 88, 96
NETWORKS, ACCOUNT_ID, REVISION = 104, 112, 120


class Killed(Exception):
    """The store at which this writer was to die has come."""


class Verdict(NamedTuple):
    code: int = 0
    row: int = -1
    key_id: int = 0
    account_id: int = 0
    plan: int = 0
    flags: int = 0
    limit: int = 0
    emission_ns: int = 0
    remaining: int = 0
    reset_ns: int = 0
    cap: int = 0
    cap_remaining: int = 0
    cap_reset_ns: int = 0
    month: int = 0
    retry_after_ns: int = 0


class Parts:
    """Where the parts of a gate of so many rows begin, and where it ends."""

    def __init__(self, rows: int) -> None:
        if not 1 <= rows <= MAX_ROWS:
            raise ValueError(rows)
        self.entries = 16
        while self.entries < 2 * rows:
            self.entries *= 2
        self.list_count = rows // 8 + 8
        self.rows = HEADER.size
        self.index = self.rows + rows * ROW_BYTES
        self.lists = self.index + self.entries * 8
        self.size = self.lists + self.list_count * LIST_BYTES


def gate_size(rows: int) -> int:
    return Parts(rows).size


def format_gate(buffer: bytearray, rows: int) -> None:
    parts = Parts(rows)
    if len(buffer) != parts.size:
        raise LayoutError("size", parts.size, len(buffer))
    header = HEADER.pack(
        MAGIC, LAYOUT_VERSION, rows, parts.size, parts.entries, parts.list_count, 0, 0, 0, 0, 0
    )
    buffer[:] = header + bytes(parts.size - len(header))


class Gate:
    def __init__(self, buffer: bytearray) -> None:
        self._memory = memoryview(buffer)
        _, _, self.rows, size, *_ = HEADER.unpack_from(buffer)
        self._at = Parts(self.rows)
        if size != len(buffer):
            raise LayoutError("size", size, len(buffer))

    def _u64(self, offset: int) -> int:
        return int(struct.unpack_from("=Q", self._memory, offset)[0])

    def _set(self, offset: int, value: int) -> None:
        struct.pack_into("=Q", self._memory, offset, value)

    def _row_at(self, row: int) -> int:
        return self._at.rows + row * ROW_BYTES

    def _digest(self, row: int) -> bytes:
        return bytes(self._memory[self._row_at(row) : self._row_at(row) + 32])

    def _entry_at(self, place: int) -> int:
        return self._at.index + place % self._at.entries * 8

    def _entry_of(self, digest: bytes) -> int | None:
        """Place in the index of a digest's row."""
        first, tag = struct.unpack_from("=II", digest)
        for place in range(first, first + self._at.entries):
            entry = self._u64(self._entry_at(place))
            if entry == 0:
                return None
            number = (entry & LOW) - 1
            if entry >> 32 == tag and number < self.rows and self._digest(number) == digest:
                return place % self._at.entries
        return None

    def find(self, digest: bytes) -> int | None:
        place = self._entry_of(digest)
        row = None if place is None else (self._u64(self._entry_at(place)) & LOW) - 1
        return row if row is not None and self._u64(self._row_at(row) + STATUS) & 0xFF != FREE else None

    # -- judging

    def admit(
        self,
        key: bytes,
        mono_ns: int,
        wall_s: int,
        scope: int = PRICES,
        address: bytes | None = None,
        *,
        take: bool = True,
    ) -> Verdict:
        text = key.decode("latin-1")
        if not keys.is_wellformed(text):
            return Verdict(Code.MALFORMED)
        digest = hashlib.sha256(key).digest()
        return self.admit_digest(digest, mono_ns, wall_s, scope, address, take=take)

    def admit_digest(
        self,
        digest: bytes,
        mono_ns: int,
        wall_s: int,
        scope: int = PRICES,
        address: bytes | None = None,
        *,
        take: bool = True,
    ) -> Verdict:
        row = self.find(digest)
        if row is None:
            return Verdict(Code.UNKNOWN)
        at = self._row_at(row)
        status = self._u64(at + STATUS)
        code = self._permit(at, status, wall_s, scope, address)
        known = Verdict(
            code,
            row,
            self._u64(at + KEY_ID),
            self._u64(at + ACCOUNT_ID),
            status >> 16 & 0xFFFF,
            status >> 8 & 0xFF,
        )
        if code:
            return known
        verdict = self._meter(at, known, mono_ns, take=take)
        if take and not verdict.code:
            self._set(at + LAST_USED, wall_s)
        return verdict

    def _permit(self, at: int, status: int, wall_s: int, scope: int, address: bytes | None) -> Code:
        expires_s, networks = status >> 32, self._networks(self._u64(at + NETWORKS))
        if status & 0xFF != LIVE:
            return Code.REVOKED
        if expires_s and wall_s >= expires_s:
            return Code.EXPIRED
        if networks and not (address and any(is_within(address, *network) for network in networks)):
            return Code.WRONG_NETWORK
        if status >> 8 & scope != scope:
            return Code.WRONG_SCOPE
        return Code.ADMITTED

    def _networks(self, word: int) -> tuple[tuple[bytes, int], ...]:
        if not word & LOW:
            return ()
        at = self._list_at((word & LOW) - 1)
        prefixes = self._u64(at + PREFIXES)
        numbers = range(word >> 32 & 0xFF)
        return tuple(
            (bytes(self._memory[at + 16 * i : at + 16 * i + 16]), prefixes >> 8 * i & 0xFF) for i in numbers
        )

    def _list_at(self, number: int) -> int:
        return self._at.lists + number * LIST_BYTES

    def month(self, mono_ns: int) -> int:
        return self._month_and_rest(mono_ns)[0]

    def _month_and_rest(self, mono_ns: int) -> tuple[int, int]:
        month, ends_ns = split(self._u64(MONTH))
        ends_ns *= MILLISECOND_NS
        if ends_ns and mono_ns >= ends_ns:
            return ratelimit.next_month(month), 0
        return month, ends_ns - mono_ns if ends_ns else 0

    def _count(self, offset: int, month: int) -> int:
        counted, count = split(self._u64(offset))
        return count if counted == month else 0

    def _meter(self, at: int, known: Verdict, mono_ns: int, *, take: bool) -> Verdict:
        """The cap is looked at first, the bucket is asked next, and only then either is changed."""
        month, rest = self._month_and_rest(mono_ns)
        month = max(month, *(split(self._u64(at + USED + 8 * parity))[0] for parity in (0, 1)))
        used = at + USED + 8 * (month & 1)
        rate = Rate(self._u64(at + RATE) & EMISSION_MASK, self._u64(at + RATE) >> EMISSION_BITS)
        cap = self._u64(at + CAP)
        if known.flags & PARTNER:
            rate, cap = Rate(0, 0), 0
        left = max(0, cap - self._count(used, month) - self._count(at + OTHERS, month))
        quota = bool(cap and not left)
        verdict = known._replace(month=month, cap=cap, cap_remaining=left, cap_reset_ns=rest)
        if rate.emission_ns:
            tat_ns = self._u64(at + TAT)
            turn = ratelimit.take(rate, tat_ns, mono_ns)
            if turn.admitted and take and not quota:
                self._set(at + TAT, turn.tat_ns)
                remaining, reset_ns = turn.remaining, turn.reset_ns
            else:
                remaining, reset_ns = ratelimit.left(rate, tat_ns, mono_ns)
            verdict = verdict._replace(
                limit=rate.burst, emission_ns=rate.emission_ns, remaining=remaining, reset_ns=reset_ns
            )
            if not turn.admitted and not quota:
                return verdict._replace(code=Code.RATE_LIMITED, retry_after_ns=reset_ns)
        if quota:
            return verdict._replace(code=Code.QUOTA_EXCEEDED, retry_after_ns=rest)
        if take:
            self._set(used, join(month, self._count(used, month) + 1))
            verdict = verdict._replace(cap_remaining=max(0, left - 1))
        return verdict

    # -- reading

    def key(self, row: int) -> GateKey:
        at = self._taken(row)
        status, rate = self._u64(at + STATUS), self._u64(at + RATE)
        return GateKey(
            self._digest(row),
            self._u64(at + KEY_ID),
            self._u64(at + ACCOUNT_ID),
            status >> 16 & 0xFFFF,
            status >> 8 & 0xFF,
            rate & EMISSION_MASK,
            rate >> EMISSION_BITS,
            self._u64(at + CAP),
            status >> 32,
            self._networks(self._u64(at + NETWORKS)),
            status & 0xFF == BARRED,
            self._u64(at + REVISION),
        )

    def usage(self, row: int) -> Usage:
        at = self._taken(row)
        month, count = max(split(self._u64(at + USED + 8 * parity)) for parity in (0, 1))
        return Usage(row, self._u64(at + KEY_ID), month, count, self._u64(at + LAST_USED))

    def total(self, row: int, month: int) -> int:
        at = self._taken(row)
        words = (split(self._u64(at + place)) for place in (USED + 8 * (month & 1), OTHERS))
        return sum(count for counted_in, count in words if counted_in == month)

    def _taken(self, row: int) -> int:
        if not 0 <= row < self.rows or self._u64(self._row_at(row) + STATUS) & 0xFF == FREE:
            raise ValueError(row)
        return self._row_at(row)

    @property
    def keys(self) -> int:
        return self._u64(KEYS)


class GateWriter(Gate):
    def __init__(self, buffer: bytearray, pid: int, mono_ns: int) -> None:
        super().__init__(buffer)
        self.stores_left: int | None = None
        self._free_rows: deque[int] = deque()
        self._free_lists: deque[int] = deque()
        self._told: dict[tuple[int, int], int] = {}
        self._repair()
        self._store(PID, pid)
        self.beat(mono_ns)
        self._store(GENERATION, self._u64(GENERATION) + 1)

    def _store(self, offset: int, value: int) -> None:
        if self.stores_left is not None:
            if self.stores_left == 0:
                raise Killed
            self.stores_left -= 1
        self._set(offset, value)

    def _store_new(self, offset: int, value: int) -> None:
        if self._u64(offset) != value:
            self._store(offset, value)

    def _store_words(self, offset: int, value: bytes) -> None:
        for word in range(0, len(value), 8):
            self._store(offset + word, struct.unpack_from("=Q", value, word)[0])

    # -- taking over

    def _repair(self) -> None:
        for place in range(self._at.entries):
            while self._u64(self._entry_at(place)) and not self._is_right(place):
                self._drop_entry(place)
        self._store(MOVES, self._u64(MOVES) + 1 & ~1)
        taken = set()
        for row in range(self.rows):
            at = self._row_at(row)
            if self._u64(at + STATUS) & 0xFF == FREE:
                self._free_rows.append(row)
                continue
            if self._entry_of(self._digest(row)) is None:
                self._index_row(row)
            taken.add((self._u64(at + NETWORKS) & LOW) - 1)
        self._free_lists.extend(number for number in range(self._at.list_count) if number not in taken)
        self._store(KEYS, self.rows - len(self._free_rows))

    def _is_right(self, place: int) -> bool:
        row = (self._u64(self._entry_at(place)) & LOW) - 1
        taken = row < self.rows and self._u64(self._row_at(row) + STATUS) & 0xFF != FREE
        return taken and self._entry_of(self._digest(row)) == place

    # -- the index

    def _index_row(self, row: int) -> None:
        place, tag = struct.unpack_from("=II", self._digest(row))
        while self._u64(self._entry_at(place)):
            place += 1
        self._store(self._entry_at(place), tag << 32 | row + 1)

    def _drop_entry(self, hole: int) -> None:
        self._store(MOVES, self._u64(MOVES) | 1)
        place = hole
        while entry := self._u64(self._entry_at(place := place + 1)):
            home = int(struct.unpack_from("=I", self._digest((entry & LOW) - 1))[0])
            if (place - home) % self._at.entries >= place - hole:
                self._store(self._entry_at(hole), entry)
                hole = place
        self._store(self._entry_at(hole), 0)
        self._store(MOVES, self._u64(MOVES) + 1)

    # -- rows

    def put(self, key: GateKey) -> int:
        check(key)
        known = self.find(key.digest)
        if known is not None and self._u64(self._row_at(known) + REVISION) > key.revision:
            return known
        row = self._take_row(key) if known is None else known
        at = self._row_at(row)
        self._set_networks(at, tuple(key.networks))
        self._store_new(at + RATE, key.burst << EMISSION_BITS | key.emission_ns if key.emission_ns else 0)
        self._store_new(at + CAP, key.cap)
        self._store_new(at + REVISION, key.revision)
        state = BARRED if key.revoked else LIVE
        self._store_new(at + STATUS, key.expires_s << 32 | key.plan << 16 | key.flags << 8 | state)
        if known is None:
            self._index_row(row)
            self._store(KEYS, self.keys + 1)
        return row

    def _take_row(self, key: GateKey) -> int:
        if not self._free_rows:
            raise GateFull("rows", self.rows)
        if key.networks and not self._free_lists:
            raise GateFull("network lists", self._at.list_count)
        row = self._free_rows.popleft()
        at = self._row_at(row)
        self._store_words(at, key.digest)
        self._store(at + KEY_ID, key.key_id)
        self._store(at + ACCOUNT_ID, key.account_id)
        for offset in (NETWORKS, TAT, USED, USED + 8, OTHERS, LAST_USED):
            self._store(at + offset, 0)
        self._told.pop((row, 0), None)
        self._told.pop((row, 1), None)
        return row

    def _set_networks(self, at: int, wanted: tuple[tuple[bytes, int], ...]) -> None:
        old = self._u64(at + NETWORKS)
        if self._networks(old) == wanted:
            return
        word = ((old >> LIST_BITS) + 1) % (1 << 64 - LIST_BITS) << LIST_BITS
        if wanted:
            if not self._free_lists:
                raise GateFull("network lists", self._at.list_count)
            number = self._free_lists.popleft()
            for i, (address, _) in enumerate(wanted):
                self._store_words(self._list_at(number) + 16 * i, address)
            prefixes = sum(prefix << 8 * i for i, (_, prefix) in enumerate(wanted))
            self._store(self._list_at(number) + PREFIXES, prefixes)
            word |= len(wanted) << 32 | number + 1
        self._store(at + NETWORKS, word)
        if old & LOW:
            self._free_lists.append((old & LOW) - 1)

    def revoke(self, digest: bytes, revision: int) -> bool:
        row = self.find(digest)
        if row is None:
            return False
        at = self._row_at(row)
        if self._u64(at + REVISION) <= revision:
            self._store(at + REVISION, revision)
            self._store(at + STATUS, self._u64(at + STATUS) & ~0xFF | BARRED)
        return True

    def remove(self, digest: bytes) -> bool:
        row, place = self.find(digest), self._entry_of(digest)
        if row is None or place is None:
            return False
        at = self._row_at(row)
        self._store(at + STATUS, FREE)
        self._drop_entry(place)
        self._store(KEYS, self.keys - 1)
        if self._u64(at + NETWORKS) & LOW:
            self._free_lists.append((self._u64(at + NETWORKS) & LOW) - 1)
        self._free_rows.append(row)
        return True

    # -- counts and time

    def set_others(self, row: int, month: int, count: int) -> None:
        self._store(self._taken(row) + OTHERS, join(month, count))

    def restore(self, row: int, month: int, count: int) -> None:
        used = self._taken(row) + USED + 8 * (month & 1)
        self._store(used, max(self._u64(used), join(month, count)))

    def changed(self) -> list[Usage]:
        found = []
        for row in range(self.rows):
            at = self._row_at(row)
            for parity in (0, 1) if self._u64(at + STATUS) & 0xFF != FREE else ():
                word = self._u64(at + USED + 8 * parity)
                if word != self._told.get((row, parity), 0):
                    self._told[row, parity] = word
                    found.append(Usage(row, self._u64(at + KEY_ID), *split(word), self._u64(at + LAST_USED)))
        return found

    def set_month(self, month: int, ends_mono_ns: int) -> None:
        self._store(MONTH, join(month, -(-ends_mono_ns // MILLISECOND_NS)))

    def beat(self, mono_ns: int) -> None:
        self._store(HEARTBEAT, mono_ns)


def split(word: int) -> tuple[int, int]:
    return word >> COUNT_BITS, word & COUNT_MASK


def join(month: int, count: int) -> int:
    if not 0 <= month < 1 << 18 or not 0 <= count <= COUNT_MASK:
        raise ValueError(month, count)
    return month << COUNT_BITS | count


def is_within(address: bytes, network: bytes, prefix: int) -> bool:
    return (int.from_bytes(address) ^ int.from_bytes(network)) >> 128 - prefix == 0


def check(key: GateKey) -> None:
    fits = (
        len(key.digest) == 32
        and key.plan < 1 << 16
        and key.flags < 1 << 8
        and key.cap <= COUNT_MASK
        and key.expires_s < 1 << 32
        and key.emission_ns <= EMISSION_MASK
        and (not key.emission_ns or 1 <= key.burst <= MAX_BURST)
        and len(key.networks) <= MAX_NETWORKS
        and all(len(address) == 16 and 0 <= prefix <= 128 for address, prefix in key.networks)
    )
    if not fits:
        raise ValueError(key)
