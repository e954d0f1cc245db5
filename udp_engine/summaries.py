"""Summaries of what keys have asked for this month, read from the database once a second and key at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from billing._gate import Gate
from pricing.flights import Flights
from pricing.parameters import MS
from telemetry.usage import GIVEN_UP, NOTHING
from udp_engine import wire
from udp_engine._batch import Question
from udp_engine.parameters import Parameters
from udp_engine.slow import Answer, Later


class Whose(NamedTuple):
    account_id: int
    key_id: int
    month: int
    """202611"""


class Sums(NamedTuple):
    """What the database knows, the largest first where they are by asset."""

    by_status: dict[str, int]
    by_day: dict[str, int]
    by_asset: dict[str, int]
    reports_used: int
    reports_limit: int | None


Read: TypeAlias = Callable[[Whose], Coroutine[Any, Any, Sums | None]]  # Any: what a coroutine may be sent


class SummaryAnswers:
    """*read* asks the database, within a time of its own; None is a failure, which it has logged."""

    def __init__(
        self,
        read: Read,
        gate: Gate,
        parameters: Parameters,
        *,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._gate = gate
        self._mono_ns = mono_ns
        self._kept_ns = parameters.summary_ms * MS
        self._patience_s = parameters.grace_ms / 1_000
        self._flights: Flights[Whose, Sums] = Flights(
            read,
            mono_ns=mono_ns,
            entries=parameters.summary_entries,
            limit=parameters.summaries_at_once,
            negative_ns=self._kept_ns,
        )

    async def aclose(self) -> None:
        await self._flights.aclose()

    def begin(self, question: Question) -> Answer | Later:
        """Tell again what was read within the last second, or have it read."""
        whose = Whose(question.account_id, question.key_id, self._gate.month(self._mono_ns()))
        kept = self._flights.kept(whose)
        if kept is not None and kept[1] < self._kept_ns:
            return self._tell(question, whose, kept[0])
        return partial(self._read, question, whose)

    async def _read(self, question: Question, whose: Whose) -> Answer:
        sums, _ = await self._flights.get(whose, self._patience_s)
        return self._tell(question, whose, sums)

    def _tell(self, question: Question, whose: Whose, sums: Sums | None) -> Answer:
        metered = self._metered(question, whose)
        if sums is None or metered is None:
            return Answer(wire.render_refusal("unavailable", question.id), GIVEN_UP, NOTHING)
        used, cap = metered
        summary = wire.Summary(
            month=f"{whose.month // 100}-{whose.month % 100:02d}",
            key=whose.key_id,
            used=used,
            limit=cap or None,
            answers=sum(sums.by_status.values()),
            by_status=sums.by_status,
            by_day=sums.by_day,
            by_asset=sums.by_asset,
            other_assets=0,
            reports_used=sums.reports_used,
            reports_limit=sums.reports_limit,
        )
        return Answer(wire.render_summary(summary, question.id), 200, NOTHING)

    def _metered(self, question: Question, whose: Whose) -> tuple[int, int] | None:
        """Say how many requests count towards how many; None when the key's row is not its own any more."""
        try:
            key = self._gate.key(question.key_row)
        except ValueError:  # nobody's
            return None
        if key.key_id != whose.key_id:
            return None
        return self._gate.total(question.key_row, whose.month), key.cap
