"""How long the figures of a busy key take."""

from __future__ import annotations

import time
from datetime import timedelta

import msgspec
import pytest
from django.db import connection

from telemetry.making import make_page
from telemetry.queries import Reading
from telemetry.reports import Kind, Question, Wanted
from tests.telemetry.reported import ACCOUNT, START

pytestmark = [pytest.mark.quiet, pytest.mark.django_db]
KEY = 70
DAYS, SUMS_PER_HOUR = 30, 600
MOST_S = 1.0

# A month in which every hour has 600 sums: 100 assets, each of six exchanges.
FILL = """
    INSERT INTO usage_folded_hours (
        hour, account_id, key_id, month, asset, exchange, source, simulated, protocol, endpoint, status, tier,
        answers, assets, latency_us, latency_us_max
    )
    SELECT %s + hour * interval '1 hour', %s, %s, 202611, 'ASSET' || sum %% 100, 'exchange' || sum / 100,
        1, false, 0, 0, 200, 1, 10, 10, 380, 2140
    FROM generate_series(0, %s - 1) AS hour, generate_series(0, %s - 1) AS sum
"""


def test_summary_of_a_busy_month_by_day_is_there_at_once() -> None:
    with connection.cursor() as cursor:
        cursor.execute(FILL, [START, ACCOUNT, KEY, 24 * DAYS, SUMS_PER_HOUR])
        cursor.execute("ANALYZE usage_folded_hours")  # as the server does by itself
    question = Question(
        Kind.SUMMARY, ACCOUNT, START, START + timedelta(days=DAYS), key_id=KEY, group_by=("day",)
    )
    took_s = []
    for _ in range(3):
        reading, begun_s = Reading(), time.perf_counter()
        with reading:
            page = make_page(Wanted(question, "json", 1_000, 0), reading, b"s" * 32)
        took_s.append(time.perf_counter() - begun_s)
    told = msgspec.json.decode(page.body)
    assert [row["answers"] for row in told["rows"]] == [24 * SUMS_PER_HOUR * 10] * DAYS
    assert told["totals"]["answers"] == 24 * DAYS * SUMS_PER_HOUR * 10
    assert min(took_s) < MOST_S, took_s
