"""A UDP server on loopback that answers as a test says, in a thread of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import msgspec

Respond: TypeAlias = Callable[[bytes, tuple[str, int]], Iterable[bytes]]
POLL_S = 0.05


class Server:
    """Sends what *respond* makes of each datagram; `datagrams` and `requests` are what came."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.datagrams: list[bytes] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(POLL_S)
        self.port: int = self.socket.getsockname()[1]
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="udp-server", daemon=True)
        self._thread.start()

    @property
    def requests(self) -> list[dict[str, Any]]:  # Any: JSON
        return [msgspec.json.decode(datagram) for datagram in self.datagrams]

    def _serve(self) -> None:
        while not self._ends.is_set():
            try:
                datagram, address = self.socket.recvfrom(65_535)
            except TimeoutError:
                continue
            self.datagrams.append(datagram)
            for reply in self.respond(datagram, address):
                self.socket.sendto(reply, address)

    def close(self) -> None:
        self._ends.set()
        self._thread.join()
        self.socket.close()


@contextmanager
def serving(respond: Respond) -> Iterator[Server]:
    server = Server(respond)
    try:
        yield server
    finally:
        server.close()
