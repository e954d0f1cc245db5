"""A batch on a real loopback socket, with board, gate and counters in plain memory, and its clients."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from typing import Any, Self

import msgspec

from billing import keys
from pricing._finder import Finder
from pricing.catalogue import PublicView
from pricing.parameters import MS
from telemetry._counters import CounterReader
from tests.pricing.doubles import CATALOGUE, KEYS, MONTH, Clock, make_board, make_gate
from tests.telemetry.spooling import SpoolInMemory
from tests.udp_engine.engines import make_counters
from udp_engine import sockets
from udp_engine._batch import Batch, Question
from udp_engine.wire import LABEL

TTL_MS = 13_000
PATIENCE_S = 5.0
PRICE = "67123.45"
DELAY_MS = 40

_age = re.compile(rb'"age_ms":(\d+)')


def request(key: str | None = "partner", /, **fields: object) -> bytes:
    """Ask for BTC by the name of a key, or by its text."""
    known = {} if key is None else {"api_key": KEYS.get(key, key)}
    return msgspec.json.encode({"asset": "BTC", **known, **fields})


def without_age(reply: bytes) -> bytes:
    """Put 0 for the age, which is between the trade's delay and what the test may take."""
    for found in _age.findall(reply):
        assert DELAY_MS <= int(found) < DELAY_MS + PATIENCE_S * 1_000
    return _age.sub(b'"age_ms":0', reply)


class Client(socket.socket):
    """A socket of somebody who asks; replies come in order."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.bind((host, port))
        self.settimeout(PATIENCE_S)

    def replies(self, count: int) -> list[bytes]:
        """Wait for so many, and see that there are no more."""
        found = [self.recv(65_535) for _ in range(count)]
        return found + self.rest()

    def rest(self) -> list[bytes]:
        """Give what has come by now."""
        found = []
        while select.select([self], [], [], 0)[0]:
            found.append(self.recv(65_535))
        return found


class Account:
    """What the counters say."""

    def __init__(self, memory: bytearray) -> None:
        reader = CounterReader(memory)
        self.totals = reader.totals()
        self.drops = {name: count for name, count in reader.drops().items() if count}
        self.latencies = sum(reader.latencies()["udp"])
        self.sockets = reader.sockets()
        reader.close()
        self.received: int = self.totals["udp_packets_received"]
        self.sent: int = self.totals["udp_packets_sent"]
        self.dropped: int = self.totals["udp_packets_dropped"]

    @property
    def difference(self) -> int:
        assert self.dropped == sum(self.drops.values())
        return self.received - self.sent - self.dropped


class Live:
    """The batch and its world; BTC trades on coinbase for PRICE, DELAY_MS ago."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        port: int = 0,
        is_filled: bool = True,
        spool: SpoolInMemory | None = None,
        **options: Any,  # those of Batch
    ) -> None:
        self._stack = contextlib.ExitStack()
        self.clock = Clock()
        self.clock.wall, self.clock.mono = time.time_ns(), time.monotonic_ns()
        self.gate, self.board = make_gate(self.clock), make_board(self.clock)
        if not is_filled:
            self.gate.set_month(0, 0)
        self.finder = Finder(self.board, ttl_ms=TTL_MS, label=LABEL)
        self.finder.follow(PublicView(lambda: CATALOGUE).listed())
        self.memory, self.counters = make_counters()
        self.spool = spool or SpoolInMemory()
        self.socket = self._stack.enter_context(sockets.open_socket(host, port))
        own, tells_address = sockets.own_address(self.socket), sockets.is_wildcard(self.socket)
        if tells_address:
            sockets.tell_address(self.socket)
        self.batch = Batch(
            self.socket.fileno(),
            self.finder,
            self.gate,
            self.counters,
            self.spool.appender,
            **{"own": own, "tells_address": tells_address, **options},
        )
        self.port: int = self.socket.getsockname()[1]
        self.host = host
        self.traded_ms = (self.clock.wall - DELAY_MS * MS) // MS
        self.tick()
        self._acquaint()

    def tick(self, price: str = PRICE) -> None:
        wall_ns, mono_ns = self.traded_ms * MS, time.monotonic_ns()
        slot = self.board.place("BTC", "coinbase")
        self.board.write(slot, price, wall_ns, wall_ns + DELAY_MS * MS, mono_ns)

    def _acquaint(self) -> None:
        """Let the finder look at the board, as it does after the first question that met something new."""
        unseen = Batch(-1, self.finder, self.gate, make_counters()[1], SpoolInMemory().appender)
        mono_ns = time.monotonic_ns()
        unseen.respond(request("unlimited"), bytes(16), 50_000, mono_ns, mono_ns)
        self.finder.learn()

    def use_up(self, name: str) -> None:
        row = self.gate.find(keys.digest(KEYS[name]))
        assert row is not None
        self.gate.restore(row, MONTH, 1_000_000)

    def client(self, host: str = "127.0.0.1", port: int = 0) -> Client:
        return self._stack.enter_context(Client(host, port))

    def send(self, client: Client, *datagrams: bytes, to: str | None = None) -> None:
        for datagram in datagrams:
            client.sendto(datagram, (to or self.host, self.port))

    def ask(self, client: Client, *datagrams: bytes, to: str | None = None) -> list[bytes]:
        """Send, have all of it answered, and give what has come back."""
        before = self.account().sent
        self.send(client, *datagrams, to=to)
        self.drain()
        return client.replies(self.account().sent - before)

    def drain(self) -> list[Question]:
        """Answer until the socket is empty."""
        questions = []
        while select.select([self.socket], [], [], 0.01)[0]:
            questions += self.batch.drain()
        return questions

    def account(self) -> Account:
        return Account(self.memory)

    def told(self, id: str | None = None) -> bytes:
        """What is told of BTC, with 0 for the age."""
        begin = b"{" if id is None else b'{"id":%b,' % msgspec.json.encode(id)
        price = b'"asset":"BTC","price":"67123.45","quote":"USD","source":"coinbase-ws",'
        return begin + price + b'"ts":%d,"age_ms":0,"tier":1}' % self.traded_ms

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
