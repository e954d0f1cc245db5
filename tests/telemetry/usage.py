"""Envelopes to try the database side of usage with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from django.db import connections

from telemetry._spool import HEADER_BYTES, MIN_SEGMENT_BYTES, RECORD_BYTES, Appender, Tally, UsageLog
from telemetry.envelope import Envelope, compress
from tests.telemetry.spooling import make_log, make_memory

NODE, SEGMENT = "BeastMain", "3-1763816400000000000"
NO_TALLY = Tally(0, 0, 0, 0, 0)
START_NS = 1_763_856_000_000_000_000  # 2025-11-23 00:00 UTC


def make_records(logs: Sequence[UsageLog]) -> bytes:
    """Give records as a segment has them, numbered from 1."""
    size = max(MIN_SEGMENT_BYTES, HEADER_BYTES + (len(logs) * RECORD_BYTES // 4096 + 1) * 4096)
    memory, appender = make_memory(size=size), Appender()
    appender.publish(memory)
    assert all(appender.append(log) for log in logs)
    return bytes(memory[HEADER_BYTES : HEADER_BYTES + len(logs) * RECORD_BYTES])


def make_envelope(
    records: bytes, offset: int = 0, count: int | None = None, *, damaged: Iterable[int] = (), **changes: Any
) -> Envelope:
    """Pack the places from *offset* of a segment's *records*; those in *damaged* are left out."""
    end = len(records) // RECORD_BYTES if count is None else offset + count
    places = [place for place in range(offset, end) if place not in set(damaged)]
    payload = b"".join(records[place * RECORD_BYTES :][:RECORD_BYTES] for place in places)
    envelope = Envelope(
        node=NODE,
        segment=SEGMENT,
        boot_ns=1_763_816_399_000_000_000,
        offset=offset,
        count=end - offset,
        damaged=end - offset - len(places),
        final=False,
        tally=NO_TALLY,
        payload=compress(payload),
    )
    return replace(envelope, **changes)


class Elsewhere(threading.Thread):
    """Calls something in a thread, which has database connections of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call = call
        self._result: Any = None
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._call()
        except Exception as error:  # noqa: BLE001 (whoever waits has it)
            self._error = error
        finally:
            connections.close_all()

    def result(self) -> Any:
        """Wait for it; give what it gave, or raise what it raised."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._result


def make_logs(count: int, **changes: Any) -> list[UsageLog]:
    return [make_log(number, account_id=number % 3, **changes) for number in range(count)]
