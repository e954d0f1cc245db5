"""Real `runudp` workers under a supervisor; feeds and keyring are the test itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from django.conf import settings

from billing import keys
from billing._gate import GateKey
from pricing.parameters import MS
from tests.pricing.doubles import KEYS
from tests.system.nodes import Node
from tests.udp_engine.live import request
from trinity_site.roles import FIRST_UDP_ROW, udp_services
from trinity_site.shared_memory import open_board_writer, open_counter_reader, open_gate_writer
from trinity_site.supervisor import Supervisor
from udp_engine._load import UDP, Load, Reading
from udp_engine.parameters import Parameters
from udp_engine.sockets import enlarge, open_sockets

SLOTS, ROWS = 4_096, 65_536
MONTH = 202_611
TICK_S = 1.0
STILL_S = 0.6
PRICE = "67123.45"
PATIENT_MS = 20_000  # far longer than a worker is away: what is not answered by then never will be

ID = "00000000"  # where the load puts one of its own
GOOD = request(id=ID)


class UdpWorkers:
    """Board, gate and counters of a node, its UDP sockets and workers. What REST asks is not there."""

    def __init__(self, folder: Path, database: Path, stack: contextlib.ExitStack) -> None:
        shutil.copy(database, folder)
        self.node = Node(folder)
        self.node.environment |= {
            "DJANGO_SETTINGS_MODULE": "trinity_site.settings.dev",
            "TRINITY_DATA_DIR": str(folder),
            **dict.fromkeys(("DATABASE_URL", "REDIS_URL", "VALKEY_URL"), ""),
        }
        name = self.node.environment["CLUSTER_NODE"]
        self.counters = stack.enter_context(open_counter_reader(name, folder))
        self.board = stack.enter_context(open_board_writer(name, folder, slots=SLOTS))
        self.gate = stack.enter_context(open_gate_writer(name, folder, rows=ROWS))
        self.said: list[str] = []
        self.supervisor: Supervisor | None = None
        self.sockets: list[socket.socket] = []
        self._stack = stack
        self._fill()

    def _fill(self) -> None:
        self.board.set_exchange("coinbase", source="coinbase-ws", quote="USD")
        self.board.set_home("BTC", "coinbase")
        self.gate.put(GateKey(keys.digest(KEYS["partner"]), 1))
        self.gate.put(GateKey(keys.digest(KEYS["revoked"]), 2, revoked=True))
        self.gate.put(GateKey(keys.digest(KEYS["free"]), 3, emission_ns=1_000 * MS, burst=5))
        self.gate.set_month(MONTH, time.monotonic_ns() + 86_400_000 * MS)
        ended = threading.Event()

        def tick() -> None:
            slot = self.board.place("BTC", "coinbase")
            while not ended.is_set():
                self.board.write(slot, PRICE, time.time_ns(), time.time_ns(), time.monotonic_ns())
                ended.wait(TICK_S)

        thread = threading.Thread(target=tick, name="feed", daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(ended.set)

    def open(self, count: int, *, buffer_bytes: int = Parameters().buffer_bytes) -> None:
        self.sockets = [self._stack.enter_context(one) for one in open_sockets("127.0.0.1", 0, count)]
        for one in self.sockets:
            enlarge(one, buffer_bytes)

    @property
    def port(self) -> int:
        return int(self.sockets[0].getsockname()[1])

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        """Run a worker for each socket."""
        services = [
            replace(service, environment=self.node.environment)
            for service in udp_services(settings, self.sockets)
        ]
        self.supervisor = Supervisor(services, lambda name, line: self.said.append(f"{name} | {line}"))
        stop, started = asyncio.Event(), asyncio.Event()
        run = asyncio.create_task(self.supervisor.run(stop, started.set), name="supervisor")
        try:
            async with asyncio.timeout(60):
                for keeper in self.supervisor.keepers:
                    await keeper.ready.wait()
            yield self.supervisor
        finally:
            stop.set()
            await run

    def pid(self, worker: int) -> int:
        assert self.supervisor is not None
        process = self.supervisor.keepers[worker].process
        assert process is not None
        return process.pid

    def totals(self) -> dict[str, int]:
        return self.counters.totals()

    def drops(self) -> dict[str, int]:
        return {name: count for name, count in self.counters.drops().items() if count}

    def difference(self) -> int:
        totals = self.totals()
        assert totals["udp_packets_dropped"] == sum(self.drops().values())
        return totals["udp_packets_received"] - totals["udp_packets_sent"] - totals["udp_packets_dropped"]

    def received(self) -> list[int]:
        """What each worker's row has received, by number."""
        rows = self.counters.rows()[FIRST_UDP_ROW:]
        return [row["udp_packets_received"] for row in rows]

    async def settled(self) -> None:
        """Wait until the counters stand still: the kernel's drops are read every half second."""

        def settle() -> None:
            last: dict[str, int] = {}
            while last != (last := self.totals()):
                time.sleep(STILL_S)

        await asyncio.to_thread(settle)


@contextlib.contextmanager
def udp_workers(folder: Path, database: Path) -> Iterator[UdpWorkers]:
    with contextlib.ExitStack() as stack:
        yield UdpWorkers(folder, database, stack)


@contextlib.contextmanager
def load(
    workers: UdpWorkers,
    requests: Sequence[bytes] = (GOOD,),
    *,
    sockets: int = 256,
    window: int = 64,
    timeout_ms: int = PATIENT_MS,
) -> Iterator[Load]:
    address = ("127.0.0.1", workers.port)
    made = Load(UDP, address, requests, most=sockets, window=window, timeout_ms=timeout_ms)
    try:
        made.grow(sockets)
        yield made
    finally:
        made.stop()
        made.close()


async def loaded(made: Load, seconds: float, rate: float = 0.0) -> Reading:
    """Run it in a thread; the loop goes on meanwhile."""
    await asyncio.to_thread(made.run, seconds, rate)
    return made.reading()


def own_bytes(pid: int) -> int:
    """What a process keeps in memory for itself: pages of shared memory and of the spool are not its own."""
    _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
