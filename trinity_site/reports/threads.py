"""Threads that ask the database, and are made to stop when nobody waits for them any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from billing.connections import fresh_connection
from telemetry.queries import CANCEL_S, Reading

T = TypeVar("T")


class Threads:
    """So many of them. What is asked of one that is busy waits its turn."""

    def __init__(self, count: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=name)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, act: Callable[[], T], reading: Reading, most_s: float) -> T:
        """Run *act* in a thread. When time is up, or nobody waits, what it reads is cancelled.

        Then it is let end, but not for longer than a database that can be reached needs for that.
        """

        def run() -> T:
            with reading:
                return act()

        work = asyncio.get_running_loop().run_in_executor(self._threads, fresh_connection(run))
        try:
            async with asyncio.timeout(most_s):
                return await asyncio.shield(work)
        except (TimeoutError, asyncio.CancelledError):
            work.add_done_callback(_forget)
            await asyncio.to_thread(reading.cancel)
            await asyncio.wait([work], timeout=CANCEL_S)
            raise


def _forget(work: asyncio.Future[Any]) -> None:  # Any: whatever it would have given
    """Look at how it ended, so that nobody is told that nobody did."""
    if not work.cancelled():
        work.exception()
