"""Replies over a path whose packets are shorter than one reply: the kernel cuts no groups up for it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.udp_engine.live import Live, request, without_age

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2"
)
HERE, THERE = f"trinity-{os.getpid()}-a", f"trinity-{os.getpid()}-b"
OURS, THEIRS = "10.213.7.1", "10.213.7.2"
MTU = 100

libc = ctypes.CDLL(None, use_errno=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Sockets made meanwhile by this thread belong to *namespace*, and stay there."""
    with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{namespace}") as other:
        assert libc.setns(other.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), 0) == 0


@pytest.fixture
def path() -> Iterator[None]:
    """Two namespaces with a narrow path between them; gone in the end with all that is in them."""
    try:
        for namespace in (HERE, THERE):
            ip("netns", "add", namespace)
        ip("-n", HERE, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", THERE)
        for namespace, address in ((HERE, OURS), (THERE, THEIRS)):
            ip("-n", namespace, "address", "add", f"{address}/24", "dev", "veth0")
            ip("-n", namespace, "link", "set", "veth0", "mtu", str(MTU), "up")
        yield
    finally:
        for namespace in (HERE, THERE):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)


def test_path_too_narrow_for_groups_gets_single_replies_and_is_left_in_peace(path: None) -> None:
    names = [str(number) for number in range(8)]
    with inside(HERE):
        live = Live(OURS)
    with live:
        with inside(THERE):
            client = live.client(THEIRS)
        for turn in (1, 2):
            replies = live.ask(client, *[request(id=name) for name in names])
            assert {without_age(reply) for reply in replies} == {live.told(name) for name in names}
            assert len(replies[0]) > MTU
            assert (live.batch.refused_groups, live.batch.grouped) == (1, 0)  # groups pause
            assert (live.account().sent, live.account().difference) == (8 * turn, 0)
