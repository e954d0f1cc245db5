"""What every process of a node does alike: repeat, wait, say that it is alive, leave on a signal."""

import asyncio
import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Awaitable, Callable

from telemetry.seldom import Seldom

logger = logging.getLogger(__name__)

BEAT_S = 1.0  # a process that stays silent for ten of them is killed, see trinity_site/supervisor.py


async def repeat(act: Callable[[], Awaitable[None]], period_s: float, name: str) -> None:
    """Do *act* until cancelled, *period_s* apart. What it raises is logged once a minute and ends nothing."""
    may_log = Seldom(time.monotonic_ns)
    while True:
        try:
            await act()
        except Exception:
            if may_log():
                logger.exception("%s failed; it is tried again and again", name)
        await asyncio.sleep(period_s)


async def happens(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for *event*, at most so long, and say whether it is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
    return event.is_set()


def wait_to_begin(ready: int | None, go: int | None) -> None:
    """Say that this process could begin, and wait until the one before it has left: *go* is closed then."""
    if ready is None or go is None:
        return
    with contextlib.suppress(BrokenPipeError):
        os.write(ready, b"1")
        while not select.select([go], [], [], BEAT_S)[0]:
            os.write(ready, b"1")
    os.close(go)


async def closed(pipe: int) -> None:
    """Wait until the other end of *pipe* is closed, and close this one."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pipe, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(pipe)
        os.close(pipe)


def say_ready(descriptor: int | None) -> None:
    """Tell the supervisor over the pipe that it gave, if it did; then that this event loop still turns."""
    if descriptor is None:
        return
    os.set_blocking(descriptor, False)
    loop = asyncio.get_running_loop()

    def beat() -> None:
        try:
            os.write(descriptor, b"1")
        except BlockingIOError:
            pass  # a supervisor that is stopped reads nothing: what is in the pipe will do
        except BrokenPipeError:  # it is gone
            os.close(descriptor)
            return
        loop.call_later(BEAT_S, beat)

    beat()


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set *stop* on the first SIGINT or SIGTERM, and let a second one kill."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
