"""`manage.py runfeeds` alone: what it writes, and how it stops."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exchanges.feed.status import NodeStatus, decode_status
from pricing._board import BoardReader
from tests.system.nodes import ROOT, Node, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

STUBBORN = """
import asyncio, uvloop
from telemetry.running import stop_on_signals

async def run():
    stop = asyncio.Event()
    stop_on_signals(stop)
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    await asyncio.sleep(60)

uvloop.run(run())
"""


class Feeds:
    """The feed process of a node that has nothing else, and the simulator."""

    def __init__(self, folder: Path, database: Path) -> None:
        shutil.copy(database, folder)
        self.node = Node(folder)
        port = str(self.node.simulator_port)
        self.simulator = self.spawn("runsimulator", "--port", port)
        self.feeds = self.spawn("runfeeds")

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        with self.node.log.open("ab") as output:
            return subprocess.Popen(command, env=self.node.environment, stdout=output, stderr=output)

    def ask(self, method: str, path: str, body: object = None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.node.simulator_port, timeout=10)
        try:
            connection.request(method, path, json.dumps(body))
            assert connection.getresponse().status in (200, 201)
        finally:
            connection.close()

    def close(self) -> None:
        for process in (self.feeds, self.simulator):
            process.kill()
            process.wait()
        for segment in self.node.segments():
            segment.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def lasting_feeds(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Feeds]:
    started = Feeds(tmp_path_factory.mktemp("feeds"), database)
    yield started
    started.close()


@pytest.fixture
def feeds(tmp_path: Path, database: Path) -> Iterator[Feeds]:
    started = Feeds(tmp_path, database)
    yield started
    started.close()


def is_priced(board: BoardReader) -> bool:
    return len(board.all("BTC")) == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_in_order_and_leaves_no_memory(number: signal.Signals, feeds: Feeds) -> None:
    node = feeds.node
    with node.board() as board:
        wait_until(lambda: is_priced(board), "no prices of all six")
        assert board.writer_pid == feeds.feeds.pid
        began = time.monotonic()
        os.kill(feeds.feeds.pid, number)
        assert feeds.feeds.wait(10) == 0
        assert time.monotonic() - began < 8  # the supervisor's grace
        assert is_priced(board), "the last prices stay for those who still read"
    assert node.segments() == []
    assert "Traceback" not in node.said


def test_second_writer_is_refused_while_the_first_lives(feeds: Feeds) -> None:
    node = feeds.node
    with node.board() as board:
        wait_until(lambda: is_priced(board), "no prices of all six")
        second = feeds.spawn("runfeeds")
        assert second.wait(60) == 1
        assert "CommandError" in node.said
        assert "Traceback" not in node.said
        assert board.writer_pid == feeds.feeds.pid


@pytest.mark.parametrize("kind", ["oversized", "endless-fragments", "deflate-bomb", "bad-utf8"])
def test_hostile_frame_costs_no_memory(kind: str, lasting_feeds: Feeds) -> None:
    node, pid = lasting_feeds.node, lasting_feeds.feeds.pid
    with node.board() as board:
        wait_until(lambda: is_priced(board) and b'"okx"' in board.status(), "no prices of all six")
        before = reconnects(board, "okx")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the high-water mark begins anew
        at_rest_kib = memory_kib(pid, "VmRSS")
        lasting_feeds.ask("POST", "/control/okx/fault", {"kind": kind})
        wait_until(lambda: reconnects(board, "okx") > before, f"{kind} was borne")
        assert memory_kib(pid, "VmHWM") - at_rest_kib < 4 * 1024
        lasting_feeds.ask("DELETE", "/control/okx/fault")


def reconnects(board: BoardReader, exchange: str) -> int:
    status = decode_status(board.status())
    assert isinstance(status, NodeStatus)
    return status.feeds[exchange].reconnects


def memory_kib(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_second_signal_kills() -> None:
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "trinity_site.settings.test"}
    command = [sys.executable, "-c", STUBBORN]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "stopping\n"
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
