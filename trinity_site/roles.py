"""What a node runs: its services in order, and their counters rows."""

import socket
import sys
from collections.abc import Iterator

from django.conf import LazySettings

from telemetry._counters import MAX_WORKERS
from trinity_site.supervisor import START_S, Service

# Every process that counts has a row of its own, and is its only writer.
FEEDS_ROW = 0
FIRST_HTTP_ROW = 1
DEVELOPMENT_ROW = MAX_WORKERS - 1  # manage.py runserver, beside a node or without one


def node_services(settings: LazySettings, *, http: socket.socket, health: socket.socket) -> Iterator[Service]:
    """Yield the services of one node in the order in which they start. The sockets are listening already."""
    manage = (sys.executable, str(settings.BASE_DIR / "manage.py"))
    # Port 0 lets the kernel choose: the children are told what it chose.
    ports = {
        "TRINITY_HTTP_PORT": str(http.getsockname()[1]),
        "TRINITY_HEALTH_PORT": str(health.getsockname()[1]),
    }
    if settings.TRINITY_SIMULATOR_URL:
        yield Service("simulator", (*manage, "runsimulator"))
    yield Service("feeds", (*manage, "runfeeds"), environment=ports)
    yield Service("keyring", (*manage, "runkeyring"))
    for number in range(settings.TRINITY_HTTP_WORKERS):
        command = ("runhttp", "--fd", str(http.fileno()), "--health-fd", str(health.fileno()))
        row = ("--row", str(FIRST_HTTP_ROW + number))
        yield Service(
            f"http-{number + 1}",
            (*manage, *command, *row),
            environment=ports,
            descriptors=(http.fileno(), health.fileno()),
            start_s=0.0 if number else START_S,  # up as soon as one of them answers
        )
