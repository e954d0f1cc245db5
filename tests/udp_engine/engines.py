"""The compiled batch and its twin on boards, gates and circumstances that are the same for both."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from billing import keys
from billing.admission import pack_address
from billing.ratelimit import SECOND_NS, Rate
from pricing._board import board_size, format_board
from pricing._board_writer import BoardWriter
from pricing._finder import Finder
from pricing.catalogue import PublicView
from pricing.parameters import MS
from telemetry._counters import CounterReader, Counters, counters_size, format_counters
from tests.pricing.doubles import (
    CATALOGUE,
    KEYS,
    MONTH,
    MONTH_S,
    START_MONO_NS,
    START_WALL_NS,
    Clock,
    make_gate,
)
from tests.telemetry.spooling import SpoolInMemory
from tests.twins import board as board_twin
from tests.twins import gate as gate_twin
from tests.twins.udp import EngineTwin, Limiter, Question
from udp_engine import wire
from udp_engine._batch import Batch
from udp_engine._batch import Question as BatchQuestion

TTL_MS = 13_000
REFUSALS_PER_S, REFUSAL_BURST, NETWORKS, SECRET = 5, 3, 8, 0x1234_5678_9ABC_DEF0
LOW_64 = (1 << 64) - 1

Reply: TypeAlias = bytes | Question | None


def address_of(text: str) -> bytes:
    packed = pack_address(text)
    assert packed is not None
    return packed


OWN = address_of("203.0.113.1"), wire.PORT
ADDRESSES = [
    address_of(text)
    for text in (
        *("192.0.2.7", "192.0.2.8", "192.0.3.7", "198.51.100.9", "203.0.113.1"),
        *("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "::1"),
    )
]
PORTS = (50_000,) * 20 + (1, 2_679, 0, 7, 19, 53, 123, 1_900, 5_353, 11_211)


class Circumstances(NamedTuple):
    address: bytes
    port: int
    mono_ns: int
    wall_s: int


HOME = Circumstances(ADDRESSES[0], 50_000, START_MONO_NS, START_WALL_NS // SECOND_NS)


def place_of(network: bytes) -> int:
    """Find a network's bucket as the batch does: splitmix64's last steps."""
    mapped = network.startswith(bytes(10) + b"\xff\xff")
    value = (
        int.from_bytes(network[12:15], "little") | 1 << 63
        if mapped
        else int.from_bytes(network[:8], "little")
    )
    value ^= SECRET
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & LOW_64
    value = (value ^ value >> 27) * 0x94D049BB133111EB & LOW_64
    return (value ^ value >> 31) % NETWORKS


class Engines:
    """Both, after the same past. Everything that is done to one is done to the other."""

    def __init__(self, *, is_filled: bool = True, are_summaries: bool = False) -> None:
        memories = [bytearray(board_size(64)) for _ in range(2)]
        for memory in memories:
            format_board(memory, 64)
        self.boards: tuple[Any, Any] = (  # Any: one interface, two modules
            BoardWriter(memories[0], 1, START_MONO_NS),
            board_twin.BoardWriter(memories[1], 1, START_MONO_NS),
        )
        for board in self.boards:
            furnish(board)
        self.gate = make_gate(Clock())
        self.gate_twin = copy_of(self.gate)
        if not is_filled:
            self.gate.set_month(0, 0)
            self.gate_twin.set_month(0, 0)
        listed = PublicView(lambda: CATALOGUE).listed()
        self.finder = Finder(self.boards[0], ttl_ms=TTL_MS, label=wire.LABEL)
        self.finder.follow(listed)
        self._acquaint()
        self.memory, self.counters = make_counters()
        self.spool = SpoolInMemory()
        self.owed: list[BatchQuestion] = []
        self.batch = Batch(
            -1,
            None if are_summaries else self.finder,
            self.gate,
            self.counters,
            self.spool.appender,
            own=OWN,
            refusals_per_s=REFUSALS_PER_S,
            refusal_burst=REFUSAL_BURST,
            networks=NETWORKS,
            secret=SECRET,
        )
        limiter, turns = (
            Limiter(Rate(SECOND_NS // REFUSALS_PER_S, REFUSAL_BURST), NETWORKS, place_of) for _ in range(2)
        )
        self.twin = EngineTwin(
            self.boards[1],
            self.gate_twin,
            limiter,
            ttl_ms=TTL_MS,
            listed=listed,
            own=OWN,
            turns=turns if are_summaries else None,
        )

    def _acquaint(self) -> None:
        """Let the finder look at the board, as it does after the first question that met something new."""
        question = b'{"asset":"BTC","api_key":"%b"}' % KEYS["partner"].encode()
        slot = self.boards[0].place("BTC", "coinbase")
        self.boards[0].write(slot, "1", START_WALL_NS, START_WALL_NS, START_MONO_NS)
        Batch(-1, self.finder, self.gate, make_counters()[1], SpoolInMemory().appender).respond(
            question, *HOME
        )
        self.finder.learn()
        self.boards[0].clear(slot)

    def tick(self, asset: str, exchange: str, price: str, mono_ns: int) -> None:
        wall_ns = START_WALL_NS + mono_ns - START_MONO_NS
        for board in self.boards:
            board.write(board.place(asset, exchange), price, wall_ns - 40 * MS, wall_ns, mono_ns)

    def use_up(self, name: str, count: int) -> None:
        for gate in (self.gate, self.gate_twin):
            row = gate.find(keys.digest(KEYS[name]))
            assert row is not None
            gate.restore(row, MONTH, count)

    def by_batch(self, datagram: bytes, at: Circumstances = HOME) -> Reply:
        reply = self.batch.respond(datagram, *at)
        if reply is None or isinstance(reply, bytes):
            return reply
        self.owed.append(reply)
        demands = reply.exchange, reply.max_age_ms, reply.id, reply.request_bytes
        return Question(reply.asset, reply.assets, *demands)

    def by_twin(self, datagram: bytes, at: Circumstances = HOME) -> Reply:
        return self.twin.respond(datagram, *at)

    def compare_records(self) -> None:
        """Both must have recorded the same since the last call, but for what the batch reads from clocks."""
        found = [log._replace(time_ns=0, latency_us=0, sequence=0) for log in self.spool.take()]
        assert found == self.twin.take_records()
        owed = [(question.key_id, question.account_id, question.month) for question in self.owed]
        assert owed == self.twin.take_owed()
        self.owed.clear()

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Give what the batch has counted, and for what reasons it has dropped."""
        reader = CounterReader(self.memory)
        try:
            return reader.totals(), {name: count for name, count in reader.drops().items() if count}
        finally:
            reader.close()


