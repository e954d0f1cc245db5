"""Usage records for those parts of a worker that are not compiled, in the order that a kill needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from telemetry._counters import BATCH_ROWS_QUEUED
from telemetry._spool import Appender
from telemetry.usage import NOTHING, Asked, Told, make_log


class CounterRow(Protocol):
    def add(self, index: int, n: int = 1, /) -> None: ...


class Recorder:
    """One worker's way into its spool, for its one thread.

    The gate is asked within ``with recorder:``, and so is what follows from its verdict: `open` for an answer
    that is owed, `record` for a refusal. What was opened is closed, whatever becomes of it.
    """

    def __init__(
        self,
        appender: Appender,
        counters: CounterRow,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._appender = appender
        self._counters = counters
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns

    def admits(self) -> bool:
        """Say whether there is room for one record more; counted when a question is refused for it."""
        if self._appender.admits():
            return True
        self._appender.refuse()
        return False

    def __enter__(self) -> None:
        self._appender.enter()

    def __exit__(self, *error: object) -> None:
        self._appender.leave()

    def open(self, asked: Asked) -> None:
        """Owe an answer. One that the gate has not counted leaves no evidence: nobody pays for it."""
        if asked.month:
            self._appender.open_answer()
        else:
            self._appender.promise()

    def record(self, asked: Asked, status: int, told: Told = NOTHING) -> None:
        took_us = max(0, self._mono_ns() - asked.begun_ns) // 1_000
        log = make_log(asked, told, status=status, time_ns=self._wall_ns(), latency_us=took_us)
        if self._appender.append(log):
            self._counters.add(BATCH_ROWS_QUEUED)

    def close(self, asked: Asked, status: int, told: Told = NOTHING) -> None:
        """Record what became of an answer that was owed, before it is sent."""
        with self:
            self.record(asked, status, told)
            if asked.month:
                self._appender.close_answer()
            else:
                self._appender.fulfil()
