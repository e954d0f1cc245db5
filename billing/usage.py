"""Monthly counts and last uses, as every node saves them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from django.db import connection, transaction
from django.db.models import Sum

from billing.demo import FIRST_KEY_ID
from billing.models import ApiKey, MonthlyCount
from telemetry.models import UsageMonth

# A node that starts anew with an older number never takes back what it has counted.
_SAVE_COUNT = """
    INSERT INTO billing_monthly_count (key_id, month, node, count) VALUES (%s, %s, %s, %s)
    ON CONFLICT (key_id, month, node) DO UPDATE SET count = excluded.count
    WHERE billing_monthly_count.count < excluded.count
"""
_PROVEN = """
    SELECT logged.key_id, logged.month, logged.node, sum(logged.counted)
    FROM usage_months AS logged
    JOIN billing_api_key ON billing_api_key.id = logged.key_id
    LEFT JOIN billing_monthly_count AS saved
        ON saved.key_id = logged.key_id AND saved.month = logged.month AND saved.node = logged.node
    WHERE logged.month >= %s AND logged.key_id < %s
    GROUP BY logged.key_id, logged.month, logged.node, saved.count
    HAVING sum(logged.counted) > coalesce(saved.count, 0)
"""
_SAVE_USE = """
    UPDATE billing_api_key SET last_used_at = %s
    WHERE id = %s AND (last_used_at IS NULL OR last_used_at < %s)
"""


def month_of(moment: datetime) -> int:
    """Return 202611 for a moment in November 2026, by UTC."""
    moment = moment.astimezone(UTC)
    return moment.year * 100 + moment.month


@transaction.atomic
def save_counts(*, node: str, month: int, counts: Mapping[int, int]) -> None:
    """Save what *node* has counted for each key in *month* so far: totals, so a repeat is harmless."""
    # In one order everywhere, so that two savers of the same rows cannot wait for each other.
    _execute(_SAVE_COUNT, [(key, month, node, counts[key]) for key in sorted(counts)])


@transaction.atomic
def save_last_uses(*, uses: Mapping[int, datetime]) -> None:
    """Save when keys were last used; the latest of all nodes stays."""
    adapt = connection.ops.adapt_datetimefield_value
    rows = [(adapt(uses[key]), key, adapt(uses[key])) for key in sorted(uses)]
    _execute(_SAVE_USE, rows)


def load_counts(*, node: str, month: int) -> dict[int, int]:
    """Return what *node* had saved for *month*, by key."""
    rows = MonthlyCount.objects.filter(node=node, month=month).values_list("key_id", "count")
    return dict(rows.iterator(chunk_size=10_000))


def load_own(*, node: str, month: int) -> dict[int, int]:
    """Return what *node* has counted for *month* at least: as saved, or as its usage logs prove.

    A node that is killed as a whole saves no more; each of its answers was on the disk before it was sent.
    """
    logged = UsageMonth.objects.filter(node=node, month=month, key_id__lt=FIRST_KEY_ID).order_by()
    counts = load_counts(node=node, month=month)
    sums = logged.values_list("key_id").annotate(rows=Sum("counted"))
    for key_id, rows in sums.iterator(chunk_size=10_000):
        counts[key_id] = max(counts.get(key_id, 0), rows)
    return counts


def save_logged(*, since: int) -> int:
    """Raise what nodes had saved from the month *since* on to what their usage logs prove: so many counts.

    What a node had counted and not saved may have died with it; it may come back by another name, or never.
    """
    with connection.cursor() as cursor:
        cursor.execute(_PROVEN, [since, FIRST_KEY_ID])
        rows = sorted((*where, int(total)) for *where, total in cursor.fetchall())
    if rows:
        with transaction.atomic():
            _execute(_SAVE_COUNT, rows)
    return len(rows)


def load_others(*, node: str, month: int) -> dict[int, int]:
    """Return what all other nodes have saved for *month*, by key."""
    rows = MonthlyCount.objects.filter(month=month).exclude(node=node).order_by()
    return dict(rows.values_list("key_id").annotate(total=Sum("count")).iterator(chunk_size=10_000))


def used_by(*, keys: Iterable[ApiKey], month: int) -> int:
    """Return what all nodes have saved for *keys* in *month*."""
    rows = MonthlyCount.objects.filter(key__in=keys, month=month)
    return rows.aggregate(total=Sum("count"))["total"] or 0


def _execute(statement: str, rows: Sequence[tuple[str | int | None, ...]]) -> None:
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(statement, rows)
