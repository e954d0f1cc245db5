"""Listening sockets: opened, taken over from the supervisor, shown to people."""

import errno
import socket

from django.core.management.base import CommandError

BACKLOG = 2048
HIGHEST_PORT = 65_535


def listen(host: str, port: int, variable: str, command: str) -> socket.socket:
    """Listen on *port*; CommandError when that cannot be: set *variable* and type *command* again."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            problem = f"Port {port} is taken by another program"
        else:
            problem = f"Port {port} on {host} cannot be opened ({error.strerror})"
        another = port + 1000 if port + 1000 <= HIGHEST_PORT else port - 1000
        raise CommandError(f"{problem}. Choose another one: {variable}={another} {command}") from error


def adopt(descriptor: int | None) -> socket.socket | None:
    """Take over a listening socket that was inherited."""
    return None if descriptor is None else socket.socket(fileno=descriptor)


def shown_address(listening: socket.socket) -> str:
    """Return a listening socket as the address under which this machine reaches it."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "localhost", "127.0.0.1": "localhost", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
