"""What the kernel may do to a batch: `test_faults.py` runs these tests with `faults.c` before the kernel."""

from __future__ import annotations

import asyncio
import ctypes
import enum
import errno
import os
import time
from collections.abc import Iterator

import pytest

from tests.udp_engine.live import Live, request
from tests.udp_engine.working import PricesDouble, make_worker, replies, until, working
from udp_engine import worker

RECEIVE, SEND = 0, 1
FOREVER = -1


class Do(enum.IntEnum):
    """As in faults.c."""

    PASS, AT_MOST, FAIL, FAIL_GROUP, FAIL_PORT = range(5)


kernel = ctypes.CDLL(os.environ["LD_PRELOAD"])


def plan(call: int, do: Do, value: int = 0, times: int = 1) -> None:
    kernel.faults_plan(call, do, value, times)


@pytest.fixture
def live() -> Iterator[Live]:
    kernel.faults_forget()
    with Live() as live:
        yield live
        assert live.account().difference == 0
    assert kernel.faults_stale() == 0


def numbered(count: int) -> list[bytes]:
    return [request(id=str(number)) for number in range(count)]


def ids(found: list[bytes]) -> list[int]:
    return [int(reply.split(b'"', 4)[3]) for reply in found]


# ---- sending


def test_partial_sends_are_resumed_in_order(live: Live) -> None:
    clients = [live.client() for _ in range(8)]
    plan(SEND, Do.AT_MOST, 1, 3)
    plan(SEND, Do.AT_MOST, 2, 2)
    for datagram in numbered(5):
        for client in clients:
            live.send(client, datagram)
    live.drain()
    assert [ids(client.replies(5)) for client in clients] == [[0, 1, 2, 3, 4]] * 8
    assert live.account().sent == 40


def test_full_buffer_once_is_resumed(live: Live) -> None:
    client = live.client()
    plan(SEND, Do.FAIL, errno.EAGAIN)
    live.send(client, *numbered(10))
    assert live.batch.drain() == []
    assert live.batch.is_blocked
    assert (live.account().sent, client.rest()) == (0, [])
    assert live.batch.resume()
    assert not live.batch.is_blocked
    assert ids(client.replies(10)) == list(range(10))


def test_full_buffer_for_long_reads_nothing_more(live: Live) -> None:
    first, second = live.client(), live.client()
    plan(SEND, Do.AT_MOST, 1)
    plan(SEND, Do.FAIL, errno.EAGAIN, 4)
    live.send(first, request(id="1"))
    live.send(second, request(id="2"))
    live.batch.drain()
    received = kernel.faults_calls(RECEIVE)
    for _ in range(3):
        live.send(first, request(id="3"))
        assert live.batch.drain() == []
        assert live.batch.is_blocked
    assert kernel.faults_calls(RECEIVE) == received
    live.drain()
    assert (ids(first.replies(4)), ids(second.replies(1))) == ([1, 3, 3, 3], [2])
    assert (live.account().received, live.account().sent) == (5, 5)


def test_what_stays_blocked_is_given_up_and_counted(live: Live) -> None:
    plan(SEND, Do.FAIL, errno.EAGAIN, FOREVER)
    live.send(live.client(), *numbered(10))
    live.send(live.client(), request("unknown"))
    live.batch.drain()
    assert live.batch.abandon() == 11
    assert not live.batch.is_blocked
    assert live.account().drops == {"unsent": 11}


def test_reply_that_one_client_cannot_get_is_counted_and_others_get_theirs(live: Live) -> None:
    clients = [live.client() for _ in range(3)]
    plan(SEND, Do.FAIL_PORT, clients[1].getsockname()[1], FOREVER)
    for client in clients:
        live.send(client, request())
    live.drain()
    assert [len(client.rest()) for client in clients] == [1, 0, 1]
    assert live.account().drops == {"unsent": 1}


def test_group_to_a_client_that_cannot_get_it_is_counted_reply_by_reply(live: Live) -> None:
    good, bad = live.client(), live.client()
    plan(SEND, Do.FAIL_PORT, bad.getsockname()[1], FOREVER)
    live.send(bad, *numbered(5))
    live.send(good, *numbered(5))
    live.drain()
    assert (ids(good.replies(5)), bad.rest()) == ([0, 1, 2, 3, 4], [])
    assert live.account().drops == {"unsent": 5}
    live.send(good, *numbered(5))
    live.drain()
    assert live.batch.grouped == 5  # nothing was wrong with groups


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP])
def test_path_that_refuses_groups_gets_single_replies(live: Live, code: int) -> None:
    """EIO: a device that cannot compute the checksums of the pieces."""
    clients = [live.client() for _ in range(3)]
    plan(SEND, Do.FAIL_GROUP, code, FOREVER)
    for datagram in numbered(6):
        for client in clients:
            live.send(client, datagram)
    live.drain()
    for client in clients:
        assert sorted(ids(client.replies(6))) == list(range(6))
    assert (live.batch.refused_groups, live.batch.grouped) == (1, 0)
    kernel.faults_forget()  # the path is good again, and is not believed at once
    live.send(clients[0], *numbered(6))
    live.drain()
    assert len(clients[0].replies(6)) == 6
    assert (live.batch.refused_groups, live.batch.grouped) == (1, 0)


