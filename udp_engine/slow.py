"""What the batch cannot answer: asked of somebody else, a little in each turn of the loop, bounded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, TypeAlias

from pricing.usage import told_prices
from telemetry._counters import (
    BG_WORK_COMPLETED,
    BG_WORK_DROPPED,
    BG_WORK_SUBMITTED,
    DROPPED_SHED,
    DROPPED_STOPPED,
    DROPPED_UNSENT,
    Counters,
)
from telemetry._spool import PRICE, PRICES, REPORT_SUMMARY, UDP
from telemetry.recorder import Recorder
from telemetry.running import happens
from telemetry.seldom import Seldom
from telemetry.usage import GIVEN_UP, Asked, Told
from udp_engine._batch import Batch, Question
from udp_engine.parameters import Parameters

SLICE_NS = 1_000_000  # then whatever has come meanwhile has its turn
FAILED = "Answering %r failed unexpectedly"

logger = logging.getLogger(__name__)


class Answer(NamedTuple):
    reply: bytes
    status: int
    """Which of HTTP's numbers the usage record has."""
    told: Told


Later: TypeAlias = Callable[[], Awaitable[Answer]]


class Answers(Protocol):
    """What answers questions: `udp_engine.prices` or `udp_engine.summaries`."""

    def begin(self, question: Question) -> Answer | Later:
        """Answer at once, or say what takes a while."""


class SlowPath:
    """Take admitted questions and answer each once, or count why not. All are recorded first."""

    def __init__(
        self, batch: Batch, answers: Answers, counters: Counters, recorder: Recorder, parameters: Parameters
    ) -> None:
        self._batch = batch
        self._recorder = recorder
        self._answers = answers
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
        """Send what is answered at once, and let the rest wait. What cannot be made or written is counted."""
        try:
            begun = self._answers.begin(question)
        except Exception:
            if self._may_log():
                logger.exception(FAILED, question)
            self._drop(question, DROPPED_UNSENT)
        else:
            if not isinstance(begun, Answer):
                task = asyncio.create_task(self._answer(question, begun), name="udp:question")
                self._tasks.add(task)
                task.add_done_callback(lambda done: self._ended(done, question))
                return
            self._send(question, begun)
        self._left(question)

    async def _answer(self, question: Question, later: Later) -> None:
        try:
            answer = await later()
        except Exception:
            if self._may_log():
                logger.exception(FAILED, question)
            self._drop(question, DROPPED_UNSENT)
        else:
            self._send(question, answer)

    def _send(self, question: Question, answer: Answer) -> None:
        self._recorder.close(asked_by(question), answer.status, answer.told)
        self._batch.answer(question, answer.reply)
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


def asked_by(question: Question) -> Asked:
    endpoint = PRICES if question.assets else REPORT_SUMMARY if question.asset is None else PRICE
    who = question.key_id, question.account_id, question.month
    return Asked(*who, UDP, endpoint, question.received_ns)


def assets_of(question: Question) -> tuple[str, ...]:
    return question.assets if question.asset is None else (question.asset,)
