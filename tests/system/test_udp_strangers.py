"""Strangers at a real `runudp` worker: what they get back is never more than they send, and seldom."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import random
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from billing import keys
from billing._gate import GateKey
from tests.pricing.doubles import KEYS
from tests.system.udp_workers import UdpWorkers, own_bytes, udp_workers
from tests.udp_engine.fuzz import datagrams
from tests.udp_engine.live import PATIENCE_S, request
from udp_engine.parameters import Parameters
from udp_engine.sockets import enlarge, tell_address

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PKTINFO = struct.Struct("=i4s4s")
AT_ONCE = 200
MIB = 1 << 20
LIMITS = Parameters()


class Strangers:
    """One socket that asks from every address of 127.0.0.0/8, as forged senders do, and hears the replies."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("0.0.0.0", 0))
        enlarge(self.socket, 8 * MIB)
        tell_address(self.socket)
        self.server = ("127.0.0.1", port)

    def send(self, datagram: bytes, source: int) -> None:
        control = PKTINFO.pack(0, source.to_bytes(4, "big"), bytes(4))
        self.socket.sendmsg([datagram], [(socket.IPPROTO_IP, 8, control)], 0, self.server)

    def replies(self) -> Iterator[tuple[bytes, int]]:
        """Give what has come by now, and to which of the addresses."""
        while select.select([self.socket], [], [], 0)[0]:
            reply, ((_, _, control),), _, _ = self.socket.recvmsg(2_000, 64)
            yield reply, int.from_bytes(PKTINFO.unpack(control)[2], "big")


@pytest.fixture
def workers(tmp_path: Path, database: Path) -> Iterator[UdpWorkers]:
    with udp_workers(tmp_path, database) as workers:
        for number, name in enumerate(("partner", "free"), 1):
            workers.gate.put(GateKey(keys.digest(KEYS[name]), number, revoked=True))
        workers.open(1)
        yield workers


@pytest.fixture
def strangers(workers: UdpWorkers) -> Iterator[Strangers]:
    strangers = Strangers(workers.port)
    with contextlib.closing(strangers.socket):
        yield strangers


def sources(count: int) -> list[int]:
    """Choose different addresses, none in 127.0.0.0/16."""
    first = int(ipaddress.IPv4Address("127.1.0.0"))
    last = int(ipaddress.IPv4Address("127.255.255.255"))
    return random.Random(4).sample(range(first, last), count)


def wait_for(workers: UdpWorkers, received: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while workers.received()[0] < received:
        assert time.monotonic() < deadline, "the worker does not read"
        time.sleep(0.001)


@pytest.mark.parametrize("size", [16_000, pytest.param(1_000_000, marks=pytest.mark.full)])
async def test_no_stranger_gets_more_than_it_sent_and_none_takes_memory(
    workers: UdpWorkers, strangers: Strangers, size: int
) -> None:
    made = itertools.cycle([datagram for datagram in datagrams(16_000, 4) if len(datagram) < 1_300])
    asked: dict[int, int] = {}
    answers = 0

    def hear() -> int:
        count = 0
        for reply, source in strangers.replies():
            assert len(reply) <= asked.pop(source), reply  # one reply at most to one request
            count += 1
        return count

    async with workers.running():
        before = 0
        for number, source in enumerate(sources(size)):
            datagram = next(made)
            asked[source] = len(datagram)
            strangers.send(datagram, source)
            if number % AT_ONCE == AT_ONCE - 1:
                wait_for(workers, number + 1)
                answers += hear()
            if number == 2_000:
                before = own_bytes(workers.pid(0))
        await workers.settled()
        answers += hear()
        grown = own_bytes(workers.pid(0)) - before
    assert grown < MIB
    totals = workers.totals()
    assert totals["udp_packets_received"] == size
    assert totals["udp_packets_sent"] == answers > size / 100
    assert (totals["syncmap_hits"], workers.difference()) == (0, 0)


async def test_refusals_to_one_network_are_as_few_as_promised(
    workers: UdpWorkers, strangers: Strangers
) -> None:
    network = int(ipaddress.IPv4Address("127.9.9.0"))
    datagram = request("unknown")
    sent = refused = 0
    async with workers.running():
        began_s = time.monotonic()
        while time.monotonic() < began_s + 1.5:
            for host in range(1, 101):
                strangers.send(datagram, network + host)
            sent += 100
            wait_for(workers, sent)
            refused += len(list(strangers.replies()))
        took_s = time.monotonic() - began_s
        await workers.settled()
        refused += len(list(strangers.replies()))
    most = LIMITS.refusals_per_s * took_s + LIMITS.refusal_burst
    assert most * 0.8 < refused <= most + 1
    assert workers.drops() == {"limited": sent - refused}
