"""What a node runs, and how it is asked whether it is ready."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pricing._board import BoardReader, BoardWriter, board_size, format_board
from telemetry._counters import MAX_WORKERS
from trinity_site import roles
from trinity_site.roles import accepts, answers, local_address, node_services
from trinity_site.supervisor import Service

SECOND_NS = 1_000_000_000


@pytest.fixture
def board() -> Iterator[BoardWriter]:
    memory = bytearray(board_size(64))
    format_board(memory, 64)
    with BoardWriter(memory, os.getpid(), 1) as writer:
        yield writer


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as http, socket.create_server(("127.0.0.1", 0)) as health:
        yield http, health


def services_of(
    sockets: tuple[socket.socket, socket.socket], board: BoardReader, **changes: object
) -> dict[str, Service]:
    chosen: dict[str, Any] = {
        "BASE_DIR": Path("/srv"),
        "TRINITY_SIMULATOR_URL": "",
        "TRINITY_HTTP_WORKERS": 1,
    }
    settings: Any = SimpleNamespace(**chosen | changes)
    http, health = sockets
    return {one.name: one for one in node_services(settings, http=http, health=health, board=board)}


def test_feeds_start_before_the_workers(sockets: Any, board: BoardWriter) -> None:
    assert list(services_of(sockets, board, TRINITY_HTTP_WORKERS=2)) == ["feeds", "http-1", "http-2"]


def test_simulator_starts_first_on_the_port_of_its_address(sockets: Any, board: BoardWriter) -> None:
    services = services_of(sockets, board, TRINITY_SIMULATOR_URL="http://127.0.0.1:9123")
    assert list(services) == ["simulator", "feeds", "http-1"]
    assert services["simulator"].command[2:] == ("runsimulator", "--port", "9123")


def test_workers_inherit_both_sockets_and_learn_their_ports(sockets: Any, board: BoardWriter) -> None:
    http, health = sockets
    worker = services_of(sockets, board)["http-1"]
    assert worker.descriptors == (http.fileno(), health.fileno())
    assert worker.environment["TRINITY_HEALTH_PORT"] == str(health.getsockname()[1])


def test_every_process_counts_in_a_row_of_its_own(sockets: Any, board: BoardWriter) -> None:
    most = services_of(sockets, board, TRINITY_HTTP_WORKERS=MAX_WORKERS - 2)
    rows = [int(one.command[-1]) for name, one in most.items() if name.startswith("http")]
    everyone = [roles.FEEDS_ROW, *rows, roles.DEVELOPMENT_ROW]
    assert len(set(everyone)) == len(everyone)
    assert max(everyone) < MAX_WORKERS


@pytest.mark.parametrize(
    ("pid", "age_ns", "ready"),
    [
        (os.getpid(), 0, True),
        (os.getpid(), 4 * SECOND_NS, True),
        (os.getpid(), 6 * SECOND_NS, False),
        (os.getpid() + 1, 0, False),  # the board still says who wrote it before
    ],
)
async def test_feeds_are_ready_when_they_beat_themselves(
    sockets: Any, board: BoardWriter, monkeypatch: pytest.MonkeyPatch, pid: int, age_ns: int, ready: bool
) -> None:
    board.beat(100 * SECOND_NS)
    monkeypatch.setattr(roles.time, "monotonic_ns", lambda: 100 * SECOND_NS + age_ns)
    assert await services_of(sockets, board)["feeds"].is_ready(pid) is ready


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def saying(answer: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    return talk


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"SSH-2.0-x\r\n", False),
        (b"", False),
    ],
)
async def test_only_a_200_is_an_answer(answer: bytes, good: bool) -> None:
    async with await asyncio.start_server(saying(answer), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await accepts("127.0.0.1", port)
        assert await answers("127.0.0.1", port, "/health/live") is good


async def test_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "PROBE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert not await answers("127.0.0.1", listening.getsockname()[1], "/")


async def test_nobody_there_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert not await accepts("127.0.0.1", port)
    assert not await answers("127.0.0.1", port, "/")


def test_socket_on_every_address_is_reached_on_loopback() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listening:
        assert local_address(listening) == "127.0.0.1"
