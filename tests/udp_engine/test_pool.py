"""Loads in other processes count as one, and end with the pool."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.udp_engine.loaded import HttpServer, UdpServer
from udp_engine._load import HTTP, UDP, Load, Reading
from udp_engine.pool import Making, Pool, merge, shares

REQUEST = b'{"id":"00000000","asset":"BTC"}'


@contextlib.contextmanager
def pool_of(server: UdpServer, processes: int, most: int = 8) -> Iterator[Pool]:
    with contextlib.closing(Pool(Making(UDP, server.address, [REQUEST], most, 1, 2_000), processes)) as pool:
        yield pool


@given(st.integers(0, 100_000), st.integers(1, 16))
def test_shares_are_even_and_add_up(count: int, parts: int) -> None:
    divided = shares(count, parts)
    assert sum(divided) == count
    assert max(divided) - min(divided) <= 1


def test_readings_are_merged_member_by_member() -> None:
    with contextlib.closing(Load(UDP, ("127.0.0.1", 9), [REQUEST], most=1)) as load:
        nothing = load.reading()
    times = array("Q", nothing.latencies)
    times[7] = 2
    one = nothing._replace(
        sent=5,
        answered=2,
        errors={"a": 1, "b": 1},
        lost=1,
        sending_ns=10,
        longest_ns=3,
        latencies=times.tobytes(),
    )
    other = one._replace(sent=7, errors={"b": 2}, sending_ns=8, longest_ns=9)
    both = merge([one, other])
    assert (both.sent, both.answered, both.lost) == (12, 4, 2)
    assert both.errors == {"a": 1, "b": 3}
    assert (both.sending_ns, both.longest_ns) == (10, 9)
    assert array("Q", both.latencies)[7] == 4


def test_two_processes_share_the_sockets_and_nothing_is_lost_between_them() -> None:
    told: list[Reading] = []

    def progress(reading: Reading) -> bool:
        told.append(reading)
        return True

    with UdpServer() as server, pool_of(server, 2) as pool:
        pool.grow(5)
        reading = pool.run(0.3, 0.0, progress)
        assert reading.sent == reading.answered == server.received
        assert len(server.peers) == 5
        assert told[-1] == reading
        paced = pool.run(0.2, 1_000.0, progress)
        assert paced.sent == paced.answered == 200


def test_progress_that_says_no_stops_the_run() -> None:
    with UdpServer() as server, pool_of(server, 2) as pool:
        pool.grow(2)
        began_s = time.monotonic()
        reading = pool.run(60.0, 0.0, lambda reading: reading.answered < 10)
        assert time.monotonic() - began_s < 10
        assert reading.sent == reading.answered == server.received


def test_failure_in_the_other_process_is_raised_here() -> None:
    with HttpServer(lambda number: []) as server:
        address = server.address
    making = Making(HTTP, address, [b"GET / HTTP/1.1\r\n\r\n"], 4, 1, 2_000)
    with contextlib.closing(Pool(making)) as pool, pytest.raises(ConnectionRefusedError):
        pool.grow(4)


def test_process_that_is_killed_is_told() -> None:
    with UdpServer() as server, pool_of(server, 1) as pool:
        pool.grow(1)
        process = pool._processes[0]
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(OSError):
            pool.run(5.0, 0.0, lambda reading: True)


def test_closing_ends_the_processes_and_twice_is_harmless() -> None:
    with UdpServer() as server:
        pool = Pool(Making(UDP, server.address, [REQUEST], 2, 1, 2_000), 2)
        processes = list(pool._processes)
        pool.close()
        pool.close()
        assert [process.exitcode for process in processes] == [0, 0]


def test_key_is_in_no_command_line() -> None:
    with UdpServer() as server:
        secret = b'{"api_key":"tb_live_secret"}'
        with contextlib.closing(Pool(Making(UDP, server.address, [secret], 2, 1, 2_000))) as pool:
            pid = pool._processes[0].pid
            for name in ("cmdline", "environ"):
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    assert b"tb_live_secret" not in file.read()
