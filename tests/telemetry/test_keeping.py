"""What is done once a day: days ahead, and what is old enough deleted, in both kinds of database."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from telemetry import keeping
from telemetry.folding import fold
from telemetry.keeping import AHEAD_DAYS, ROLLUP_DAYS, keep
from telemetry.ledger import set_aside, write_envelopes
from telemetry.models import (
    FoldedMonth,
    Quarantined,
    UsageInterval,
    UsageLog,
    UsageRollup,
    UsageSegment,
)
from telemetry.partitions import LOG_DAYS, days_there, make_day, today
from tests.telemetry.usage import make_envelope, make_logs, make_records

pytestmark = pytest.mark.django_db(databases=["default", "embedded"])
both = pytest.mark.parametrize("using", ["default", "embedded"])
DAY = timedelta(days=1)


def write(using: str, at: datetime, segment: str, count: int = 5, *, final: bool = True) -> None:
    time_ns = int(at.timestamp()) * 10**9
    logs = [log._replace(time_ns=time_ns + place) for place, log in enumerate(make_logs(count))]
    write_envelopes([make_envelope(make_records(logs), segment=segment, final=final)], using=using)


def age(using: str, by: timedelta) -> None:
    """Make all segments older than they are."""
    for row in UsageSegment.objects.using(using):
        row.seen_at -= by
        row.save()


@both
def test_logs_are_kept_as_long_as_is_said(using: str) -> None:
    now = timezone.now()
    write(using, now, "1-1")
    write(using, now - DAY * (LOG_DAYS - 1), "1-2")
    write(using, now - DAY * (LOG_DAYS + 2), "1-3", 7)
    keep(using=using)
    assert UsageLog.objects.using(using).count() == 10
    keep(now=now + DAY * (LOG_DAYS - 1), using=using)
    assert UsageLog.objects.using(using).count() == 5
    keep(now=now + DAY * (LOG_DAYS + 2), using=using)
    assert UsageLog.objects.using(using).count() == 0


@both
def test_rollups_are_kept_longer_and_counts_for_good(using: str) -> None:
    now = timezone.now()
    write(using, now, "1-1")
    keep(now=now + DAY * (LOG_DAYS + 2), using=using)
    assert UsageRollup.objects.using(using).exists()
    keep(now=now + DAY * (ROLLUP_DAYS + 2), using=using)
    assert not UsageRollup.objects.using(using).exists()
    assert FoldedMonth.objects.using(using).exists()


@both
def test_segment_is_forgotten_when_it_is_old_and_whole(using: str) -> None:
    now = timezone.now()
    write(using, now, "1-1")
    write(using, now, "1-2", final=False)
    write_envelopes([make_envelope(make_records(make_logs(9)), 4, 5, segment="1-3", final=True)], using=using)
    write_envelopes([make_envelope(b"", segment="1-4", final=True)], using=using)
    age(using, DAY * (LOG_DAYS - 1))
    keep(using=using)
    assert UsageSegment.objects.using(using).count() == 4
    age(using, DAY * 2)
    assert keep(using=using).deleted["usage_segments"] == 2
    left = UsageSegment.objects.using(using).order_by("name")
    assert [row.name for row in left] == ["1-2", "1-3"], "not ended; with a gap"
    assert UsageInterval.objects.using(using).count() == 2


@both
def test_envelope_set_aside_stays_until_it_was_replayed(using: str) -> None:
    set_aside(b"one", "why", using=using)
    set_aside(b"two", "why", using=using)
    Quarantined.objects.using(using).filter(document=b"two").update(replayed_at=timezone.now())
    keep(now=timezone.now() + DAY * (LOG_DAYS + 1), using=using)
    assert [bytes(row.document) for row in Quarantined.objects.using(using)] == [b"one"]


@both
def test_rows_are_deleted_in_slices(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "SLICE", 4)
    write(using, datetime(2001, 1, 1, tzinfo=UTC), "1-1", 10)
    table = "usage_logs_default" if using == "default" else "usage_logs"
    deleted = keep(using=using).deleted
    assert deleted[table] == 10
    assert not UsageLog.objects.using(using).exists()


def test_old_rows_are_looked_for_before_sqlite_is_locked_for_writers() -> None:
    write("embedded", timezone.now(), "1-1")
    with CaptureQueriesContext(connections["embedded"]) as statements:
        keep(using="embedded")
    about = [one["sql"] for one in statements if "usage_logs" in one["sql"]]
    assert [sql.partition(" ")[0] for sql in about] == ["SELECT"]


@both
def test_keeping_folds(using: str) -> None:
    fold(using)
    write(using, timezone.now(), "1-1")
    keep(using=using)
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM usage_parts")
        assert cursor.fetchone() == (0,)


@both
def test_dry_run_changes_nothing_and_says_what_there_is_to_do(using: str) -> None:
    now = timezone.now()
    write(using, now - DAY * (LOG_DAYS + 2), "1-1", 7)
    age(using, DAY * (LOG_DAYS + 1))
    old = today(now) - DAY * (LOG_DAYS + 5)
    if using == "default":
        make_day(connection, old)
    would = keep(dry_run=True, using=using)
    assert UsageLog.objects.using(using).count() == 7
    assert would.deleted["usage_segments"] == 1
    done = keep(using=using)
    assert done == would
    assert done.dropped == ([old] if using == "default" else [])
    assert not keep(dry_run=True, using=using).made


def test_days_are_made_ahead() -> None:
    keep()
    assert {today() + DAY * ahead for ahead in range(AHEAD_DAYS + 1)} <= days_there(connection)


def test_day_that_cannot_be_made_keeps_nothing_else_from_being_done(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_day(connection, date(2020, 1, 1))

    def make(connection: object, day: date) -> int:
        raise OperationalError("lock timeout")

    with monkeypatch.context() as patch:
        patch.setattr(keeping, "make_day", make)
        kept = keep()
    assert (kept.made, kept.dropped) == ([], [date(2020, 1, 1)])
    assert f"{today()} could not be made" in caplog.text
    assert today() in keep().made


def test_day_that_cannot_be_dropped_is_left_for_the_next_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    days = [date(2020, 1, 1), date(2020, 1, 2)]
    for day in days:
        make_day(connection, day)

    def drop(connection: object, day: date) -> None:
        if day == days[0]:
            raise OperationalError("lock timeout")

    with monkeypatch.context() as patch:
        patch.setattr(keeping, "drop_day", drop)
        assert keep().dropped == days[1:]
    assert "2020-01-01 could not be dropped" in caplog.text
    assert keep().dropped == days


def test_command_says_what_it_does_and_what_it_would_do() -> None:
    make_day(connection, date(2020, 1, 1))
    said = [run("--dry-run"), run(), run()]
    assert said[0] == said[1]
    assert "drop    2020-01-01" in said[0].splitlines()
    assert said[2] == "Nothing to be done.\n"


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("usagepartitions", *arguments, stdout=output)
    return output.getvalue()
