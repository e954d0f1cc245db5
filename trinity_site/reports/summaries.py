"""What a key has used this month, read from the hourly sums and from what reports its account has had."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial

from django.db import Error as DatabaseFault

from billing.ratelimit import month_start_s, next_month
from billing.reports import look
from telemetry.queries import Reading
from telemetry.reports import Kind, Question, Read
from telemetry.seldom import Seldom
from trinity_site.reports.threads import Threads
from udp_engine.summaries import Sums, Whose

THREADS = 2
MOST_S = 2.0
MOST_GROUPS = 64  # more than have room in a datagram

logger = logging.getLogger(__name__)


class SummaryReader:
    def __init__(self) -> None:
        self._threads = Threads(THREADS, "summary")
        self._may_log = Seldom(time.monotonic_ns)

    def close(self) -> None:
        self._threads.close()

    async def read(self, whose: Whose) -> Sums | None:
        """Read the sums of a key; None when the database does not give them, or not in time."""
        reading = Reading()
        try:
            return await self._threads.run(partial(read_sums, whose, reading), reading, MOST_S)
        except (DatabaseFault, TimeoutError):
            if self._may_log():
                logger.exception("Reading a summary failed")
            return None


def read_sums(whose: Whose, reading: Reading) -> Sums:
    """Read all of it as of one moment, within ``with reading:``. It blocks."""
    start, end = (
        datetime.fromtimestamp(month_start_s(month), UTC) for month in (whose.month, next_month(whose.month))
    )
    question = Question(Kind.SUMMARY, whose.account_id, start, end, key_id=whose.key_id)
    with reading.snapshot():
        statuses, days, assets = (
            reading.breakdown(question, group, MOST_GROUPS) for group in ("status", "day", "asset")
        )
        allowance = look(account_id=whose.account_id, month=whose.month)
    return Sums(
        by_status=_answers(statuses, str),
        by_day=_answers(days, "{:%d}".format),
        by_asset=_answers([row for row in assets if row[0]], str),
        reports_used=allowance.used,
        reports_limit=allowance.cap,
    )


def _answers(rows: Iterable[Read], name: Callable[[object], str]) -> dict[str, int]:
    """Return how many answers there are of each group, the first field of a row."""
    return {name(row[0]): int(row[1]) for row in rows}
