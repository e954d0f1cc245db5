"""`manage.py runfeeds` alone: what it writes, and how it stops."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pricing._board import BoardReader
from tests.system.nodes import ROOT, Node, make_database, wait_until
from trinity_site.shared_memory import open_board_reader

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

STUBBORN = """
import asyncio, django, uvloop
django.setup()
from trinity_site.management.commands.runfeeds import stop_on_signals

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

    def close(self) -> None:
        for process in (self.feeds, self.simulator):
            process.kill()
            process.wait()
        for segment in self.node.segments():
            segment.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("database"))


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
    with open_board_reader(node.environment["CLUSTER_NODE"], node.folder, slots=4096) as board:
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
    with open_board_reader(node.environment["CLUSTER_NODE"], node.folder, slots=4096) as board:
        wait_until(lambda: is_priced(board), "no prices of all six")
        second = feeds.spawn("runfeeds")
        assert second.wait(60) == 1
        assert "CommandError" in node.said
        assert "Traceback" not in node.said
        assert board.writer_pid == feeds.feeds.pid


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
