"""What every process does alike."""

import asyncio
import os
import signal

import pytest

from telemetry.running import happens, repeat, say_ready, stop_on_signals

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


def test_readiness_is_a_byte_and_the_end() -> None:
    ours, its = os.pipe()
    say_ready(its)
    assert [os.read(ours, 10), os.read(ours, 10)] == [b"1", b""]
    os.close(ours)


def test_readiness_that_nobody_waits_for_is_no_error() -> None:
    ours, its = os.pipe()
    os.close(ours)
    say_ready(its)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(its)
    say_ready(None)


async def test_first_signal_stops_and_the_second_has_its_ordinary_effect() -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await happens(stop, 5.0)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
