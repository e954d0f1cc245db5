"""Records of what was tried: one row per hour, kind, subject and source, in bounded number."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import DatabaseError, connection, transaction
from django.db.models import Sum
from django.utils import timezone

from billing.connections import from_asyncio
from billing.guessing import RefusedKey
from billing.models import SecurityEvent
from billing.networks import source_of

logger = logging.getLogger(__name__)

KEPT = timedelta(days=90)
OFTEN = 20  # refused attempts of one source within an hour: more than anybody's own mistakes
MOST_AN_HOUR = 1_000  # rows of one kind; what comes after is counted without names
_COUNT = """
    INSERT INTO billing_security_event (kind, subject, source, hour, count, last_at)
    VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (hour, kind, subject, source) DO UPDATE
    SET count = billing_security_event.count + excluded.count, last_at = excluded.last_at
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something that was refused, *count* times."""

    kind: SecurityEvent.Kind
    source: str
    """The address it came from."""
    subject: str = ""
    """An account's name or a key's prefix. Never what somebody typed, which may be a secret."""
    count: int = 1


def record(attempts: Iterable[Attempt], *, now: datetime | None = None) -> None:
    """Count *attempts*. A database that is away costs the record, never the answer that it is about."""
    moment = now or timezone.now()
    try:
        with transaction.atomic():
            _count(attempts, moment)
    except DatabaseError:
        logger.exception("Refused attempts could not be recorded")


async def record_refused_keys(refused: Sequence[RefusedKey]) -> None:
    """Count keys that were refused, as `billing.guessing` hands them over in the processes that answer."""
    kind = SecurityEvent.Kind
    await from_asyncio(record)(
        # An IPv6 network is told by its first address, which counts as that network.
        [Attempt(kind(row.kind), row.source.partition("/")[0], row.prefix, row.times) for row in refused]
    )


class Names(NamedTuple):
    """What is counted together within an hour."""

    kind: str
    subject: str
    source: str


class Guesser(NamedTuple):
    """A source whose attempts look like guessing."""

    source: str
    """Empty for so many that they were counted without names."""
    times: int


def guessers(*, now: datetime | None = None, most: int = 5) -> list[Guesser]:
    """Return who was refused OFTEN within the hour, by sign-in or keys, the busiest first."""
    since = (now or timezone.now()) - timedelta(hours=1)
    rows = SecurityEvent.objects.filter(last_at__gte=since).order_by().values_list("source")
    often = rows.annotate(times=Sum("count")).filter(times__gte=OFTEN).order_by("-times", "source")
    return [Guesser(*row) for row in often[:most]]


def prune(*, now: datetime | None = None) -> int:
    """Delete what is older than is kept; return how many rows."""
    end = (now or timezone.now()) - KEPT
    return SecurityEvent.objects.filter(hour__lt=end).delete()[0]


def _count(attempts: Iterable[Attempt], moment: datetime) -> None:
    hour = moment.replace(minute=0, second=0, microsecond=0)
    times: Counter[Names] = Counter()
    for attempt in attempts:
        times[Names(attempt.kind.value, attempt.subject[:150], source_of(attempt.source))] += attempt.count
    adapt = connection.ops.adapt_datetimefield_value
    # In one order everywhere, so that two who count the same cannot wait for each other.
    rows = sorted(_bounded(times, hour).items())
    with connection.cursor() as cursor:
        cursor.executemany(_COUNT, [(*names, adapt(hour), count, adapt(moment)) for names, count in rows])


def _bounded(times: Mapping[Names, int], hour: datetime) -> Counter[Names]:
    """Give what has a row of its own already, or is still to have one, under its names; the rest has none."""
    kinds = {names.kind for names in times}
    there = SecurityEvent.objects.filter(hour=hour, kind__in=kinds).order_by()
    known = {Names(*row) for row in there.values_list("kind", "subject", "source")}
    here = Counter(names.kind for names in known)
    if kinds - here.keys():
        prune(now=hour)  # once an hour and kind, by whoever comes first
    bounded: Counter[Names] = Counter()
    for names, count in times.items():
        if names not in known and here[names.kind] >= MOST_AN_HOUR:
            names = Names(names.kind, "", "")
        elif names not in known:
            here[names.kind] += 1
        bounded[names] += count
    return bounded
