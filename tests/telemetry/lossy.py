"""A way to PostgreSQL that breaks at the COMMIT: before the server has it, or after it has been done."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Literal, Self

Loss = Literal["request", "reply"]


class LossyProxy:
    """Passes everything on, until `lose` is set: then the next COMMIT breaks its connection, once."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.lose: Loss | None = None
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(self._server)
            self._sockets += client, server
            swallow = threading.Event()
            for pump in (self._requests, self._replies):
                self._threads.append(threading.Thread(target=pump, args=(client, server, swallow)))
                self._threads[-1].start()

    def _requests(self, client: socket.socket, server: socket.socket, swallow: threading.Event) -> None:
        while data := receive(client):
            if self.lose and b"COMMIT" in data:
                loss, self.lose = self.lose, None
                if loss == "request":
                    break
                swallow.set()
            server.sendall(data)
        if not swallow.is_set():  # else the reply comes first
            shut(client, server)

    def _replies(self, client: socket.socket, server: socket.socket, swallow: threading.Event) -> None:
        while data := receive(server):
            if swallow.is_set():
                break
            client.sendall(data)
        shut(client, server)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Every connection through it must be closed by now."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()


def receive(sender: socket.socket) -> bytes:
    try:
        return sender.recv(65_536)
    except OSError:
        return b""


def shut(*sockets: socket.socket) -> None:
    for one in sockets:
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other side was quicker
            continue
