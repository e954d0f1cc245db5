"""Sums that are true before, while and after they are folded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connections
from django.db.models import Sum
from django.utils import timezone

from telemetry import folding
from telemetry.folding import PERIOD, fold, fold_when_due
from telemetry.ledger import write_envelopes
from telemetry.models import FoldedHour, UsageMonth, UsageRollup
from tests.telemetry.usage import Elsewhere, make_envelope, make_logs, make_records

both = pytest.mark.parametrize("using", ["default", "embedded"])
RECORDS = make_records(make_logs(30))


def parts(using: str) -> int:
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM usage_parts")
        return int(cursor.fetchone()[0])


def answers(using: str = "default") -> int:
    rolled = UsageRollup.objects.using(using).aggregate(total=Sum("answers"))["total"] or 0
    counted = UsageMonth.objects.using(using).aggregate(total=Sum("counted"))["total"] or 0
    assert rolled <= counted  # looked at later
    return int(rolled)


@pytest.mark.django_db(databases=["default", "embedded"])
@both
def test_first_write_folds_and_the_next_ones_of_that_minute_do_not(using: str) -> None:
    write_envelopes([make_envelope(RECORDS, 0, 10)], using=using)
    assert (parts(using), answers(using)) == (0, 10)
    write_envelopes([make_envelope(RECORDS, 10, 10)], using=using)
    assert parts(using) == 10
    assert answers(using) == 20
    soon = timezone.now() + PERIOD
    assert fold_when_due(using, now=soon)
    assert not fold_when_due(using, now=soon + PERIOD / 2)
    assert (parts(using), answers(using)) == (0, 20)


@pytest.mark.django_db(databases=["default", "embedded"])
@both
def test_clock_that_was_set_back_does_not_keep_parts_from_being_folded(using: str) -> None:
    assert fold_when_due(using, now=timezone.now() + timedelta(days=30))
    assert fold_when_due(using)
    assert not fold_when_due(using)


@pytest.mark.django_db(databases=["default", "embedded"])
@both
def test_folding_twice_adds_nothing_and_hours_go_on(using: str) -> None:
    for offset in (0, 10, 20):
        write_envelopes([make_envelope(RECORDS, offset, 10)], using=using)
        fold(using)
        fold(using)
    assert answers(using) == 30
    before = FoldedHour.objects.using(using).count()
    write_envelopes([make_envelope(RECORDS, segment="9-9")], using=using)
    fold(using)
    assert answers(using) == 60
    assert FoldedHour.objects.using(using).count() == before, "the same sums, twice as large"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_first", [True, False])
def test_of_all_who_find_it_due_one_folds(is_first: bool) -> None:
    assert is_first or fold_when_due()
    later = timezone.now() + 2 * PERIOD
    others = [Elsewhere(lambda: fold_when_due(now=later)) for _ in range(6)]
    assert [other.result() for other in others].count(True) == 1


@pytest.mark.django_db(databases=["default", "embedded"])
@both
def test_fold_that_fails_costs_no_write_and_is_tried_again_a_minute_later(
    using: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(folding, "_IN_ONE", "SELECT 1 / 0 FROM nothing")
        patch.setattr(folding, "_STEPS", ("SELECT 1 FROM nothing",))
        for offset in (0, 10):
            assert write_envelopes([make_envelope(RECORDS, offset, 10)], using=using).rows == 10
    assert caplog.text.count("could not be folded") == 1
    assert (parts(using), answers(using)) == (20, 20)
    assert fold_when_due(using, now=timezone.now() + PERIOD)
    assert (parts(using), answers(using)) == (0, 20)


@pytest.mark.django_db(transaction=True)
def test_what_is_written_while_others_fold_is_in_the_sums_once() -> None:
    """Readers see every answer once at any time, too."""
    done = threading.Event()
    seen: list[int] = []
    others = [Elsewhere(lambda: repeat(fold, done)) for _ in range(2)]
    others.append(Elsewhere(lambda: repeat(lambda: seen.append(answers()), done)))
    for number in range(1, 41):
        write_envelopes([make_envelope(RECORDS, segment=f"1-{number}")])
    done.set()
    for other in others:
        other.result()
    assert answers() == 40 * 30
    fold()
    assert (answers(), parts("default")) == (40 * 30, 0)
    assert seen == sorted(seen)
    assert all(count % 30 == 0 for count in seen)


def repeat(call: Callable[[], object], done: threading.Event) -> None:
    while not done.is_set():
        call()
