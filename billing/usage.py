"""Monthly counts and last uses, as every node saves them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    counts = load_counts(node=node, month=month)
    for key_id, rows in _logged(node, month):
        counts[key_id] = max(counts.get(key_id, 0), rows)
    return counts


def save_logged(*, node: str, month: int) -> None:
    """Raise what *node* had saved to what its usage logs prove: of a past month no gate tells any more."""
    saved = load_counts(node=node, month=month)
    more = {key_id: rows for key_id, rows in _logged(node, month) if rows > saved.get(key_id, 0)}
    known = set(ApiKey.objects.filter(pk__in=more).values_list("pk", flat=True))
    save_counts(node=node, month=month, counts={key_id: more[key_id] for key_id in known})


def load_others(*, node: str, month: int) -> dict[int, int]:
    """Return what all other nodes have saved for *month*, by key."""
    rows = MonthlyCount.objects.filter(month=month).exclude(node=node).order_by()
    return dict(rows.values_list("key_id").annotate(total=Sum("count")).iterator(chunk_size=10_000))


def used_by(*, keys: Iterable[ApiKey], month: int) -> int:
    """Return what all nodes have saved for *keys* in *month*."""
    rows = MonthlyCount.objects.filter(key__in=keys, month=month)
    return rows.aggregate(total=Sum("count"))["total"] or 0


def _logged(node: str, month: int) -> Iterator[tuple[int, int]]:
    rows = UsageMonth.objects.filter(node=node, month=month, key_id__lt=FIRST_KEY_ID).order_by()
    return rows.values_list("key_id").annotate(rows=Sum("counted")).iterator(chunk_size=10_000)


def _execute(statement: str, rows: Sequence[tuple[str | int | None, ...]]) -> None:
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(statement, rows)
