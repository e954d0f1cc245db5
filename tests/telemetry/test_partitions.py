"""Days of usage logs: made when needed, by whoever needs them, and dropped with what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import OperationalError, connection, connections, transaction

from telemetry import partitions
from telemetry.ledger import write_envelopes
from telemetry.models import UsageLog
from telemetry.partitions import (
    EPOCH,
    LATER_DAYS,
    LOG_DAYS,
    days_there,
    drop_day,
    make_day,
    make_days,
    partition_name,
    today,
)
from tests.telemetry.usage import Elsewhere, make_envelope, make_logs, make_records

NOW = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)
DAY = date(2026, 11, 23)


def number(day: date) -> int:
    return (day - EPOCH).days


def rows_in(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return int(cursor.fetchone()[0])


def write(time_ns: int, count: int = 10, segment: str = "1-1") -> None:
    logs = [log._replace(time_ns=time_ns + place) for place, log in enumerate(make_logs(count))]
    write_envelopes([make_envelope(make_records(logs), segment=segment)])


@pytest.mark.django_db
def test_days_are_made_once_and_only_near_today() -> None:
    days = [DAY, DAY - timedelta(LOG_DAYS), DAY + timedelta(LATER_DAYS)]
    far = [DAY - timedelta(LOG_DAYS + 1), DAY + timedelta(LATER_DAYS + 1), date(2554, 1, 1), EPOCH]
    for _ in range(2):
        make_days(connection, {number(day) for day in (*days, *far)}, now=NOW)
        assert days_there(connection) >= set(days)
        assert not days_there(connection) & set(far)


@pytest.mark.django_db(databases=["default", "embedded"])
def test_sqlite_needs_no_days() -> None:
    make_days(connections["embedded"], {number(DAY)}, now=NOW)


@pytest.mark.django_db
def test_rows_lie_in_their_days_and_strange_ones_outside() -> None:
    now_ns = int(datetime.now(UTC).timestamp()) * 10**9
    write(now_ns, 10)
    write(1, 3, "1-2")  # 1970
    write(2**64 - 1000, 2, "1-3")  # 2554
    assert rows_in(partition_name(today())) == 10
    assert rows_in("usage_logs_default") == 5
    assert UsageLog.objects.count() == 15


@pytest.mark.django_db
def test_rows_outside_move_into_their_day_when_it_is_made(caplog: pytest.LogCaptureFixture) -> None:
    day = date(2030, 1, 2)
    time_ns = (day - EPOCH).days * 86_400 * 10**9
    write(time_ns - 10**9, 1)
    write(time_ns, 4, "1-2")
    assert rows_in("usage_logs_default") == 5
    assert make_day(connection, day) == 4
    assert make_day(connection, day) == 0
    assert (rows_in("usage_logs_default"), rows_in(partition_name(day))) == (1, 4)
    assert "4 usage logs of 2030-01-02" in caplog.text


@pytest.mark.django_db
def test_dropped_day_takes_its_rows_along() -> None:
    write(int(datetime.now(UTC).timestamp()) * 10**9)
    drop_day(connection, today())
    drop_day(connection, today())
    assert UsageLog.objects.count() == 0
    assert today() not in days_there(connection)


@pytest.mark.django_db
def test_day_has_the_key_that_keeps_rows_single() -> None:
    make_day(connection, DAY)
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, partition_name(DAY))
    assert [entry["columns"] for entry in found.values() if entry["primary_key"]] == [
        ["account_id", "at", "segment_id", "sequence"]
    ]


@pytest.fixture
def without_days(transactional_db: None) -> Iterator[None]:
    drop_all_days()
    yield
    drop_all_days()


def drop_all_days() -> None:
    for day in days_there(connection):
        drop_day(connection, day)


@pytest.mark.usefixtures("without_days")
def test_many_makers_of_one_day_at_once_make_it_once() -> None:
    makers = [Elsewhere(lambda: make_day(connection, DAY)) for _ in range(6)]
    assert [maker.result() for maker in makers] == [0] * 6
    assert days_there(connection) == {DAY}


@pytest.mark.usefixtures("without_days")
def test_day_is_made_while_others_write_into_a_day_that_is_there() -> None:
    make_day(connection, today())
    with transaction.atomic():
        write(int(datetime.now(UTC).timestamp()) * 10**9)
        assert Elsewhere(lambda: make_day(connection, DAY + timedelta(400))).result() == 0
    assert DAY + timedelta(400) in days_there(connection)


@pytest.mark.usefixtures("without_days")
def test_drop_of_a_day_that_is_read_gives_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT", "100ms")
    make_day(connection, DAY)
    with transaction.atomic():
        assert not UsageLog.objects.filter(at__date=DAY).exists()
        with pytest.raises(OperationalError, match="lock timeout"):
            Elsewhere(lambda: drop_day(connection, DAY)).result()
    Elsewhere(lambda: drop_day(connection, DAY)).result()
    assert DAY not in days_there(connection)
