"""A real node in processes of its own, against the simulator, and ways to look at it and to hurt it."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pricing._board import BoardReader
from tests.services import ending_with_us, free_port
from trinity_site.shared_memory import Opened, open_board_reader

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0  # far more than it takes: the machine may be busy
# The promise, on a machine that has nothing else to do; TEST_PATIENCE=3 allows three times as long.
RECOVERY_S = 5.0 * float(os.environ.get("TEST_PATIENCE", "1"))
CLEAR_S = 40.0  # three times the grace of a service, and some
PARTNER = ("--plan", "partner", "--json")
KEY_FILE = "key"
UNWANTED = (
    *("DATABASE_URL", "REDIS_URL", "VALKEY_URL", "CELERY_BROKER_URL"),
    *("DJANGO_SETTINGS_MODULE", "NO_COLOR"),
)


class Node:
    """One `manage.py runnode` with its children."""

    program: tuple[str, ...] = (str(ROOT / "manage.py"),)

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.http_port, self.health_port, self.simulator_port = free_port(), free_port(), free_port()
        self.udp_port, self.reports_port, self.reports_health_port = free_port(), free_port(), free_port()
        self.reports_udp_port = free_port()
        self.environment = {name: value for name, value in os.environ.items() if name not in UNWANTED} | {
            "TRINITY_DATA_DIR": str(folder),
            "CLUSTER_NODE": f"Test-{os.getpid()}-{self.http_port}",
            "TRINITY_BIND": "127.0.0.1",
            "TRINITY_HTTP_PORT": str(self.http_port),
            "TRINITY_HEALTH_PORT": str(self.health_port),
            "TRINITY_SIMULATOR_PORT": str(self.simulator_port),
            "TRINITY_UDP_PORT": str(self.udp_port),
            "TRINITY_REPORTS_PORT": str(self.reports_port),
            "TRINITY_REPORTS_HEALTH_PORT": str(self.reports_health_port),
            "TRINITY_REPORTS_UDP_PORT": str(self.reports_udp_port),
            "TRINITY_UDP_WORKERS": "2",
            **environment,
        }
        self.key = ""  # sent with every question
        self.log = folder / "node.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the node was not started"
        return self._process.pid

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    def prepare(self) -> None:
        """Make tables, seed rows and a key to ask with."""
        for command in (("migrate", "--verbosity", "0"), ("seed",), ("apikey", "create", *PARTNER)):
            done = self.manage(*command)
            assert done.returncode == 0, done.stderr
        self.key = json.loads(done.stdout)["key"]

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self.program, "runnode"],
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=output,
                preexec_fn=ending_with_us(signal.SIGTERM),
            )
        wait_until(lambda: "is up" in self.log.read_text(), lambda: f"the node did not start: {self.said}")

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for the supervisor's end and return its status."""
        assert self._process is not None, "the node was not started"
        return self._process.wait(timeout_s)

    def has_ended(self) -> bool:
        assert self._process is not None, "the node was not started"
        return self._process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def clear_away(self) -> None:
        """End the node, in order if it can, and whatever a failed test has left of it."""
        if self._process is None:
            return
        children = {} if self.has_ended() else self.children()
        self._process.terminate()
        try:
            self._process.wait(CLEAR_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in children.values():
            kill_if_alive(pid)
        for segment in self.segments():
            segment.unlink(missing_ok=True)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def children(self) -> dict[str, int]:
        """Return the process id of each child by its management command; workers have a number behind it."""
        pids = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        found = {}
        for pid in map(int, pids):
            words = read_command(pid)
            if any(word.startswith("run") for word in words):
                found[child_name(words)] = pid
        return found

    def workers(self) -> list[int]:
        return [pid for name, pid in self.children().items() if name.startswith("runhttp-")]

    def segments(self) -> list[Path]:
        return list(Path("/dev/shm").glob(f"trinity-{self.environment['CLUSTER_NODE']}-*"))

    def get(self, path: str, *, timeout_s: float = PATIENCE_S) -> tuple[int, dict[str, Any]]:  # Any: JSON
        """Ask the node; health paths go to the health port."""
        port = self.health_port if path.startswith("/health") else self.http_port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        try:
            connection.request("GET", path, headers={"X-API-Key": self.key} if self.key else {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def board(self) -> Opened[BoardReader]:
        return open_board_reader(self.environment["CLUSTER_NODE"], self.folder, slots=4096)

    def is_live(self) -> bool:
        """Say whether BTC is answered from the board and the node calls itself ready."""
        status, price = self.get("/price?asset=BTC")
        return status == 200 and price["tier"] == 1 and self.get("/health/ready")[0] == 200


def make_database(folder: Path) -> Path:
    """Make a database with tables, seed rows and a key, for nodes to be started on copies of it."""
    node = Node(folder)
    node.prepare()
    (folder / KEY_FILE).write_text(node.key)
    return folder / "trinity.sqlite3"


@contextmanager
def started_node(folder: Path, database: Path, **environment: str) -> Iterator[Node]:
    """Start a node on a copy of *database*; whatever is left of it in the end is cleared away."""
    shutil.copy(database, folder)
    node = Node(folder, **environment)
    node.key = (database.parent / KEY_FILE).read_text()
    try:
        node.start()
        yield node
    finally:
        node.clear_away()


def wait_until(
    condition: Callable[[], bool],
    problem: Callable[[], str] | str = "it did not happen",
    *,
    timeout_s: float = PATIENCE_S,
) -> float:
    """Ask again and again until *condition* holds; return the seconds it took."""
    started_s = time.monotonic()
    while not condition():
        if time.monotonic() - started_s > timeout_s:
            raise AssertionError(problem if isinstance(problem, str) else problem())
        time.sleep(0.02)
    return time.monotonic() - started_s


def is_alive(pid: int) -> bool:
    """Say whether a process runs; a dead one that its parent has not looked at yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def child_name(words: list[str]) -> str:
    command = next(word for word in words if word.startswith("run"))
    return f"{command}-{words[words.index('--row') + 1]}" if "--row" in words else command


def kill_if_alive(pid: int) -> None:
    if is_alive(pid):
        os.kill(pid, signal.SIGKILL)


def read_command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
