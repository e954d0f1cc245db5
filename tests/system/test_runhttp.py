"""`manage.py runhttp` alone: when it says that it is ready."""

import http.client
import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.nodes import PATIENCE_S, ROOT, Node

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


class Workers:
    """Workers that share the sockets of one node."""

    def __init__(self, folder: Path, database: Path) -> None:
        shutil.copy(database, folder)
        self.node = Node(folder, TRINITY_SIMULATOR_PORT="0")
        self.started: list[subprocess.Popen[bytes]] = []
        self._stack = ExitStack()
        self.sockets = [self._stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]

    def start(self, row: int) -> bytes:
        """Start one more and return the first that came through its pipe, or b"" when that was closed."""
        ours, its = os.pipe()
        http_fd, health_fd = (one.fileno() for one in self.sockets)
        options = ["--fd", http_fd, "--health-fd", health_fd, "--row", row, "--ready-fd", its]
        command = [sys.executable, ROOT / "manage.py", "runhttp", *options]
        environment = self.node.environment | {"TRINITY_HEALTH_PORT": str(self.sockets[1].getsockname()[1])}
        with self.node.log.open("ab") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                env=environment,
                pass_fds=(http_fd, health_fd, its),
                stdout=output,
                stderr=output,
            )
        self.started.append(process)
        os.close(its)
        try:
            assert select.select([ours], [], [], PATIENCE_S)[0], self.node.said
            return os.read(ours, 1)
        finally:
            os.close(ours)

    def live(self) -> int:
        connection = http.client.HTTPConnection(*self.sockets[1].getsockname(), timeout=10)
        try:
            connection.request("GET", "/health/live")
            return connection.getresponse().status
        finally:
            connection.close()

    def close(self) -> None:
        for process in self.started:
            process.terminate()
            process.wait()
        self._stack.close()


@pytest.fixture
def workers(tmp_path: Path, database: Path) -> Iterator[Workers]:
    workers = Workers(tmp_path, database)
    yield workers
    workers.close()


def test_worker_is_ready_when_it_accepts_and_not_when_its_neighbour_does(workers: Workers) -> None:
    assert workers.start(row=1) == b"1", workers.node.said
    assert workers.live() == 200
    assert workers.start(row=80) == b""  # there is no such row, so it never opens; its sockets are answered
    assert workers.started[1].wait(PATIENCE_S) != 0
    assert workers.live() == 200
