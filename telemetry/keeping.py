"""What is done to the usage tables each hour: days made ahead, and what is old enough deleted.

| what | is kept |
|---|---|
| usage logs | LOG_DAYS days: partitions are dropped; SQLite, and rows outside of all days, by slices |
| rollups by the hour | ROLLUP_DAYS days |
| counts by the month | for good |
| a segment, its ledger | once all of it is written, LOG_DAYS days since it was last heard of; else for good |
| envelopes set aside | LOG_DAYS days since they were replayed; else for good |
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from django.db import DEFAULT_DB_ALIAS, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from telemetry.folding import fold
from telemetry.models import UsageInterval, UsageSegment
from telemetry.partitions import LOG_DAYS, days_there, drop_day, make_day, today

AHEAD_DAYS = 7
ROLLUP_DAYS = 800  # two years, and the months before them that are compared with
SLICE = 10_000
"""Rows that one transaction deletes at most: nobody waits long for a lock."""

logger = logging.getLogger(__name__)


class Kept(NamedTuple):
    """What was done, or in a dry run what would be."""

    made: list[date]
    moved: int
    """Rows that lay outside of all days and now lie in theirs; a dry run does not know."""
    dropped: list[date]
    deleted: dict[str, int]
    """Rows by table."""


class Old(NamedTuple):
    """Rows that are kept *days* after the time in *column*."""

    table: str
    column: str
    days: int


OLD = (
    Old("usage_folded_hours", "hour", ROLLUP_DAYS),
    Old("usage_quarantine", "replayed_at", LOG_DAYS),
)


def keep(*, now: datetime | None = None, dry_run: bool = False, using: str = DEFAULT_DB_ALIAS) -> Kept:
    """Do what is to be done each hour. Safe at any time, by several at once, and after any interruption.

    A day that cannot be made or dropped just now, since somebody reads it, is left for the next time.
    """
    moment = now or timezone.now()
    connection = connections[using]
    if not dry_run:
        fold(using)
    made, moved, dropped = _keep_days(connection, moment, dry_run=dry_run)
    logs = "usage_logs_default" if connection.vendor == "postgresql" else "usage_logs"
    delete = _count if dry_run else _delete
    deleted = {
        old.table: delete(connection, old, moment - timedelta(days=old.days))
        for old in (Old(logs, "at", LOG_DAYS), *OLD)
    }
    deleted["usage_segments"] = _forget_segments(using, moment - timedelta(days=LOG_DAYS), dry_run=dry_run)
    return Kept(made, moved, dropped, deleted)


def _keep_days(
    connection: BaseDatabaseWrapper, now: datetime, *, dry_run: bool
) -> tuple[list[date], int, list[date]]:
    if connection.vendor != "postgresql":
        return [], 0, []
    there, first = days_there(connection), today(now) - timedelta(days=LOG_DAYS)
    ahead = [today(now) + timedelta(days=days) for days in range(AHEAD_DAYS + 1)]
    missing, old = [day for day in ahead if day not in there], sorted(day for day in there if day < first)
    if dry_run:
        return missing, 0, old
    moved: dict[date, int] = {}
    for day in missing:
        with _putting_off(day, "made"):
            moved[day] = make_day(connection, day)
    dropped: list[date] = []
    for day in old:
        with _putting_off(day, "dropped"):
            drop_day(connection, day)
            dropped.append(day)
    return list(moved), sum(moved.values()), dropped


@contextmanager
def _putting_off(day: date, what: str) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        logger.warning("The usage logs of %s could not be %s now: %s", day, what, error)


def _count(connection: BaseDatabaseWrapper, old: Old, before: datetime) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM {old.table} WHERE {old.column} < %s", [_adapted(connection, before)]
        )
        return int(cursor.fetchone()[0])


def _delete(connection: BaseDatabaseWrapper, old: Old, before: datetime) -> int:
    is_old, moment = f"{old.column} < %s", _adapted(connection, before)
    if connection.vendor == "postgresql":
        some = f"ctid = ANY(ARRAY(SELECT ctid FROM {old.table} WHERE {is_old} LIMIT {SLICE}))"
        return _in_slices(lambda: _execute(connection, f"DELETE FROM {old.table} WHERE {some}", moment))

    deleted = 0
    find = f"SELECT rowid FROM {old.table} WHERE {is_old} LIMIT {SLICE}"
    while some := _some_rows(connection, find, moment):
        delete = f"DELETE FROM {old.table} WHERE rowid IN ({some}) AND {is_old}"
        deleted += _execute(connection, delete, moment)
    return deleted


def _some_rows(connection: BaseDatabaseWrapper, statement: str, moment: Any) -> str:  # Any: as `_adapted`
    """Find rows, which may take long, before SQLite is locked: it has one writer at a time."""
    with connection.cursor() as cursor:
        cursor.execute(statement, [moment])
        return ", ".join(str(rowid) for (rowid,) in cursor.fetchall())


def _forget_segments(using: str, before: datetime, *, dry_run: bool) -> int:
    if dry_run:
        return _written_whole(using, before).count()

    def forget() -> int:
        with transaction.atomic(using=using):
            rows = _written_whole(using, before).select_for_update(skip_locked=True, of=("self",))
            ids = list(rows.values_list("pk", flat=True)[:SLICE])
            UsageInterval.objects.using(using).filter(segment_id__in=ids).delete()
            return UsageSegment.objects.using(using).filter(pk__in=ids).delete()[0]

    return _in_slices(forget)


def _written_whole(using: str, before: datetime) -> QuerySet[UsageSegment]:
    """Segments last heard of before that, of which nothing is missing."""
    all_of_it = UsageInterval.objects.filter(segment=OuterRef("pk"), start=0, end__gte=OuterRef("ended"))
    return UsageSegment.objects.using(using).filter(Q(ended=0) | Exists(all_of_it), seen_at__lt=before)


def _in_slices(delete: Callable[[], int]) -> int:
    total = 0
    while deleted := delete():
        total += deleted
    return total


def _execute(connection: BaseDatabaseWrapper, statement: str, *parameters: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


def _adapted(connection: BaseDatabaseWrapper, moment: datetime) -> Any:  # Any: what its driver takes
    return connection.ops.adapt_datetimefield_value(moment)
