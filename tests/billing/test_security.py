"""The record of refused attempts: aggregated, bounded, and never with what somebody typed."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext

from billing import security
from billing.models import SecurityEvent
from billing.security import KEPT, Attempt, guessers, prune, record

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 22, 12, 34, 56, tzinfo=UTC)
Kind = SecurityEvent.Kind
UNKNOWN = Kind.KEY_UNKNOWN


def rows() -> list[tuple[str, str, int]]:
    return list(SecurityEvent.objects.order_by("source").values_list("subject", "source", "count"))


def test_attempts_within_an_hour_are_one_row() -> None:
    record([Attempt(UNKNOWN, "192.0.2.7", count=3), Attempt(UNKNOWN, "192.0.2.7")], now=NOW)
    record([Attempt(UNKNOWN, "192.0.2.7", count=6)], now=NOW + timedelta(minutes=20))
    event = SecurityEvent.objects.get()
    assert (event.count, event.hour.minute, event.last_at) == (10, 0, NOW + timedelta(minutes=20))


def test_another_hour_kind_subject_or_source_is_another_row() -> None:
    record([Attempt(UNKNOWN, "192.0.2.7")], now=NOW)
    record([Attempt(UNKNOWN, "192.0.2.7")], now=NOW + timedelta(hours=1))
    record([Attempt(SecurityEvent.Kind.KEY_MALFORMED, "192.0.2.7")], now=NOW)
    record([Attempt(UNKNOWN, "192.0.2.7", "ada"), Attempt(UNKNOWN, "2001:db8::1")], now=NOW)
    assert SecurityEvent.objects.count() == 5


def test_addresses_of_one_subscriber_are_one_source() -> None:
    record([Attempt(UNKNOWN, f"2001:db8:0:1::{number}") for number in range(1, 9)], now=NOW)
    assert rows() == [("", "2001:db8:0:1::/64", 8)]


def test_rows_of_an_hour_are_bounded_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "MOST_AN_HOUR", 3)
    record([Attempt(UNKNOWN, f"192.0.2.{number}") for number in range(10)], now=NOW)
    assert rows() == [("", "", 7), ("", "192.0.2.0", 1), ("", "192.0.2.1", 1), ("", "192.0.2.2", 1)]
    record([Attempt(UNKNOWN, "192.0.2.1")], now=NOW)
    assert rows()[2] == ("", "192.0.2.1", 2)


def test_batch_is_one_look_and_as_few_statements_however_much_is_in_it() -> None:
    record([Attempt(UNKNOWN, "192.0.2.0"), Attempt(Kind.KEY_MALFORMED, "192.0.2.0")], now=NOW)
    asked = []
    for size in (1, 200):
        batch = [Attempt(kind, f"192.0.2.{n}") for n in range(size) for kind in (UNKNOWN, Kind.KEY_MALFORMED)]
        with CaptureQueriesContext(connection) as queries:
            record(batch, now=NOW)
        asked.append(len(queries))
    assert asked[0] == asked[1] <= 4, "with the transaction's two"
    assert SecurityEvent.objects.count() == 400


def test_old_rows_leave_by_themselves() -> None:
    record([Attempt(UNKNOWN, "192.0.2.7")], now=NOW - KEPT - timedelta(hours=2))
    record([Attempt(UNKNOWN, "192.0.2.8")], now=NOW)
    assert rows() == [("", "192.0.2.8", 1)]
    assert prune(now=NOW + KEPT + timedelta(hours=2)) == 1


def test_database_that_is_away_costs_the_record_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr(security, "_count", fail)
    record([Attempt(UNKNOWN, "192.0.2.7")], now=NOW)
    assert "could not be recorded" in caplog.text


def test_guessers_are_who_was_refused_often_within_the_hour() -> None:
    earlier, just_within = NOW - timedelta(minutes=61), NOW - timedelta(minutes=59)
    record([Attempt(UNKNOWN, "198.51.100.1", count=40)], now=earlier)
    record([Attempt(UNKNOWN, "198.51.100.2", count=19)], now=NOW)
    record([Attempt(UNKNOWN, "198.51.100.3", "tb_live_abcd", 15)], now=NOW)
    record([Attempt(Kind.PASSWORD_REFUSED, "198.51.100.3", "ada", 5)], now=NOW)
    record([Attempt(Kind.CODE_REFUSED, "198.51.100.4", count=21)], now=just_within)
    assert guessers(now=NOW) == [("198.51.100.4", 21), ("198.51.100.3", 20)]
    assert guessers(now=NOW, most=1) == [("198.51.100.4", 21)]
