"""Drills on real `runudp` workers: accounts, restarts, spread, memory. Full sizes with `-m full`."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.nodes import RECOVERY_S
from tests.system.udp_workers import GOOD, ID, UdpWorkers, load, loaded, own_bytes, udp_workers
from tests.udp_engine.live import Client, request
from tests.udp_engine.test_sockets import drops_in_proc

pytestmark = [pytest.mark.quiet, pytest.mark.system, pytest.mark.timeout(300)]

BACK_S = 2.0 * RECOVERY_S / 5.0
BATCH = 64
MIB = 1 << 20
SEVERAL = request(id=ID).replace(b'"asset":"BTC"', b'"assets":["BTC","NOPE","ETH"]')


def sizes(small: int, full: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("size", [small, pytest.param(full, marks=pytest.mark.full)])


@pytest.fixture
def workers(tmp_path: Path, database: Path) -> Iterator[UdpWorkers]:
    with udp_workers(tmp_path, database) as workers:
        yield workers


@sizes(1, 10)
async def test_account_is_exact_when_the_kernel_drops(workers: UdpWorkers, size: int) -> None:
    """The worker is stopped under load until its small buffer overflows: sent = answered + dropped."""
    workers.open(1, buffer_bytes=100_000)
    bad = [b"hello", b"", b"\xff" * 9, b"x" * 1_201, b'{"error":"stale"}', b'{"asset":"BTC","asset":"BTC"}']
    bad = bad * 20 * size
    requests = [GOOD, GOOD, request(asset="NOPE", id=ID)]
    async with workers.running():
        with load(workers, requests, window=8, timeout_ms=2_000) as made, Client() as client:
            loading = asyncio.create_task(loaded(made, 1.0 * size), name="load")
            for _ in range(size):
                await asyncio.sleep(0.3)
                os.kill(workers.pid(0), signal.SIGSTOP)
                for datagram in bad[: len(bad) // size]:
                    client.sendto(datagram, ("127.0.0.1", workers.port))
                await asyncio.sleep(0.3)
                os.kill(workers.pid(0), signal.SIGCONT)
            reading = await loading
        await workers.settled()
    totals, drops = workers.totals(), workers.drops()
    kernel = drops.pop("kernel")
    assert kernel == drops_in_proc(workers.sockets[0]) > 100
    answered = reading.answered + sum(reading.errors.values())
    assert (reading.in_flight, reading.unexpected, set(reading.errors)) == (0, 0, {"unknown_asset"})
    assert totals["udp_packets_received"] == reading.sent + len(bad)
    assert totals["udp_packets_sent"] == answered == reading.sent - reading.lost
    assert kernel == reading.lost + len(bad) - sum(drops.values())
    assert workers.difference() == 0


@sizes(2, 10)
async def test_rolling_restart_under_load_loses_nothing(workers: UdpWorkers, size: int) -> None:
    workers.open(2)
    async with workers.running() as supervisor:
        first = [workers.pid(worker) for worker in range(2)]
        with load(workers) as made:
            loading = asyncio.create_task(asyncio.to_thread(made.run, 600.0, 5_000.0), name="load")
            for _ in range(size):
                await supervisor.roll()
            assert not {workers.pid(worker) for worker in range(2)} & set(first)
            made.stop()
            await loading
            reading = made.reading()
        await workers.settled()
    assert reading.sent == reading.answered > 5_000 * size
    assert (reading.lost, reading.errors, reading.unexpected, reading.unsent) == (0, {}, 0, 0)
    assert (workers.drops(), workers.difference()) == ({}, 0)
    assert workers.totals()["udp_packets_sent"] == reading.sent


@sizes(1, 4)  # after some deaths in a row a worker waits longer
async def test_killed_worker_is_back_and_loses_at_most_what_it_held(workers: UdpWorkers, size: int) -> None:
    workers.open(2)
    async with workers.running():
        with load(workers, timeout_ms=4_000) as made:
            loading = asyncio.create_task(asyncio.to_thread(made.run, 600.0, 5_000.0), name="load")
            for number in range(size):
                await asyncio.sleep(0.5)
                await killed(workers, number % 2)
            made.stop()
            await loading
            reading = made.reading()
        await workers.settled()
    assert reading.sent == reading.answered + reading.lost
    assert reading.lost <= BATCH * size
    assert 0 <= workers.difference() <= BATCH * size
    assert workers.drops() == {}


async def killed(workers: UdpWorkers, number: int) -> None:
    """Kill a worker and wait until its row counts again."""
    os.kill(workers.pid(number), signal.SIGKILL)
    before, began_s = workers.received()[number], time.monotonic()
    while workers.received()[number] == before:
        assert time.monotonic() - began_s < BACK_S, "the worker is not back"
        await asyncio.sleep(0.01)


async def test_flows_spread_over_the_workers(workers: UdpWorkers) -> None:
    workers.open(2)
    async with workers.running():
        with load(workers, window=1) as made:
            reading = await loaded(made, 0.5, 10_000.0)
        await workers.settled()
    received = workers.received()
    assert sum(received) == reading.sent == reading.answered
    assert all(0.3 <= one / reading.sent <= 0.7 for one in received)


async def fill(workers: UdpWorkers) -> None:
    """Have the worker hold as much at once as it ever will: each batch full of questions for asyncio."""
    with load(workers, [SEVERAL], timeout_ms=200) as made:
        loading = asyncio.create_task(loaded(made, 2.0), name="load")
        for _ in range(5):
            os.kill(workers.pid(0), signal.SIGSTOP)
            await asyncio.sleep(0.2)
            os.kill(workers.pid(0), signal.SIGCONT)
            await asyncio.sleep(0.1)
        await loading


@sizes(200_000, 2_000_000)
async def test_memory_stays_as_it_is(workers: UdpWorkers, size: int) -> None:
    """Requests of every kind, answered from the board, by asyncio, refused and dropped."""
    kinds = [
        GOOD,
        request(asset="NOPE", id=ID),
        SEVERAL,
        request("revoked", id=ID),
        request("free", id=ID),
        request(asset="!", id=ID),
        request(max_age_ms=0, id=ID),
    ]
    workers.open(1)
    async with workers.running():
        with load(workers, kinds, window=32, timeout_ms=50) as made, Client() as client:
            await loaded(made, 1.0)
            await fill(workers)
            before, received = own_bytes(workers.pid(0)), workers.received()[0]
            while workers.received()[0] < received + size:
                for number in range(500):
                    client.sendto(b"x" * number + b'{"a":' * (number % 9), ("127.0.0.1", workers.port))
                await loaded(made, 1.0)
            grown = own_bytes(workers.pid(0)) - before
        await workers.settled()
    assert grown < 2 * MIB
    assert workers.difference() == 0
