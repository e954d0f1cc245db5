"""The check of the buffer that the kernel gives."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from django.core.checks import run_checks

from udp_engine import checks
from udp_engine.checks import check_buffer
from udp_engine.parameters import Parameters
from udp_engine.sockets import Buffers

WANTED = Parameters().buffer_bytes


@pytest.fixture(autouse=True)
def workers(settings: Any) -> None:  # Any: the plugin's wrapper of Django's settings
    settings.TRINITY_UDP_WORKERS = 2


def give(monkeypatch: pytest.MonkeyPatch, receive_bytes: int) -> None:
    def given(opened: socket.socket, wanted_bytes: int) -> Buffers:
        assert wanted_bytes == WANTED
        return Buffers(receive_bytes, wanted_bytes)

    monkeypatch.setattr(checks, "enlarge", given)


def test_smaller_buffer_is_a_warning_that_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, 4_194_304)
    (warning,) = [found for found in run_checks() if (found.id or "").startswith("udp_engine")]
    assert warning.id == "udp_engine.W001"
    assert "4,194,304 bytes, not 33,554,432" in warning.msg
    assert f"net.core.rmem_max={WANTED}" in (warning.hint or "")


def test_buffer_as_asked_for_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, WANTED)
    assert check_buffer() == []


def test_node_without_the_engine_is_not_looked_at(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.TRINITY_UDP_WORKERS = 0
    give(monkeypatch, 1)
    assert check_buffer() == []


def test_where_no_socket_can_be_made_the_check_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: str, port: int) -> socket.socket:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(checks, "open_socket", refuse)
    assert check_buffer() == []
