"""The command: ready line, orderly end by signal, errors in words."""

import io
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from django.core.management import call_command, load_command_class
from django.core.management.base import CommandError

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, str(ROOT / "manage.py"), "runsimulator"]


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_says_when_it_is_ready_and_ends_on_a_signal(number: int) -> None:
    process = start("--port", "0")
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("simulator ready at http://127.0.0.1:")
        url = ready.split()[3]
        with urllib.request.urlopen(f"{url}/control", timeout=5) as answer:  # our own loopback address
            assert "okx" in json.load(answer)
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()


def test_taken_port_is_an_error_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"cannot listen on 127.0.0.1:{port}"):
            call_command("runsimulator", port=port)


def test_folder_without_recordings_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no recordings"):
        call_command("runsimulator", replay=tmp_path)


def test_help_shows_examples() -> None:
    text = (
        load_command_class("exchanges", "runsimulator")
        .create_parser("manage.py", "runsimulator")
        .format_help()
    )
    assert "examples:" in text and "/control/okx/fault" in text


def test_record_writes_a_file_per_exchange(tmp_path: Path) -> None:
    call_command("runsimulator", record=tmp_path, stdout=io.StringIO())
    assert len(list(tmp_path.glob("*.jsonl"))) == 7
