"""What a worker of the queue does: Celery's view of `inbox.py` and `partitions.py`."""

from __future__ import annotations

import logging
import random
import time

from celery import shared_task
from celery.exceptions import Reject

from telemetry import inbox, keeping
from telemetry.seldom import Seldom

LONGEST_PAUSE_S = 8.0

logger = logging.getLogger(__name__)


class Outage:
    """How often in a row the database was at fault for this process, as far as that matters."""

    def __init__(self) -> None:
        self.failures = 0

    def pause_s(self) -> float:
        """Return how long to wait before the queue is asked for more: doubling, at random."""
        self.failures = min(self.failures + 1, 16)
        return random.uniform(0, min(0.25 * 2**self.failures, LONGEST_PAUSE_S))


outage = Outage()
may_tell = Seldom(time.monotonic_ns)


@shared_task(name="telemetry.carry", acks_late=True, ignore_result=True)
def carry(document: object) -> None:
    """Write a document of any type; while the database is at fault it goes back, however often.

    A message may bring something else than bytes: that is set aside as text.
    """
    try:
        inbox.take(document if isinstance(document, bytes) else repr(document).encode())
    except Exception as error:
        if may_tell():
            logger.warning("Usage cannot be written, and goes back to the queue: %s", error)
        time.sleep(outage.pause_s())  # nothing else could be written meanwhile
        raise Reject(error, requeue=True) from error
    outage.failures = 0


@shared_task(name="telemetry.keep", ignore_result=True)
def keep() -> None:
    """See to the tables of usage: what is old goes, the next days are made."""
    keeping.keep()
