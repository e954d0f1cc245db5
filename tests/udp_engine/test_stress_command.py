"""`manage.py stress` as it is typed: what it prints and writes, its exit status, and where the key is not."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.udp_engine.loaded import HttpServer, UdpServer, echo, http_answer
from udp_engine.management.commands.stress import own_target

ROOT = Path(__file__).resolve().parents[2]
KEY = "tb_live_aVeryVerySecretKey0000000000000"
QUICK = ("--levels", "3,2", "--seconds", "0.2", "--warm-up", "0.1", "--pause", "0")


@pytest.fixture(autouse=True)
def key_in_settings(settings: object) -> None:
    settings.TRINITY_KEY = KEY  # type: ignore[attr-defined]  # pytest-django's


def address_of(server: UdpServer | HttpServer) -> str:
    return "{}:{}".format(*server.address)


def stress(*arguments: str) -> str:
    out = io.StringIO()
    call_command("stress", *arguments, stdout=out)
    return out.getvalue()


def test_table_json_and_page_are_written(tmp_path: Path) -> None:
    files = ("--json", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html"))
    with UdpServer() as server:
        said = stress("--target", address_of(server), *QUICK, *files)
    document = json.loads((tmp_path / "r.json").read_text())
    assert [level["sockets"] for level in document["levels"]] == [2, 3]
    assert document["clean"] is True
    page = (tmp_path / "r.html").read_text()
    for level in document["levels"]:
        assert f"{level['sent']:,}" in said
        assert f"<td>{level['sent']:,}</td>" in page
    assert KEY not in said + page + json.dumps(document)


def test_json_on_standard_output_is_alone_there() -> None:
    with UdpServer() as server:
        assert json.loads(stress("--target", address_of(server), *QUICK, "--json", "-"))["clean"]


def test_http_is_loaded_with_the_key_from_a_file(tmp_path: Path, settings: object) -> None:
    settings.TRINITY_KEY = ""  # type: ignore[attr-defined]  # pytest-django's
    (tmp_path / "key").write_text(KEY + "\n")
    with HttpServer(lambda number: [http_answer()]) as server:
        arguments = ("--protocol", "http", "--target", f"http://{address_of(server)}")
        said = stress(*arguments, *QUICK, "--key-file", str(tmp_path / "key"))
        assert "No key" not in said
        assert "No key was given" in stress(*arguments, *QUICK)


def test_assets_are_asked_for_in_turn() -> None:
    seen: set[bytes] = set()

    def note(datagram: bytes, number: int) -> list[bytes]:
        seen.update(asset for asset in (b"BTC", b"ETH", b"SOL") if b'"%s"' % asset in datagram)
        assert KEY.encode() in datagram
        return echo(datagram, number)

    with UdpServer(note) as server:
        stress("--target", address_of(server), *QUICK, "--asset", "ETH", "--asset", "SOL")
    assert seen == {b"ETH", b"SOL"}


def test_exit_status_is_1_where_something_was_lost() -> None:
    with UdpServer(lambda datagram, number: echo(datagram, number) if number % 9 else []) as server:
        with pytest.raises(SystemExit) as ended:
            stress("--target", address_of(server), *QUICK, "--timeout", "0.05")
        assert ended.value.code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--target", "192.0.2.1:2679"),
        ("--target", "nonsense"),
        ("--window", "65"),
        ("--protocol", "http", "--window", "2"),
        ("--levels", "0"),
        ("--seconds", "0"),
        ("--key-file", "/no/such/file"),
        ("--asset", "A" * 2_000),
        ("--protocol", "http", "--asset", "A" * 3_000),
        ("--levels", "900000"),
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_bad_arguments_are_told_with_exit_status_2(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as refused:
        stress(*arguments)
    assert refused.value.returncode == 2
    assert "has ended" not in str(refused.value)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("levels", ["", "1,x", "1.5"])
def test_levels_that_are_no_numbers_are_refused(levels: str) -> None:
    with pytest.raises(CommandError):
        stress("--levels", levels)


def test_nobody_listening_over_http_is_told() -> None:
    with HttpServer(lambda number: []) as server:
        address = address_of(server)
    with pytest.raises(CommandError, match="refused") as told:
        stress("--protocol", "http", "--target", address, *QUICK)
    assert told.value.returncode == 1


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_with_what_was_measured(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C goes to the whole process group, as a terminal sends it."""
    with UdpServer() as server:
        command = [sys.executable, "manage.py", "stress", "--target", address_of(server), "--json", "-"]
        environment = os.environ | {"TRINITY_DATA_DIR": str(tmp_path), "TRINITY_KEY": KEY}
        process = subprocess.Popen(
            [*command, "--levels", "2,4", "--seconds", "60", "--warm-up", "0"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 20
            while server.received < 100 and time.monotonic() < deadline:
                time.sleep(0.02)
            os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
            out, said = process.communicate(timeout=20)
        finally:
            process.kill()
    document = json.loads(out)
    assert document["interrupted"] is True
    assert [level["sockets"] for level in document["levels"]] == [2]
    assert document["levels"][0]["answered"] >= 100
    assert "Interrupted" in said
    assert "Traceback" not in said
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("bind", "udp_bind", "protocol", "target"),
    [
        ("127.0.0.1", "", "udp", "127.0.0.1:2679"),
        ("127.0.0.1", "0.0.0.0", "udp", "127.0.0.1:2679"),
        ("::", "", "udp", "[::1]:2679"),
        ("10.0.0.7", "10.0.0.8", "http", "10.0.0.7:8080"),
    ],
)
def test_own_target_is_the_nodes_port_and_loopback_where_it_is_open_to_everywhere(
    settings: Any, bind: str, udp_bind: str, protocol: Any, target: str
) -> None:
    settings.TRINITY_BIND, settings.TRINITY_UDP_BIND = bind, udp_bind
    settings.TRINITY_UDP_PORT, settings.TRINITY_HTTP_PORT = 2679, 8080
    assert own_target(protocol) == target