def test_group_refused_after_others_have_left_repeats_none(live: Live) -> None:
    clients = [live.client() for _ in range(3)]
    for datagram in numbered(4):
        live.send(clients[0], datagram)
        live.send(clients[1], datagram)
    live.send(clients[2], request(id="9"))
    plan(SEND, Do.AT_MOST, 1)  # the first group
    plan(SEND, Do.FAIL_GROUP, errno.EIO)
    live.drain()
    assert [sorted(ids(client.rest())) for client in clients] == [[0, 1, 2, 3], [0, 1, 2, 3], [9]]
    assert (live.batch.grouped, live.account().sent) == (4, 9)


def test_interrupted_send_is_tried_again(live: Live) -> None:
    client = live.client()
    plan(SEND, Do.FAIL, errno.EINTR, 3)
    live.send(client, *numbered(3))
    live.drain()
    assert ids(client.replies(3)) == [0, 1, 2]


def test_late_answer_is_tried_again_when_interrupted_and_counted_when_refused(live: Live) -> None:
    client = live.client()
    live.send(client, request(asset="ETH"), request(asset="ETH"))
    one, other = live.drain()
    plan(SEND, Do.FAIL, errno.EINTR, 2)
    assert live.batch.answer(one, b"late")
    plan(SEND, Do.FAIL, errno.EAGAIN)
    assert not live.batch.answer(other, b"late")
    assert client.replies(1) == [b"late"]
    assert live.account().drops == {"unsent": 1}


# ---- receiving


def test_partial_and_interrupted_receives_lose_nothing(live: Live) -> None:
    client = live.client()
    live.send(client, *numbered(20))
    plan(RECEIVE, Do.AT_MOST, 3, 2)
    plan(RECEIVE, Do.FAIL, errno.EINTR)
    plan(RECEIVE, Do.AT_MOST, 1, 5)
    live.drain()
    assert ids(client.replies(20)) == list(range(20))
    assert live.account().received == 20


def test_error_after_a_batch_loses_none_of_its_questions(live: Live) -> None:
    client = live.client()
    live.send(client, *[request(asset="ETH"), request()] * 32, request())
    plan(RECEIVE, Do.PASS)
    plan(RECEIVE, Do.FAIL, errno.ENOMEM)
    questions = live.batch.drain()
    assert len(questions) == 32
    assert len([live.batch.answer(question, b"late") for question in questions]) == 32
    live.drain()
    assert len(client.replies(65)) == 65


def test_error_before_anything_was_read_is_raised(live: Live) -> None:
    plan(RECEIVE, Do.FAIL, errno.ENOMEM)
    with pytest.raises(OSError, match="Cannot allocate") as raised:
        live.batch.drain()
    assert raised.value.errno == errno.ENOMEM


# ---- a worker


async def test_blocked_worker_stops_reading_and_goes_on(live: Live) -> None:
    client = live.client()
    async with working(live, PricesDouble()):
        plan(SEND, Do.FAIL, errno.EAGAIN, 5)
        live.send(client, *numbered(3))
        assert ids(await replies(client, 3)) == [0, 1, 2]
        live.send(client, *numbered(3))
        assert ids(await replies(client, 3)) == [0, 1, 2]
        assert not asyncio.get_running_loop().remove_writer(live.socket)
    assert live.account().drops == {}


async def test_worker_that_is_blocked_when_it_stops_counts_what_it_leaves(live: Live) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(make_worker(live, PricesDouble()).run(stop))
    plan(SEND, Do.FAIL, errno.EAGAIN, FOREVER)
    live.send(live.client(), *numbered(7))
    await until(lambda: live.account().received == 7)
    stop.set()
    await running
    assert live.account().drops == {"unsent": 7}
    assert not asyncio.get_running_loop().remove_writer(live.socket)


async def test_worker_waits_a_little_after_an_error_and_reads_on(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "PAUSE_S", 0.05)
    client = live.client()
    plan(RECEIVE, Do.FAIL, errno.ENOMEM, 3)
    live.send(client, request())
    async with working(live, PricesDouble()):
        assert len(await replies(client, 1)) == 1
        assert kernel.faults_calls(RECEIVE) < 6
    assert caplog.text.count("Reading the socket failed") == 1


# ---- clocks


@pytest.mark.parametrize("which", range(1, 6))
def test_no_record_is_later_than_its_answer_wherever_the_processor_is_lost(live: Live, which: int) -> None:
    client = live.client()
    live.send(client, request())
    kernel.faults_pause(which, 5_000_000)
    live.batch.drain()
    now_ns = time.time_ns()
    assert len(client.replies(1)) == 1
    (log,) = live.spool.take()
    assert log.time_ns <= now_ns
