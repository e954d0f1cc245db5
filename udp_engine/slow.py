"""What the board cannot answer: asked of the lower tiers, a little in each turn of the loop, bounded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from typing import Protocol

from pricing.problems import Problem
from pricing.protocol import PriceAnswer, PriceQuery
from pricing.usage import told_price, told_prices
from telemetry._counters import (
    BG_WORK_COMPLETED,
    BG_WORK_DROPPED,
    BG_WORK_SUBMITTED,
    DROPPED_SHED,
    DROPPED_STOPPED,
    DROPPED_UNSENT,
    Counters,
)
from telemetry._spool import PRICE, PRICES, UDP
from telemetry.recorder import Recorder
from telemetry.running import happens
from telemetry.seldom import Seldom
from telemetry.usage import GIVEN_UP, Asked, Told
from udp_engine import wire
from udp_engine._batch import Batch, Question
from udp_engine.parameters import Parameters

SLICE_NS = 1_000_000  # then whatever has come meanwhile has its turn
FAILED = "Answering %r failed unexpectedly"
UNEXPECTED = Problem("unavailable", "")

logger = logging.getLogger(__name__)


class Prices(Protocol):
    """What answers from all three tiers, as `pricing.service.PriceService` does."""

    def at_once(self, query: PriceQuery) -> PriceAnswer | Problem | None: ...
    async def below(self, query: PriceQuery) -> PriceAnswer | Problem: ...


class SlowPath:
    """Take admitted questions and answer each once, or count why not. All are recorded first."""

    def __init__(
        self, batch: Batch, prices: Prices, counters: Counters, recorder: Recorder, parameters: Parameters
    ) -> None:
        self._batch = batch
        self._recorder = recorder
        self._prices = prices
        self._counters = counters
        self._most = parameters.waiting
        self._share = max(1, parameters.waiting // 4)
        self._queue: deque[Question] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_key: Counter[int] = Counter()
        self._working = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._may_log = Seldom(time.monotonic_ns)

    def take(self, question: Question) -> None:
        """Have a question answered, unless too many wait already, or too many of the same key."""
        self._counters.add(BG_WORK_SUBMITTED)
        waiting = len(self._queue) + len(self._tasks)
        if waiting >= self._most or self._by_key[question.key_row] >= self._share:
            self._drop(question, DROPPED_SHED)
            return
        self._by_key[question.key_row] += 1
        self._queue.append(question)
        self._idle.clear()
        if not self._working:
            self._working = True
            asyncio.get_running_loop().call_soon(self._work)

    async def finish(self, grace_s: float) -> None:
        """Wait until nothing waits, then give up what still does. Cancelling gives it up at once."""
        try:
            await happens(self._idle, grace_s)
        finally:
            left = len(self._queue) + len(self._tasks)
            if left:
                logger.warning("Left with %d questions unanswered", left)
            while self._queue:
                question = self._queue.popleft()
                self._drop(question, DROPPED_STOPPED)
                self._left(question)
            late = list(self._tasks)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _work(self) -> None:
        """Look at one question at least, for a while, and come back for the rest."""
        end_ns = time.monotonic_ns() + SLICE_NS
        while self._queue:
            self._begin(self._queue.popleft())
            if time.monotonic_ns() >= end_ns:
                break
        self._working = bool(self._queue)
        if self._working:
            asyncio.get_running_loop().call_soon(self._work)

    def _begin(self, question: Question) -> None:
        """Answer at once what the board knows after all, and let the rest wait for the lower tiers."""
        queries = queries_of(question)
        found = {query.asset: self._at_once(query) for query in queries}
        if None not in found.values():
            self._reply(question, found)
            self._left(question)
            return
        task = asyncio.create_task(self._answer_below(question, queries, found), name="udp:question")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, question))

    async def _answer_below(
        self, question: Question, queries: list[PriceQuery], found: dict[str, PriceAnswer | Problem | None]
    ) -> None:
        waiting = [query for query in queries if found[query.asset] is None]
        answers = await asyncio.gather(*map(self._below, waiting))
        found.update(zip((query.asset for query in waiting), answers, strict=True))
        self._reply(question, found)

    def _at_once(self, query: PriceQuery) -> PriceAnswer | Problem | None:
        try:
            return self._prices.at_once(query)
        except Exception:
            if self._may_log():
                logger.exception(FAILED, query.asset)
            return UNEXPECTED

    async def _below(self, query: PriceQuery) -> PriceAnswer | Problem:
        try:
            return await self._prices.below(query)
        except Exception:
            if self._may_log():
                logger.exception(FAILED, query.asset)
            return UNEXPECTED

    def _reply(self, question: Question, found: dict[str, PriceAnswer | Problem | None]) -> None:
        """Send the answer; one that cannot be written is counted, and ends nothing else."""
        try:
            reply = render(question, found)
        except Exception:
            if self._may_log():
                logger.exception(FAILED, question)
            self._drop(question, DROPPED_UNSENT)
            return
        status, told = told_of(question, found)
        self._recorder.close(asked_by(question), status, told)
        self._batch.answer(question, reply)
        self._counters.add(BG_WORK_COMPLETED)

    def _ended(self, task: asyncio.Task[None], question: Question) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # also one that had not begun yet
            self._drop(question, DROPPED_STOPPED)
        self._left(question)

    def _left(self, question: Question) -> None:
        """Make room for the next one."""
        self._by_key[question.key_row] -= 1
        if not self._by_key[question.key_row]:
            del self._by_key[question.key_row]
        if not self._queue and not self._tasks:
            self._idle.set()

    def _drop(self, question: Question, reason: int) -> None:
        self._recorder.close(asked_by(question), GIVEN_UP, told_prices(assets_of(question)))
        self._counters.add(BG_WORK_DROPPED)
        self._counters.drop(reason)


def assets_of(question: Question) -> tuple[str, ...]:
    return question.assets if question.asset is None else (question.asset,)


def queries_of(question: Question) -> list[PriceQuery]:
    return [PriceQuery(asset, question.exchange, question.max_age_ms) for asset in assets_of(question)]


def asked_by(question: Question) -> Asked:
    endpoint = PRICES if question.asset is None else PRICE
    who = question.key_id, question.account_id, question.month
    return Asked(*who, UDP, endpoint, question.received_ns)


def told_of(question: Question, found: dict[str, PriceAnswer | Problem | None]) -> tuple[int, Told]:
    """Say for the usage record what is answered, and with which of HTTP's numbers."""
    if question.asset is None:
        return 200, told_prices(question.assets)
    answer = found[question.asset]
    assert answer is not None  # nothing is told before everything is found
    return answer.status if isinstance(answer, Problem) else 200, told_price(question.asset, answer)


def render(question: Question, found: dict[str, PriceAnswer | Problem | None]) -> bytes:
    """Write the reply; *found* has an answer for every asset of the question."""
    answers = [(asset, answer) for asset, answer in found.items() if answer is not None]
    if question.asset is None:
        return wire.render_prices(answers, question.id)
    ((_, answer),) = answers
    if isinstance(answer, Problem):
        return wire.render_problem(answer, question.id)
    return wire.render_price(answer, question.id)
