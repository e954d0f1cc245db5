"""Listening sockets: opened, taken over from the supervisor, shown to people."""

import errno
import socket

from django.core.management.base import CommandError

BACKLOG = 2048


def listen(host: str, port: int, variable: str, command: str = "up") -> socket.socket:
    """Listen on *port*; CommandError that names *variable* when that cannot be."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            problem = f"Port {port} is taken by another program"
        else:
            problem = f"Port {port} on {host} cannot be opened ({error.strerror})"
        remedy = f"{variable}={port + 1000} ./run {command}"
        raise CommandError(f"{problem}. Choose another one: {remedy}") from error


def adopt(descriptor: int | None) -> socket.socket | None:
    """Take over a listening socket that was inherited."""
    return None if descriptor is None else socket.socket(fileno=descriptor)


def shown_address(listening: socket.socket) -> str:
    """Return a listening socket as the address under which this machine reaches it."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "localhost", "127.0.0.1": "localhost", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
