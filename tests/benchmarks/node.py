"""Parts of a node for benchmarks: a temporary data folder with seeded tables, and the real processes."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from telemetry.segments import Segment, find_segments
from udp_engine.wire import build_request

ROOT = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 30
PLAN = """
from billing.authors import Author, Door
from billing.services import save_plan
limits = {"requests_per_second": 1_000_000, "burst": 1_000_000, "requests_per_month": 1_000_000_000_000}
save_plan(name="bench", columns={"title": "Bench", "price": 0, **limits}, author=Author(Door.COMMAND))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_udp_port() -> int:
    """Pick one below those that clients get, of which a benchmark may have tens of thousands."""
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket(type=socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class BenchNode:
    """A data folder of its own and processes that end with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.http_port, self.health_port = free_port(), free_port()
        self.udp_port = free_udp_port()
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("TRINITY_", "REDIS", "VALKEY"))
            },
            "DJANGO_SETTINGS_MODULE": "trinity_site.settings.dev",
            "TRINITY_DATA_DIR": str(folder),
            "CLUSTER_NODE": "Bench",
            "TRINITY_HTTP_PORT": str(self.http_port),
            "TRINITY_HEALTH_PORT": str(self.health_port),
            "TRINITY_UDP_PORT": str(self.udp_port),
            "SERVER_TYPE": "APP_SERVER",
            "TRINITY_ALLOW_LOOPBACK_EXCHANGES": "1",
            "TRINITY_LOG_LEVEL": "WARNING",
            "DATABASE_URL": "",
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def manage(self, *arguments: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout

    def make_key(self) -> str:
        """Make a key with a rate and a cap, both of which are looked at and never reached."""
        self.manage("shell", "-v0", "-c", PLAN)
        made: str = json.loads(self.manage("apikey", "create", "--plan", "bench", "--json"))["key"]
        return made

    def start(self, *arguments: str) -> int:
        """Start `manage.py ARGUMENTS` and return its process id."""
        command = [sys.executable, "manage.py", *arguments]
        process = subprocess.Popen(command, cwd=ROOT, env=self.environment)
        self._processes.append(process)
        return process.pid

    def wait_for_http(self, path: str = "/health/live") -> None:
        """Wait until the health port answers at all."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def wait_for_udp(self, key: str, asset: str = "BTC") -> None:
        """Wait until a price comes back; a refusal is one more reason to wait."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        reply = b""
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(0.2)
            client.connect(("127.0.0.1", self.udp_port))
            while b'"price":' not in reply:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no price over UDP, only {reply!r}")
                with contextlib.suppress(OSError):
                    client.send(build_request(asset, key, id="1"))
                    reply = client.recv(2_048)

    def close(self) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        self._processes.clear()


@contextlib.contextmanager
def let_go(spool: Path) -> Iterator[None]:
    """Delete what is sealed, as whoever passes it on does."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(0.5):
            for path in find_segments(spool):
                with contextlib.suppress(FileNotFoundError), Segment(path) as segment:
                    if segment.look().sealed:
                        path.unlink()

    thread = threading.Thread(target=run, name="let go")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def bench_node(*, seeded: bool = True) -> Iterator[BenchNode]:
    """Yield a node whose tables are those of a fresh start, or empty."""
    folder = Path(tempfile.mkdtemp(prefix="trinity-bench-"))
    node = BenchNode(folder)
    try:
        node.manage("migrate", "--verbosity", "0")
        if seeded:
            node.manage("seed")
        with let_go(folder / "spool"):
            yield node
            node.close()
    finally:
        node.close()
        shutil.rmtree(folder, ignore_errors=True)
