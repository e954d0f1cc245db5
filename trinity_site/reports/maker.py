"""Reports made in threads: so many at once, given up when nobody waits for them any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import IO, NamedTuple, TypeVar

from django.db import connection

from billing.reports import Allowance, look, take
from telemetry.making import is_file, make_file, make_lines, make_page
from telemetry.parameters import ReportParameters
from telemetry.queries import Reading
from telemetry.reports import Wanted
from trinity_site.reports.threads import Threads

T = TypeVar("T")

COUNT_S = 5.0
PIECE_BYTES = 65_536


class Made(NamedTuple):
    """A report whose first piece is there, so most of what can go wrong has not."""

    first: bytes
    rest: AsyncIterator[bytes]
    length: int | None
    """None where nobody knows it yet."""
    following: str | None = None
    """The cursor of the next page."""


class Maker:
    def __init__(self, secret: bytes, parameters: ReportParameters) -> None:
        self._secret = secret
        self._parameters = parameters
        # One more than there are reports at once: what an account has left is told meanwhile.
        self._threads = Threads(parameters.at_once + 1, "report")

    def close(self) -> None:
        self._threads.close()

    async def look(self, account_id: int, month: int) -> Allowance:
        return await self._count(partial(look, account_id=account_id, month=month))

    async def take(self, account_id: int, month: int) -> tuple[bool, Allowance]:
        return await self._count(partial(take, account_id=account_id, month=month))

    async def ping(self) -> None:
        """Ask the database for nothing; raises what it raises."""
        await self._count(_ping)

    async def make(self, wanted: Wanted, stack: AsyncExitStack) -> Made:
        """Make the first piece of a report, or all of it; *stack* lets go of what is left in the end.

        Cancelling it cancels the query. Raises TimeoutError, what `make_file` raises, and what the database
        does.
        """
        reading = Reading()
        if wanted.format == "json":
            page = await self._run(partial(make_page, wanted, reading, self._secret), reading)
            return Made(page.body, _nothing(), len(page.body), page.following)
        page_rows, most_bytes = self._parameters.page_rows, self._parameters.file_bytes
        if is_file(wanted):
            making = partial(make_file, wanted, reading, page_rows=page_rows, most_bytes=most_bytes)
            file = stack.enter_context(await self._run(making, reading, self._parameters.file_s))
            length = file.seek(0, 2)
            file.seek(0)
            return Made(file.read(PIECE_BYTES), self._pieces(file), length)
        lines = make_lines(wanted, reading, page_rows=page_rows)
        rest = self._lines(lines, reading)
        stack.push_async_callback(rest.aclose)
        return Made(await anext(rest), rest, None)

    async def _lines(self, lines: Iterator[bytes], reading: Reading) -> AsyncGenerator[bytes, None]:
        while (text := await self._run(partial(next, lines, None), reading)) is not None:
            yield text

    async def _pieces(self, file: IO[bytes]) -> AsyncIterator[bytes]:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece

    async def _count(self, ask: Callable[[], T]) -> T:
        return await self._run(ask, Reading(), COUNT_S)

    async def _run(self, act: Callable[[], T], reading: Reading, most_s: float | None = None) -> T:
        return await self._threads.run(act, reading, self._parameters.piece_s if most_s is None else most_s)


def _ping() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
