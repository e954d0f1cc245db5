"""The days of usage_logs in PostgreSQL: a partition for each in UTC, and one for what lies outside of them.

None of this makes writers or readers wait for more than a moment: who cannot have a lock within LOCK_TIMEOUT
gives up with an OperationalError, and is tried again by its caller or an hour later.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

LOG_DAYS = 93
"""How long usage logs are kept."""
LATER_DAYS = 3
"""A clock that is further ahead is wrong: its logs get no day of their own."""
LOCK_TIMEOUT = "5s"
EPOCH = date(1970, 1, 1)
NAME = re.compile(r"usage_logs_(\d{4})(\d\d)(\d\d)")

logger = logging.getLogger(__name__)


def today(now: datetime | None = None) -> date:
    return (now or timezone.now()).astimezone(UTC).date()


def make_days(connection: BaseDatabaseWrapper, days: Collection[int], *, now: datetime | None = None) -> None:
    """Make the partitions of *days*, counted from 1970, that are not there and not too far from now."""
    if connection.vendor != "postgresql" or not days:
        return
    first, last = today(now) - timedelta(LOG_DAYS), today(now) + timedelta(LATER_DAYS)
    wanted = {day for number in days if first <= (day := EPOCH + timedelta(number)) <= last}
    for day in sorted(_without_partition(connection, wanted)):
        make_day(connection, day)


def days_there(connection: BaseDatabaseWrapper) -> set[date]:
    """Name the days that have a partition."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
            "WHERE inhparent = 'usage_logs'::regclass"
        )
        found = [NAME.fullmatch(name) for (name,) in cursor.fetchall()]
    return {date(*map(int, name.groups())) for name in found if name}


def _without_partition(connection: BaseDatabaseWrapper, days: Collection[date]) -> set[date]:
    """Keep those days that have none: each writer asks for a day or two, which costs less than all."""
    by_name = {partition_name(day): day for day in days}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NULL", [list(by_name)]
        )
        return {by_name[name] for (name,) in cursor.fetchall()}


def make_day(connection: BaseDatabaseWrapper, day: date) -> int:
    """Make a day's partition; give how many rows of that day lay outside, and have moved into it."""
    name = partition_name(day)
    bounds = f"{day} 00:00+00", f"{day + timedelta(days=1)} 00:00+00"
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        _one_at_a_time(connection)
        if day in days_there(connection):
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


def drop_day(connection: BaseDatabaseWrapper, day: date) -> None:
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        _one_at_a_time(connection)
        cursor.execute(f"DROP TABLE IF EXISTS {partition_name(day)}")


def partition_name(day: date) -> str:
    return f"usage_logs_{day:%Y%m%d}"


def _one_at_a_time(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('usage_logs'))")
