"""Usage on its way through real processes: a spool that is written here, a shipper, workers, a database."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from telemetry._spool import UDP, WS, UsageLog
from telemetry.parameters import SpoolParameters
from telemetry.segments import find_segments
from telemetry.spool import Spool
from tests.services import ending_with_us
from tests.system.nodes import PATIENCE_S, ROOT, UNWANTED, wait_until

KEYS = 40
SEGMENT_BYTES = 65_536
IMPATIENT = "tests.system.impatient"


def make_log(number: int) -> UsageLog:
    """Make a usage log whose price says which it is."""
    return UsageLog(
        time_ns=time.time_ns(),
        key_id=number % KEYS,
        account_id=number % KEYS // 2,
        month=202611,
        latency_us=number % 997,
        status=200,
        assets=1,
        tier=1,
        source=WS,
        protocol=UDP,
        asset="BTC",
        exchange="coinbase",
        price=str(number),
        quote="USD",
    )


class Process:
    """A management command as the supervisor runs it, with a pipe for its signs of life."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.ready_fd, its = os.pipe()
        os.set_blocking(self.ready_fd, False)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command, "--ready-fd", str(its)],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
                pass_fds=[its],
                preexec_fn=ending_with_us(signal.SIGKILL),
            )
        os.close(its)

    @property
    def pid(self) -> int:
        return self.process.pid

    def signs(self) -> int:
        """Count the signs of life since this was last asked."""
        with contextlib.suppress(BlockingIOError):
            return len(os.read(self.ready_fd, 65_536))
        return 0

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = PATIENCE_S) -> int:
        if self.is_alive():
            self.process.send_signal(number)
        status = self.process.wait(timeout_s)
        with contextlib.suppress(OSError):
            os.close(self.ready_fd)
            self.ready_fd = -1
        return status


class Writer:
    """Appends numbered usage logs to the spool from a thread, at a steady rate, and knows how many."""

    def __init__(self, root: Path, *, node: str, row: int = 1, rate: int = 5_000) -> None:
        parameters = SpoolParameters(segment_bytes=SEGMENT_BYTES, spool_bytes=4_000 * SEGMENT_BYTES)
        self.spool = Spool(root, node=node, row=row, parameters=parameters)
        self.spool.prepare()
        self.written = 0
        self._rate = rate
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def write(self, count: int) -> None:
        """Append so many at once."""
        for _ in range(count):
            while not self.spool.appender.append(make_log(self.written)):
                self.spool.prepare()
            self.written += 1
        self.spool.prepare()

    def close(self) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self.spool.close()

    def _write(self) -> None:
        while not self._ending.wait(0.02):
            self.write(self._rate // 50)
            self.spool.sync()


@functools.cache
def template() -> str:
    """Make a database with tables, once in a test run, to be copied: its name."""
    name = f"usage_template_{os.getpid()}"
    make_database(name)
    environment = {**clean_environment(), "DATABASE_URL": url_of(name)}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, ROOT / "manage.py", "migrate", "--verbosity", "0"],
            env=environment | {"TRINITY_DATA_DIR": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return name


def make_database(name: str, like: str = "template1") -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{like}"'.encode())


def url_of(name: str) -> str:
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in UNWANTED}


class Installation:
    """A node's folder and a database of its own, without the rest of the node.

    What is *kept* is started again when it has ended, as a supervisor does, whenever something is waited for.
    """

    def __init__(
        self, folder: Path, broker_url: str = "", *, environment: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.log = folder / "usage.log"
        self._database = f"usage_{uuid.uuid4().hex}"
        self.database_url = url_of(self._database)
        make_database(self._database, template())
        self.environment = clean_environment() | {
            "TRINITY_DATA_DIR": str(folder),
            "CLUSTER_NODE": f"Usage-{os.getpid()}",
            "DATABASE_URL": self.database_url,
            **({"CELERY_BROKER_URL": broker_url} if broker_url else {}),
            **(environment or {}),
        }
        self._processes: list[Process] = []
        self._kept: list[tuple[str, bool, Process]] = []

    @property
    def node(self) -> str:
        return self.environment["CLUSTER_NODE"]

    def writer(self, **options: int) -> Writer:
        return Writer(self.spool, node=self.node, **options)

    def start(self, *command: str, impatient: bool = False) -> Process:
        """Start a command and wait until it is ready; an *impatient* shipper sends again after 2 s."""
        program = ["-m", IMPATIENT] if impatient else [str(ROOT / "manage.py")]
        process = Process([*program, *command], self.environment, self.log)
        self._processes.append(process)
        wait_until(lambda: process.signs() > 0 or not process.is_alive(), self.said)
        return process

    def keep(self, command: str, *, impatient: bool = False) -> None:
        self._kept.append((command, impatient, self.start(command, impatient=impatient)))

    def kept(self, command: str) -> list[Process]:
        return [process for name, _, process in self._kept if name == command]

    def revive(self) -> None:
        """Start again what is kept and has ended."""
        for place, (command, impatient, process) in enumerate(self._kept):
            if not process.is_alive():
                self._kept[place] = (command, impatient, self.start(command, impatient=impatient))

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def connect(self) -> psycopg.Connection[tuple[int, ...]]:
        return psycopg.connect(self.database_url, autocommit=True)

    def ask(self, query: str) -> tuple[int, ...]:
        with self.connect() as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row

    def rows(self) -> int:
        return self.ask("SELECT count(*) FROM usage_logs")[0]

    def files(self) -> list[Path]:
        return list(find_segments(self.spool))

    def wait_for(self, rows: int) -> None:
        def there() -> bool:
            self.revive()
            return self.rows() >= rows

        wait_until(there, lambda: f"{self.rows()} of {rows}\n{self.said()}")

    def assert_exactly_once(self, records: int) -> None:
        """Everything is there, once, in rows, sums, months and ledger, and no file is left."""

        def all_passed_on() -> bool:
            self.revive()
            return not self.files()

        wait_until(all_passed_on, lambda: f"{self.files()}\n{self.said()}")
        found = self.ask("SELECT count(*), count(DISTINCT price) FROM usage_logs")
        assert found == (records, records), f"{found} of {records}\n{self.said()}"
        assert self.ask("SELECT sum(answers), sum(assets) FROM usage_rollups") == (records, records)
        assert self.ask("SELECT sum(counted) FROM usage_months") == (records,)
        assert self.ask("SELECT sum(rows), sum(damaged), sum(end_ - start) FROM usage_ledger") == (
            records,
            0,
            records,
        )
        assert self.ask("SELECT sum(ended) FROM usage_segments") == (records,)
        assert self.ask("SELECT count(*) FROM usage_quarantine") == (0,)

    def close(self) -> None:
        for process in self._processes:
            process.stop(signal.SIGKILL)
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{self._database}" WITH (FORCE)'.encode())


@contextlib.contextmanager
def installed(folder: Path, broker_url: str = "", **environment: str) -> Iterator[Installation]:
    installation = Installation(folder, broker_url, environment=environment)
    try:
        yield installation
    finally:
        installation.close()
