"""What every process does alike."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator

import pytest

from telemetry import running
from telemetry.running import happens, repeat, say_ready, stop_on_signals, wait_to_begin

REPEATED = "Reading failed; it is tried again and again"


async def test_failing_act_is_repeated_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    calls, enough = 0, asyncio.Event()

    async def act() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            enough.set()
        raise ValueError("the table is gone")

    task = asyncio.create_task(repeat(act, 0.001, "Reading"))
    assert await happens(enough, 5.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.getMessage() for record in caplog.records] == [REPEATED]
    assert "the table is gone" in caplog.text


async def test_cancelled_act_ends_the_repetition(caplog: pytest.LogCaptureFixture) -> None:
    async def act() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(repeat(act, 0.001, "Waiting"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not caplog.records


async def test_event_is_waited_for_only_so_long() -> None:
    event = asyncio.Event()
    assert not await happens(event, 0.01)
    event.set()
    assert await happens(event, 0.0)


async def test_readiness_is_a_byte_and_more_follow_while_the_loop_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "BEAT_S", 0.01)
    async with pipe() as (ours, its):
        say_ready(its)
        assert os.read(ours, 10) == b"1"
        for _ in range(3):
            await readable(ours)
            assert os.read(ours, 1) == b"1"


async def test_nobody_who_reads_no_beats_holds_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BEAT_S", 0.001)
    async with pipe() as (ours, its):
        os.set_blocking(its, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(its, b"x" * 4096)
        say_ready(its)
        await asyncio.sleep(0.01)
        while os.read(ours, 65_536).endswith(b"x"):  # it goes on once there is room
            await readable(ours)


async def test_beats_end_when_the_supervisor_is_gone() -> None:
    ours, its = os.pipe()
    os.close(ours)
    say_ready(its)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(its)


def test_process_that_nobody_supervises_says_nothing() -> None:
    say_ready(None)


@contextlib.asynccontextmanager
async def pipe() -> AsyncIterator[tuple[int, int]]:
    ours, its = os.pipe()
    yield ours, its
    os.close(ours)
    with contextlib.suppress(OSError):
        while os.fstat(its):  # noqa: ASYNC110 (until a beat finds that nobody reads, and closes it)
            await asyncio.sleep(0.01)


async def readable(descriptor: int) -> None:
    news, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(descriptor, news.set)
    try:
        assert await happens(news, 5.0)
    finally:
        loop.remove_reader(descriptor)


async def test_first_signal_stops_and_the_second_has_its_ordinary_effect() -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await happens(stop, 5.0)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_waiting_process_says_that_it_lives_and_begins_when_the_pipe_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "BEAT_S", 0.005)
    signs, ready = os.pipe()
    go, let_go = os.pipe()
    waiting = threading.Thread(target=wait_to_begin, args=(ready, go))
    waiting.start()
    assert [os.read(signs, 1) for _ in range(3)] == [b"1"] * 3
    assert waiting.is_alive()
    os.close(let_go)
    waiting.join()
    for descriptor in (signs, ready):
        os.close(descriptor)


def test_process_that_nobody_asked_to_wait_begins_at_once() -> None:
    wait_to_begin(None, None)
