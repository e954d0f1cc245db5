"""One worker of the engine: a socket that the batch empties, and asyncio for what the board cannot answer."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from typing import Protocol

from billing._gate import Gate
from pricing._finder import Finder
from pricing.problems import Problem
from pricing.protocol import PriceAnswer, PriceQuery
from telemetry._counters import (
    BG_WORK_COMPLETED,
    BG_WORK_DROPPED,
    BG_WORK_SUBMITTED,
    DROPPED_SHED,
    DROPPED_STOPPED,
    Counters,
)
from telemetry.running import repeat
from telemetry.seldom import Seldom
from udp_engine import sockets, wire
from udp_engine._batch import Batch, Question
from udp_engine.parameters import Parameters

DROPS_PERIOD_S = 0.5
PAUSE_S = 1.0  # after an error of the socket itself
FAILED = "Answering for %s failed unexpectedly"

logger = logging.getLogger(__name__)


class Prices(Protocol):
    """What answers from all three tiers, as `pricing.service.PriceService` does."""

    def at_once(self, query: PriceQuery) -> PriceAnswer | Problem | None: ...
    async def below(self, query: PriceQuery) -> PriceAnswer | Problem: ...


class Worker:
    """Answer what comes to *opened*, which stays its opener's. *workers* share its port, this one too."""

    def __init__(
        self,
        opened: socket.socket,
        *,
        finder: Finder,
        gate: Gate,
        counters: Counters,
        prices: Prices,
        parameters: Parameters,
        workers: int = 1,
    ) -> None:
        self._socket = opened
        self._counters = counters
        self._prices = prices
        self._parameters = parameters
        self._tasks: set[asyncio.Task[None]] = set()
        self._may_log = Seldom(time.monotonic_ns)
        self._paused: asyncio.TimerHandle | None = None
        own = sockets.own_address(opened)
        if own is None:
            sockets.tell_address(opened)
        self.buffers = sockets.buffers(opened)
        counters.open_socket(sockets.cookie(opened), *self.buffers)
        refusals_per_s, burst = parameters.share(workers)
        self.batch = Batch(
            opened.fileno(),
            finder,
            gate,
            counters,
            budget=parameters.budget,
            own=own,
            tells_address=own is None,
            refusals_per_s=refusals_per_s,
            refusal_burst=burst,
            networks=parameters.networks,
            secret=secrets.randbits(64),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until *stop* is set; then let what waits finish, for `grace_ms` at most.

        What nobody has read yet stays in the socket, for whoever reads it next.
        """
        counting = asyncio.create_task(
            repeat(self._count_drops, DROPS_PERIOD_S, "Counting the kernel's drops"), name="drops"
        )
        self._listen()
        try:
            await stop.wait()
        finally:
            self._leave()
            counting.cancel()
            await asyncio.wait([counting])
            await self._finish()
            self.batch.abandon()
            await self._count_drops()

    async def _count_drops(self) -> None:
        self._counters.kernel_dropped(sockets.kernel_drops(self._socket))

    def _listen(self) -> None:
        self._paused = None
        asyncio.get_running_loop().add_reader(self._socket, self._on_readable)

    def _leave(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.remove_writer(self._socket)
        if self._paused is not None:
            self._paused.cancel()

    def _on_readable(self) -> None:
        try:
            questions = self.batch.drain()
        except OSError:
            self._pause()
            return
        for question in questions:
            self._take(question)
        if self.batch.is_blocked:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        """Go on where the kernel took no more; nothing new is read before."""
        if self.batch.resume():
            asyncio.get_running_loop().remove_writer(self._socket)
            self._listen()

    def _pause(self) -> None:
        if self._may_log():
            logger.exception("Reading the socket failed; it is tried again each second")
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        self._paused = loop.call_later(PAUSE_S, self._listen)

    def _take(self, question: Question) -> None:
        """Answer at once what can be, and let the rest wait for the lower tiers, so many at most."""
        queries = queries_of(question)
        found = {query.asset: self._at_once(query) for query in queries}
        if None not in found.values():
            self._reply(question, found)
        elif len(self._tasks) >= self._parameters.waiting:
            self._counters.add(BG_WORK_DROPPED)
            self._counters.drop(DROPPED_SHED)
        else:
            self._counters.add(BG_WORK_SUBMITTED)
            task = asyncio.create_task(self._answer_below(question, queries, found), name="udp:question")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer_below(
        self, question: Question, queries: list[PriceQuery], found: dict[str, PriceAnswer | Problem | None]
    ) -> None:
        waiting = [query for query in queries if found[query.asset] is None]
        try:
            answers = await asyncio.gather(*map(self._below, waiting))
        except asyncio.CancelledError:
            self._counters.drop(DROPPED_STOPPED)
            raise
        found.update(zip((query.asset for query in waiting), answers, strict=True))
        self._reply(question, found)
        self._counters.add(BG_WORK_COMPLETED)

    def _at_once(self, query: PriceQuery) -> PriceAnswer | Problem | None:
        try:
            return self._prices.at_once(query)
        except Exception:
            if self._may_log():
                logger.exception(FAILED, query.asset)
            return Problem("unavailable", "")

    async def _below(self, query: PriceQuery) -> PriceAnswer | Problem:
        try:
            return await self._prices.below(query)
        except Exception:
            if self._may_log():
                logger.exception(FAILED, query.asset)
            return Problem("unavailable", "")

    def _reply(self, question: Question, found: dict[str, PriceAnswer | Problem | None]) -> None:
        self.batch.answer(question, render(question, found))

    async def _finish(self) -> None:
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=self._parameters.grace_ms / 1_000)
        for task in late:
            task.cancel()
        if late:
            logger.warning("Left with %d questions unanswered", len(late))
            await asyncio.wait(late)


def queries_of(question: Question) -> list[PriceQuery]:
    assets = question.assets if question.asset is None else (question.asset,)
    return [PriceQuery(asset, question.exchange, question.max_age_ms) for asset in assets]


def render(question: Question, found: dict[str, PriceAnswer | Problem | None]) -> bytes:
    """Write the reply; *found* has an answer for every asset of the question."""
    answers = [(asset, answer) for asset, answer in found.items() if answer is not None]
    if question.asset is None:
        return wire.render_prices(answers, question.id)
    ((_, answer),) = answers
    if isinstance(answer, Problem):
        return wire.render_problem(answer, question.id)
    return wire.render_price(answer, question.id)
