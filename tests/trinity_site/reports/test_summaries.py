"""What a summary reads of a real database, against sums in plain Python."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest
from django.db import OperationalError

from billing.models import Account
from billing.reports import take
from telemetry._spool import PRICE, REPORT_USAGE, UsageLog
from telemetry.queries import Reading
from tests.billing.customers import make_account
from tests.telemetry.reported import START_NS, make_usage, write_usage
from trinity_site.reports import summaries
from trinity_site.reports.summaries import SummaryReader, read_sums
from udp_engine.summaries import Sums, Whose

pytestmark = pytest.mark.usefixtures("plans")
MONTH, DAY_NS = 202611, 86_400 * 10**9


def of_account(account: Account) -> list[UsageLog]:
    """Make usage of two of an account's keys, 1 and 2, reports among it, and a little of other months."""
    logs = [
        log._replace(account_id=account.pk, key_id=1 + number % 2, endpoint=min(log.endpoint, REPORT_USAGE))
        for number, log in enumerate(make_usage(300))
    ]
    others = [logs[0]._replace(time_ns=START_NS + days * DAY_NS, endpoint=PRICE) for days in (-1, 30)]
    return [*logs, *others, logs[0]._replace(account_id=account.pk + 1, endpoint=PRICE)]


def expected(logs: list[UsageLog], account: Account) -> list[UsageLog]:
    return [
        log
        for log in logs
        if (log.account_id, log.key_id) == (account.pk, 1)
        and log.endpoint < REPORT_USAGE
        and 0 <= log.time_ns - START_NS < 30 * DAY_NS
    ]


def read(whose: Whose) -> Sums:
    reading = Reading()
    with reading:
        return read_sums(whose, reading)


def test_sums_are_those_of_the_key_and_the_month() -> None:
    account = make_account()
    logs = of_account(account)
    write_usage(logs)
    take(account_id=account.pk, month=MONTH)
    sums, mine = read(Whose(account.pk, 1, MONTH)), expected(logs, account)
    assert len(mine) > 100
    assert sums.by_status == Counter(str(log.status) for log in mine)
    assert sums.by_day == Counter(f"{1 + (log.time_ns - START_NS) // DAY_NS:02d}" for log in mine)
    assert sums.by_asset == Counter(log.asset for log in mine)
    assert list(sums.by_day) == sorted(sums.by_day)
    assert list(sums.by_asset.values()) == sorted(sums.by_asset.values(), reverse=True)
    assert (sums.reports_used, sums.reports_limit) == (1, 10)


def test_key_that_has_asked_for_nothing_has_empty_sums() -> None:
    assert read(Whose(make_account(plan="unlimited").pk, 1, MONTH)) == Sums({}, {}, {}, 0, None)


@pytest.mark.parametrize("failure", [OperationalError("gone"), TimeoutError()])
async def test_failure_of_the_database_is_logged_once_and_is_none(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any) -> Sums:
        raise failure

    monkeypatch.setattr(summaries, "read_sums", fail)
    reader = SummaryReader()
    try:
        with caplog.at_level(logging.ERROR):
            assert [await reader.read(Whose(1, 1, MONTH)) for _ in range(2)] == [None, None]
    finally:
        reader.close()
    assert [record.message for record in caplog.records] == ["Reading a summary failed"]
