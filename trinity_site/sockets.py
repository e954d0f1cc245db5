"""Listening sockets: opened, taken over from the supervisor, shown to people."""

import errno
import socket

from django.conf import LazySettings
from django.core.management.base import CommandError

from udp_engine.parameters import Parameters
from udp_engine.sockets import enlarge, open_sockets

BACKLOG = 2048
HIGHEST_PORT = 65_535


def listen(host: str, port: int, variable: str, command: str) -> socket.socket:
    """Listen on *port*; CommandError when that cannot be: set *variable* and type *command* again."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise _taken(host, port, variable, command, error) from error


def listen_udp(
    settings: LazySettings, count: int, command: str, variable: str = "TRINITY_UDP_PORT"
) -> list[socket.socket]:
    """Bind *count* sockets that share a UDP port, with large buffers; CommandError when that cannot be."""
    host, port = settings.TRINITY_UDP_BIND or settings.TRINITY_BIND, getattr(settings, variable)
    try:
        opened = open_sockets(host, port, count)
        for one in opened:
            enlarge(one, Parameters().buffer_bytes)
    except OSError as error:
        raise _taken(host, port, variable, command, error) from error
    return opened


def _taken(host: str, port: int, variable: str, command: str, error: OSError) -> CommandError:
    if error.errno == errno.EADDRINUSE:
        problem = f"Port {port} is taken by another program"
    else:
        problem = f"Port {port} on {host} cannot be opened ({error.strerror})"
    another = port + 1000 if port + 1000 <= HIGHEST_PORT else port - 1000
    return CommandError(f"{problem}. Choose another one: {variable}={another} {command}")


def adopt(descriptor: int | None) -> socket.socket | None:
    """Take over a listening socket that was inherited."""
    return None if descriptor is None else socket.socket(fileno=descriptor)


def shown_address(listening: socket.socket) -> str:
    """Return a listening socket as the address under which this machine reaches it."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "localhost", "127.0.0.1": "localhost", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
