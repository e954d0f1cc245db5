"""Sockets on loopback: shared ports, buffers, what the kernel says of them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from udp_engine import sockets
from udp_engine.sockets import (
    buffers,
    cookie,
    enlarge,
    is_wildcard,
    kernel_drops,
    open_socket,
    open_sockets,
    own_address,
)

MAPPED = b"\0" * 10 + b"\xff\xff"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_sockets_share_a_port_and_do_not_block(stack: ExitStack) -> None:
    opened = [stack.enter_context(one) for one in open_sockets("127.0.0.1", 0, 3)]
    assert len({one.getsockname() for one in opened}) == 1
    with pytest.raises(BlockingIOError):
        opened[0].recv(1)


def test_port_that_somebody_shares_already_is_taken(stack: ExitStack) -> None:
    theirs = stack.enter_context(open_socket("127.0.0.1", 0))
    with pytest.raises(OSError) as raised:
        open_sockets("127.0.0.1", theirs.getsockname()[1], 2)
    assert raised.value.errno == errno.EADDRINUSE


def test_what_was_opened_is_closed_when_a_later_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    def open_two(host: str, port: int) -> socket.socket:
        if len(made) == 2:
            raise OSError(errno.EMFILE, "too many")
        made.append(open_socket(host, port))
        return made[-1]

    monkeypatch.setattr(sockets, "open_socket", open_two)
    with pytest.raises(OSError, match="too many"):
        open_sockets("127.0.0.1", 0, 3)
    assert [one.fileno() for one in made] == [-1, -1]


def test_address_of_another_machine_cannot_be_bound() -> None:
    with pytest.raises(OSError):
        open_socket("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.5", MAPPED + bytes([127, 0, 0, 5])),
        ("::1", b"\0" * 15 + b"\1"),
        ("::ffff:127.0.0.1", MAPPED + bytes([127, 0, 0, 1])),
    ],
)
def test_own_address_is_known(stack: ExitStack, host: str, address: bytes) -> None:
    opened = stack.enter_context(open_socket(host, 0))
    assert own_address(opened) == (address, opened.getsockname()[1])
    assert not is_wildcard(opened)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_socket_that_is_bound_to_every_address_is_told_apart(stack: ExitStack, host: str) -> None:
    assert is_wildcard(stack.enter_context(open_socket(host, 0)))


def test_buffers_are_told_as_they_were_asked_for(stack: ExitStack) -> None:
    opened = stack.enter_context(open_socket("127.0.0.1", 0))
    assert enlarge(opened, 100_000) == buffers(opened) == (100_000, 100_000)


def test_buffers_of_who_may_not_force_are_what_the_system_allows(stack: ExitStack) -> None:
    class Plain(socket.socket):
        def setsockopt(self, level: int, name: int, value: int) -> None:  # type: ignore[override]  # one form
            if name in (sockets.SO_RCVBUFFORCE, sockets.SO_SNDBUFFORCE):
                raise PermissionError
            super().setsockopt(level, name, value)

    opened = stack.enter_context(Plain(socket.AF_INET, socket.SOCK_DGRAM))
    limits = [int(Path(f"/proc/sys/net/core/{name}mem_max").read_text()) for name in "rw"]
    assert list(enlarge(opened, max(limits) + 1_000_000)) == limits


def test_kernel_tells_what_a_silent_socket_has_lost(stack: ExitStack) -> None:
    opened = stack.enter_context(open_socket("127.0.0.1", 0))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    assert kernel_drops(opened) == 0
    for _ in range(100):
        client.sendto(bytes(500), opened.getsockname())
    waiting = 0
    while True:
        try:
            opened.recv(1_000)
        except BlockingIOError:
            break
        waiting += 1
    assert waiting + kernel_drops(opened) == 100
    assert kernel_drops(opened) == drops_in_proc(opened) > 0


def drops_in_proc(opened: socket.socket) -> int:
    (line,) = [
        line
        for line in Path("/proc/net/udp").read_text().splitlines()
        if f":{opened.getsockname()[1]:04X} " in line.split(" rem")[0]
    ]
    return int(line.split()[-1])


def test_each_socket_has_a_number_of_its_own(stack: ExitStack) -> None:
    opened = [stack.enter_context(one) for one in open_sockets("127.0.0.1", 0, 2)]
    first, second = map(cookie, opened)
    assert first != second
    assert cookie(stack.enter_context(opened[0].dup())) == first  # the socket's, not the descriptor's


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_kernel_says_which_address_was_asked(stack: ExitStack, host: str) -> None:
    opened = stack.enter_context(open_socket(host, 0))
    sockets.tell_address(opened)
    client = stack.enter_context(socket.socket(opened.family, socket.SOCK_DGRAM))
    asked = "::1" if ":" in host else "127.0.0.5"
    client.sendto(b"x", (asked, opened.getsockname()[1]))
    _, controls, _, _ = opened.recvmsg(10, 100)
    ((_, _, told),) = controls
    assert socket.inet_pton(opened.family, asked) in told
