"""Sums of usage: each transaction adds parts, and once a minute those are folded into hours and months.

A part is only ever inserted, so writers never wait for each other's sums: an hour that all of them add to
would make them take turns. Folding moves parts in one transaction; the views that are read (usage_rollups
and usage_months) have both, and so are true at every instant.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, transaction
from django.utils import timezone

from telemetry.models import SUMS_KEY, Folding

PERIOD = timedelta(minutes=1)
_KEY = ", ".join(SUMS_KEY)
_HOURS = f"""
    INSERT INTO usage_folded_hours AS had ({_KEY}, answers, assets, latency_us, latency_us_max)
    SELECT {_KEY}, sum(answers), sum(assets), sum(latency_us), max(latency_us_max)
    FROM {{parts}} WHERE true GROUP BY {_KEY} ORDER BY {_KEY}
    ON CONFLICT ({_KEY}) DO UPDATE SET
        answers = had.answers + excluded.answers, assets = had.assets + excluded.assets,
        latency_us = had.latency_us + excluded.latency_us,
        latency_us_max = {{greatest}}(had.latency_us_max, excluded.latency_us_max)
"""
_MONTHS = """
    INSERT INTO usage_folded_months AS had (key_id, month, node, counted)
    SELECT key_id, month, node, sum(answers) FROM {parts} WHERE month <> 0
    GROUP BY key_id, month, node ORDER BY key_id, month, node
    ON CONFLICT (key_id, month, node) DO UPDATE SET counted = had.counted + excluded.counted
"""
_TAKE = "DELETE FROM usage_parts"
# PostgreSQL takes and adds in one statement, so that what is inserted meanwhile is not taken; in SQLite
# nothing is.
_IN_ONE = (
    f"WITH parts AS ({_TAKE} RETURNING *), hours AS ({_HOURS.format(parts='parts', greatest='GREATEST')}) "
    f"{_MONTHS.format(parts='parts')}"
)
_STEPS = (_HOURS.format(parts="usage_parts", greatest="max"), _MONTHS.format(parts="usage_parts"), _TAKE)

logger = logging.getLogger(__name__)


def fold_when_due(using: str = DEFAULT_DB_ALIAS, *, now: datetime | None = None) -> bool:
    """Fold, unless somebody has begun to within PERIOD; say whether it was done.

    A database that cannot do it now is asked again a minute later: until then the parts are as true.
    """
    moment = now or timezone.now()
    rows = Folding.objects.using(using)
    last = next(iter(rows.values_list("folded_at", flat=True)), None)  # `first` would sort, and take longer
    if last is None:
        _, is_ours = rows.get_or_create(pk=1, defaults={"folded_at": moment})
    else:
        is_due = abs(moment - last) >= PERIOD
        is_ours = is_due and rows.filter(folded_at=last).update(folded_at=moment) == 1
    if not is_ours:
        return False
    try:
        fold(using)
    except DatabaseError:
        logger.exception("Sums of usage could not be folded")
        return False
    return True


def fold(using: str = DEFAULT_DB_ALIAS) -> None:
    """Fold all parts that there are. Several may at once: each part goes to one of them."""
    connection = connections[using]
    with transaction.atomic(using=using), connection.cursor() as cursor:
        for statement in [_IN_ONE] if connection.vendor == "postgresql" else _STEPS:
            cursor.execute(statement)
