"""The days of usage_logs: made before they are needed, dropped when they are too old.

In PostgreSQL each UTC day is a partition, and `usage_logs_default` has what lies outside of all of them.
SQLite has one table, from which old rows are deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

LOG_DAYS = 93
"""How long usage logs are kept."""
LATER_DAYS = 3
"""A clock that is further ahead is wrong: its logs get no day of their own."""
EPOCH = date(1970, 1, 1)

logger = logging.getLogger(__name__)


def make_days(connection: BaseDatabaseWrapper, days: Collection[int], *, now: datetime | None = None) -> None:
    """Make the partitions of *days*, counted from 1970, that are not there and not too far from now."""
    if connection.vendor != "postgresql":
        return
    today = (now or timezone.now()).astimezone(UTC).date()
    dates = [EPOCH + timedelta(days=day) for day in sorted(days)]
    near = [day for day in dates if today - timedelta(LOG_DAYS) <= day <= today + timedelta(LATER_DAYS)]
    for day in missing_days(connection, near):
        make_day(connection, day)


def missing_days(connection: BaseDatabaseWrapper, days: Iterable[date]) -> list[date]:
    names = {partition_name(day): day for day in days}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
            "WHERE inhparent = to_regclass('usage_logs') AND relname = ANY(%s)",
            [list(names)],
        )
        there = {name for (name,) in cursor.fetchall()}
    return [day for name, day in names.items() if name not in there]


def make_day(connection: BaseDatabaseWrapper, day: date) -> int:
    """Make one day's partition; give how many rows of that day lay outside and have moved into it.

    Neither writers nor readers of other days wait: only the rows outside are locked.
    """
    name = partition_name(day)
    bounds = f"{day} 00:00+00", f"{day + timedelta(days=1)} 00:00+00"
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '5s'")
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('usage_logs'))")  # one maker at a time
        if not missing_days(connection, [day]):
            return 0
        cursor.execute("LOCK TABLE usage_logs_default IN ACCESS EXCLUSIVE MODE")
        cursor.execute(f"CREATE TABLE {name} (LIKE usage_logs INCLUDING DEFAULTS)")
        cursor.execute(
            "WITH moved AS (DELETE FROM usage_logs_default WHERE at >= %s AND at < %s RETURNING *) "
            f"INSERT INTO {name} SELECT * FROM moved",
            bounds,
        )
        moved = int(cursor.rowcount)
        cursor.execute(f"ALTER TABLE usage_logs ATTACH PARTITION {name} FOR VALUES FROM (%s) TO (%s)", bounds)
    if moved:
        logger.warning("%s usage logs of %s lay outside of all days, and have moved to theirs", moved, day)
    return moved


def partition_name(day: date) -> str:
    return f"usage_logs_{day:%Y%m%d}"