COUNTED_BY_RESPOND = (
    *("udp_packets_received", "udp_packets_dropped", "udp_requests", "lrs_requests"),
    *("auth_failures", "rate_limited", "quota_exceeded", "syncmap_hits", "batch_rows_queued"),
)


def both_by_chance(engines: Engines, seed: int) -> tuple[Callable[[bytes], Reply], Callable[[bytes], Reply]]:
    """Make two that answer, each datagram under circumstances by chance that are the same for both.

    The twin goes first, and moves the world on; 10 ms lie between two datagrams.
    """
    chance = random.Random(seed)
    now = HOME

    def twin(datagram: bytes) -> Reply:
        nonlocal now
        mono_ns = now.mono_ns + 10 * MS
        number = (mono_ns - START_MONO_NS) // (10 * MS)
        if number % 100 == 1:
            engines.tick("BTC", "coinbase", f"67{number % 1_000}.10", mono_ns)
        if number % 10_000 == 0:
            engines.compare_records()
        if number % 4_000 == 1:
            engines.tick("ETH", "kraken", f"3{number % 1_000}.5", mono_ns)
            engines.tick("BTC", "kraken", "67000", mono_ns)
        wall_s = (START_WALL_NS + mono_ns - START_MONO_NS) // SECOND_NS
        now = Circumstances(chance.choice(ADDRESSES), chance.choice(PORTS), mono_ns, wall_s)
        return engines.by_twin(datagram, now)

    return lambda datagram: engines.by_batch(datagram, now), twin


def make_counters() -> tuple[bytearray, Counters]:
    memory = bytearray(counters_size())
    format_counters(memory)
    return memory, Counters(memory, 32)


def furnish(board: Any) -> None:  # Any: of either module
    for name, row in CATALOGUE.exchanges.items():
        board.set_exchange(name, source=f"{name}-ws", quote=row.quote)
    for asset in CATALOGUE.assets.values():
        for one in asset.listings:
            board.place(asset.asset, one.exchange)
        board.set_home(asset.asset, asset.home)


def copy_of(gate: Any) -> gate_twin.GateWriter:  # Any: the compiled one
    memory = bytearray(gate_twin.gate_size(gate.rows))
    gate_twin.format_gate(memory, gate.rows)
    twin = gate_twin.GateWriter(memory, 1, START_MONO_NS)
    for row in range(gate.keys):
        twin.put(gate.key(row))
    twin.set_month(MONTH, START_MONO_NS + MONTH_S * SECOND_NS)
    return twin


def compared(engines: Engines) -> Counter[str]:
    """Hold the counters of both to each other, and give the reasons for which datagrams were dropped."""
    counts, drops = engines.counts()
    twin = engines.twin
    engines.compare_records()
    assert {name: counts[name] for name in COUNTED_BY_RESPOND} == {
        name: twin.counts[name] for name in COUNTED_BY_RESPOND
    }
    assert drops == twin.drops
    return twin.drops
