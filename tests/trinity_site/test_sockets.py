"""Listening sockets, and what people are told about them."""

import socket

import pytest
from django.core.management.base import CommandError

from trinity_site.sockets import adopt, listen, shown_address


def test_taken_port_is_named_with_its_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=rf"Port {port} is taken .*: SOME_PORT=\d+ \./run demo$"):
            listen("127.0.0.1", port, "SOME_PORT", "./run demo")


@pytest.mark.parametrize(("port", "another"), [(8080, 9080), (64_535, 65_535), (64_536, 63_536)])
def test_port_that_is_proposed_exists(port: int, another: int) -> None:
    with pytest.raises(CommandError, match=f"SOME_PORT={another} "):
        listen("192.0.2.1", port, "SOME_PORT", "./run up")


def test_address_that_is_not_ours_is_an_error_in_words() -> None:
    with pytest.raises(CommandError, match="cannot be opened"):
        listen("192.0.2.1", 0, "SOME_PORT", "./run up")


def test_inherited_socket_is_taken_over() -> None:
    listening = listen("127.0.0.1", 0, "SOME_PORT", "./run up")
    address = listening.getsockname()
    taken = adopt(listening.detach())
    assert taken is not None
    assert taken.getsockname() == address
    taken.close()
    assert adopt(None) is None


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "localhost"),
        ("0.0.0.0", "localhost"),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "[::1]"),
        ("::", "[::1]"),
    ],
)
def test_address_is_shown_as_it_can_be_reached(host: str, shown: str) -> None:
    with listen(host, 0, "SOME_PORT", "./run up") as listening:
        assert shown_address(listening) == f"http://{shown}:{listening.getsockname()[1]}"
