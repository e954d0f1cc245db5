"""Prices that the board cannot tell at once: of the board after all, or of the lower tiers."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import Protocol, TypeAlias

from pricing.problems import Problem
from pricing.protocol import PriceAnswer, PriceQuery
from pricing.usage import told_price, told_prices
from telemetry.seldom import Seldom
from telemetry.usage import Told
from udp_engine import wire
from udp_engine._batch import Question
from udp_engine.slow import FAILED, Answer, Later, assets_of

Found: TypeAlias = dict[str, PriceAnswer | Problem | None]

UNEXPECTED = Problem("unavailable", "")

logger = logging.getLogger(__name__)


class Prices(Protocol):
    """What answers from all three tiers, as `pricing.service.PriceService` does."""

    def at_once(self, query: PriceQuery) -> PriceAnswer | Problem | None: ...
    async def below(self, query: PriceQuery) -> PriceAnswer | Problem: ...


class PriceAnswers:
    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._may_log = Seldom(time.monotonic_ns)

    def begin(self, question: Question) -> Answer | Later:
        """Answer at once what the board knows after all, and let the rest wait for the lower tiers."""
        queries = queries_of(question)
        found = {query.asset: self._at_once(query) for query in queries}
        if None in found.values():
            return partial(self._ask_below, question, queries, found)
        return make_answer(question, found)

    async def _ask_below(self, question: Question, queries: list[PriceQuery], found: Found) -> Answer:
        waiting = [query for query in queries if found[query.asset] is None]
        answers = await asyncio.gather(*map(self._below, waiting))
        found.update(zip((query.asset for query in waiting), answers, strict=True))
        return make_answer(question, found)

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


def queries_of(question: Question) -> list[PriceQuery]:
    return [PriceQuery(asset, question.exchange, question.max_age_ms) for asset in assets_of(question)]


def make_answer(question: Question, found: Found) -> Answer:
    """Write the reply; *found* has an answer for every asset of the question."""
    return Answer(render(question, found), *told_of(question, found))


def told_of(question: Question, found: Found) -> tuple[int, Told]:
    """Say for the usage record what is answered, and with which of HTTP's numbers."""
    if question.asset is None:
        return 200, told_prices(question.assets)
    answer = found[question.asset]
    assert answer is not None  # nothing is told before everything is found
    return answer.status if isinstance(answer, Problem) else 200, told_price(question.asset, answer)


def render(question: Question, found: Found) -> bytes:
    """Write the reply; *found* has an answer for every asset of the question."""
    answers = [(asset, answer) for asset, answer in found.items() if answer is not None]
    if question.asset is None:
        return wire.render_prices(answers, question.id)
    ((_, answer),) = answers
    if isinstance(answer, Problem):
        return wire.render_problem(answer, question.id)
    return wire.render_price(answer, question.id)
