"""SQS for tests: ministack, in an environment and a process of its own, since it holds botocore back.

It is installed once, into a folder of the virtual environment: by `python -m tests.ministack`, or by the
first test that needs it. TEST_AWS=required makes a failure of what would be a reason to skip.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from tests.services import ending_with_us, free_port, wait_until

RELEASE = "ministack==1.5.33"
FOLDER = Path(sys.prefix) / "ministack"
PROGRAM = FOLDER / "bin" / "ministack"
INSTALL_S = 120.0


def install() -> str:
    """Make sure that it is there, and return what is wrong when it cannot be."""
    if PROGRAM.exists():
        return ""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is not None:
        make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, FOLDER]
        fill = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--system-certs",
            "--python",
            FOLDER / "bin" / "python",
            RELEASE,
        ]
    else:
        make = [sys.executable, "-m", "venv", "--clear", FOLDER]
        fill = [FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet", RELEASE]
    for command in (make, fill):
        try:
            done = subprocess.run(
                list(map(str, command)), capture_output=True, text=True, check=False, timeout=INSTALL_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode:
            return done.stderr.strip() or f"{command[0]} ended with status {done.returncode}"
    return ""


class Ministack:
    """One server on loopback, with nothing in it."""

    def __init__(self, log: Path) -> None:
        if problem := install():
            told = f"{RELEASE} cannot be installed, and SQS cannot be tried: {problem}"
            if os.environ.get("TEST_AWS") == "required":
                pytest.fail(told)
            pytest.skip(told)
        self.port = free_port()
        environment = {
            **os.environ,
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "SERVICES": "sqs",
            "LOG_LEVEL": "WARNING",
        }
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [PROGRAM],
                env=environment,
                cwd="/",
                stdout=output,
                stderr=output,
                process_group=0,
                preexec_fn=ending_with_us(signal.SIGTERM),
            )
        wait_until(self._answers, what="ministack", log=log)

    def forget(self) -> None:
        """Drop every queue, with what is in it and what is out."""
        urlopen(Request(f"http://127.0.0.1:{self.port}/_ministack/reset", method="POST"), timeout=10).close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/_ministack/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


if __name__ == "__main__":
    sys.exit(install())
