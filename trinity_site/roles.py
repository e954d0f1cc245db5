"""What a node runs: its services in order, their counters rows, and how each shows that it is ready."""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from django.conf import LazySettings

from pricing._board import BoardReader
from telemetry._counters import MAX_WORKERS
from trinity_site.supervisor import Service

# Every process that counts has a row of its own, and is its only writer.
FEEDS_ROW = 0
FIRST_HTTP_ROW = 1
DEVELOPMENT_ROW = MAX_WORKERS - 1  # manage.py runserver, beside a node or without one

PROBE_S = 2.0
BEAT_NS = 5_000_000_000  # the feed process beats every second


def node_services(
    settings: LazySettings, *, http: socket.socket, health: socket.socket, board: BoardReader
) -> Iterator[Service]:
    """Yield the services of one node in the order in which they start. The sockets are listening already."""
    manage = (sys.executable, str(settings.BASE_DIR / "manage.py"))
    http_port, health_port = http.getsockname()[1], health.getsockname()[1]
    # Port 0 lets the kernel choose: the children are told what it chose.
    ports = {"TRINITY_HTTP_PORT": str(http_port), "TRINITY_HEALTH_PORT": str(health_port)}

    if settings.TRINITY_SIMULATOR_URL:
        address = urlsplit(settings.TRINITY_SIMULATOR_URL)
        port = address.port or settings.TRINITY_SIMULATOR_PORT

        async def simulator_listens(pid: int) -> bool:
            return await accepts(address.hostname or "127.0.0.1", port)

        yield Service("simulator", (*manage, "runsimulator", "--port", str(port)), simulator_listens)

    async def feeds_beat(pid: int) -> bool:
        return board.writer_pid == pid and time.monotonic_ns() - board.heartbeat_mono_ns <= BEAT_NS

    yield Service("feeds", (*manage, "runfeeds"), feeds_beat, environment=ports)

    async def http_lives(pid: int) -> bool:
        return await answers(local_address(health), health_port, "/health/live")

    for number in range(settings.TRINITY_HTTP_WORKERS):
        command = ("runhttp", "--fd", str(http.fileno()), "--health-fd", str(health.fileno()))
        row = ("--row", str(FIRST_HTTP_ROW + number))
        yield Service(
            f"http-{number + 1}",
            (*manage, *command, *row),
            http_lives,
            environment=ports,
            descriptors=(http.fileno(), health.fileno()),
        )


def local_address(listening: socket.socket) -> str:
    """Return the address under which this machine reaches a listening socket of its own."""
    host: str = listening.getsockname()[0]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


async def accepts(host: str, port: int) -> bool:
    """Say whether somebody accepts connections there."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return True
    return False


async def answers(host: str, port: int, path: str) -> bool:
    """Say whether an HTTP GET there is answered with 200."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PROBE_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).split(b" ")[1:2] == [b"200"]
            finally:
                writer.close()
    return False
