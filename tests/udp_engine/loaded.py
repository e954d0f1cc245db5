"""Small servers on loopback for the stress client to load; what they answer is a function of the test."""

from __future__ import annotations

import re
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from typing import Self

ID = re.compile(rb'"id":"([0-9a-f]{8})"')
PRICE = b'{"asset":"BTC","price":"67123.45"}'


def echo(datagram: bytes, number: int) -> list[bytes]:
    """Answer with the request's id, where it has one."""
    found = ID.search(datagram)
    return [b'{"id":"%s",%s' % (found[1], PRICE[1:]) if found else PRICE]


def refusal(datagram: bytes, code: str) -> bytes:
    found = ID.search(datagram)
    assert found
    return b'{"id":"%s","error":"%s"}' % (found[1], code.encode())


class Server(threading.Thread):
    """A thread with one selector; it ends with the block."""

    kind: socket.SocketKind

    def __init__(self, family: socket.AddressFamily = socket.AF_INET) -> None:
        super().__init__(name="loaded server", daemon=True)
        self.socket = socket.socket(family, self.kind)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.socket.setblocking(False)
        self.address: tuple[str, int] = self.socket.getsockname()[:2]
        self.received = 0
        self.peers: set[tuple[str, int]] = set()
        self._selector = selectors.DefaultSelector()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._selector.register(self.socket, selectors.EVENT_READ, self.accept)
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]  # they are sockets
        self._selector.close()

    def run(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(0.02):
                key.data(key.fileobj)

    def accept(self, ready: socket.socket) -> None:
        raise NotImplementedError


class UdpServer(Server):
    """Sends what *answer* returns for a datagram and its number, from 0."""

    kind = socket.SOCK_DGRAM

    def __init__(
        self,
        answer: Callable[[bytes, int], Iterable[bytes]] = echo,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> None:
        super().__init__(family)
        self._answer = answer
        self.times: list[float] = []

    def accept(self, ready: socket.socket) -> None:
        try:
            datagram, peer = ready.recvfrom(4096)
        except BlockingIOError:
            return
        self.times.append(time.monotonic())
        self.peers.add(peer[:2])
        number, self.received = self.received, self.received + 1
        for reply in self._answer(datagram, number):
            ready.sendto(reply, peer)


class HttpServer(Server):
    """Sends the pieces that *answer* returns for a request's number; b"" resets, None closes."""

    kind = socket.SOCK_STREAM

    def __init__(self, answer: Callable[[int], Iterable[bytes | None]]) -> None:
        super().__init__()
        self.socket.listen(512)
        self._answer = answer
        self.connections = 0

    def accept(self, ready: socket.socket) -> None:
        connection, peer = ready.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        self.peers.add(peer)
        self._selector.register(connection, selectors.EVENT_READ, self.read)

    def read(self, connection: socket.socket) -> None:
        try:
            request = connection.recv(4096)
        except ConnectionResetError:
            request = b""
        if not request:
            return self.end(connection)
        number, self.received = self.received, self.received + 1
        for piece in self._answer(number):
            if not piece:
                if piece is not None:  # no lingering: the other side sees a reset
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return self.end(connection)
            connection.sendall(piece)

    def end(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()


def http_answer(body: bytes = PRICE, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body
