"""What a node runs: its services in order, and their counters rows."""

import socket
import sys
from collections.abc import Iterator, Sequence

from django.conf import LazySettings

from telemetry._counters import MAX_WORKERS
from trinity_site.children import START_S, Service

# Every process that counts has a row of its own, and is its only writer.
FEEDS_ROW = 0
FIRST_HTTP_ROW = 1
FIRST_UDP_ROW = 32
MOST_WORKERS = 31  # of each kind
QUEUE_SILENT_S = 300.0  # a worker says nothing while it writes, or deletes what is old
DEVELOPMENT_ROW = MAX_WORKERS - 1  # manage.py runserver, beside a node or without one


def manage(settings: LazySettings) -> tuple[str, ...]:
    return sys.executable, str(settings.BASE_DIR / "manage.py")


def udp_services(
    settings: LazySettings, opened: Sequence[socket.socket], *, spare: bool = False
) -> Iterator[Service]:
    """Yield a worker for each of the bound sockets, which outlive the workers.

    They count in the first rows, or in *spare* ones, which the node itself does not use.
    """
    for number, one in enumerate(opened):
        command = ["runudp", "--fd", str(one.fileno()), "--workers", str(len(opened))]
        if not spare:
            command += ["--row", str(FIRST_UDP_ROW + number)]
        if settings.TRINITY_UDP_PINNED:
            command += ["--cpu", str(settings.TRINITY_CORES[number % len(settings.TRINITY_CORES)])]
        yield Service(
            f"udp-{number + 1}",
            (*manage(settings), *command),
            descriptors=(one.fileno(),),
            start_s=0.0 if number else START_S,
            rolls=True,
        )


def usage_services(settings: LazySettings) -> Iterator[Service]:
    """Yield what brings usage into the database: workers of the queue where there is one, and the shipper.

    They stop in reverse order after all who answer: the shipper sends what these have left, then the
    workers write it.
    """
    for number in range(settings.TRINITY_QUEUE_WORKERS if settings.CELERY_BROKER_URL else 0):
        command = ("runcelery", "--beat") if number == 0 else ("runcelery",)  # one of them keeps the tables
        whole = (*manage(settings), *command)
        yield Service(f"queue-{number + 1}", whole, start_s=0.0, silent_s=QUEUE_SILENT_S)
    yield Service("shipper", (*manage(settings), "runshipper"))


def node_services(
    settings: LazySettings, *, http: socket.socket, health: socket.socket, udp: Sequence[socket.socket]
) -> Iterator[Service]:
    """Yield the services of one node in the order in which they start. The sockets are bound already."""
    # Port 0 lets the kernel choose: the children are told what it chose.
    ports = {
        "TRINITY_HTTP_PORT": str(http.getsockname()[1]),
        "TRINITY_HEALTH_PORT": str(health.getsockname()[1]),
    }
    if udp:
        ports["TRINITY_UDP_PORT"] = str(udp[0].getsockname()[1])
    if settings.TRINITY_SIMULATOR_URL:
        yield Service("simulator", (*manage(settings), "runsimulator"))
    yield Service("feeds", (*manage(settings), "runfeeds"), environment=ports)
    yield Service("keyring", (*manage(settings), "runkeyring"))
    yield from usage_services(settings)
    for number in range(settings.TRINITY_HTTP_WORKERS):
        command = ("runhttp", "--fd", str(http.fileno()), "--health-fd", str(health.fileno()))
        row = ("--row", str(FIRST_HTTP_ROW + number))
        yield Service(
            f"http-{number + 1}",
            (*manage(settings), *command, *row),
            environment=ports,
            descriptors=(http.fileno(), health.fileno()),
            start_s=0.0 if number else START_S,  # up as soon as one of them answers
            rolls=True,
        )
    yield from udp_services(settings, udp)
