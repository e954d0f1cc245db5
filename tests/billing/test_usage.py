from datetime import UTC, datetime, timedelta, timezone

import pytest

from billing.demo import FIRST_KEY_ID
from billing.models import ApiKey, MonthlyCount
from billing.usage import (
    load_counts,
    load_others,
    load_own,
    month_of,
    save_counts,
    save_last_uses,
    save_logged,
    used_by,
)
from telemetry.ledger import write_envelopes
from telemetry.models import FoldedMonth
from tests.billing.customers import fresh, make_key
from tests.telemetry.spooling import make_log
from tests.telemetry.usage import make_envelope, make_records

pytestmark = pytest.mark.usefixtures("plans")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_month_is_by_utc() -> None:
    east = timezone(timedelta(hours=5))
    assert month_of(datetime(2026, 12, 1, 4, 59, tzinfo=east)) == 202611
    assert month_of(datetime(2026, 12, 1, 5, 0, tzinfo=east)) == 202612


def test_counts_of_nodes_are_added_up_and_kept_apart() -> None:
    one, other = make_key().key, make_key().key
    save_counts(node="A", month=202611, counts={one.pk: 5, other.pk: 1})
    save_counts(node="B", month=202611, counts={one.pk: 7})
    save_counts(node="A", month=202612, counts={one.pk: 100})
    assert load_counts(node="A", month=202611) == {one.pk: 5, other.pk: 1}
    assert load_others(node="A", month=202611) == {one.pk: 7}
    assert used_by(keys=[one], month=202611) == 12
    assert used_by(keys=[one, other], month=202611) == 13
    assert used_by(keys=[other], month=202612) == 0
    used = {key.pk: key.used for key in ApiKey.objects.with_counts(202611)}  # type: ignore[attr-defined]
    assert used == {one.pk: 12, other.pk: 1}


def test_a_node_has_counted_at_least_what_it_has_logged() -> None:
    one, other, third = make_key().key, make_key().key, make_key().key
    save_counts(node="A", month=202611, counts={one.pk: 5, other.pk: 9})
    FoldedMonth.objects.bulk_create(
        FoldedMonth(key_id=key_id, month=month, node=node, counted=counted)
        for key_id, month, node, counted in (
            (one.pk, 202611, "A", 7),
            (other.pk, 202611, "A", 8),
            (third.pk, 202611, "A", 1),
            (one.pk, 202611, "B", 100),
            (one.pk, 202612, "A", 100),
            (FIRST_KEY_ID, 202611, "A", 100),
        )
    )
    write_envelopes([make_envelope(make_records([make_log(1, key_id=one.pk, month=202611)]), node="A")])
    assert load_own(node="A", month=202611) == {one.pk: 8, other.pk: 9, third.pk: 1}


def test_usage_logs_raise_what_any_node_had_saved() -> None:
    one, other, third = make_key().key, make_key().key, make_key().key
    save_counts(node="A", month=202611, counts={one.pk: 5, other.pk: 9})
    lost = third.pk + 1_000
    FoldedMonth.objects.bulk_create(
        FoldedMonth(key_id=key_id, month=month, node=node, counted=counted)
        for key_id, month, node, counted in (
            *((one.pk, 202611, "A", 7), (other.pk, 202611, "A", 8), (third.pk, 202611, "A", 1)),
            *((lost, 202611, "A", 4), (FIRST_KEY_ID, 202611, "A", 100)),
            *((one.pk, 202612, "Gone", 100), (one.pk, 202610, "A", 50)),
        )
    )
    write_envelopes([make_envelope(make_records([make_log(1, key_id=one.pk, month=202611)]), node="A")])
    assert save_logged(since=202611) == 3
    assert save_logged(since=202611) == 0
    assert load_counts(node="A", month=202611) == {one.pk: 8, other.pk: 9, third.pk: 1}
    assert load_counts(node="Gone", month=202612) == {one.pk: 100}
    assert not load_counts(node="A", month=202610)


def test_repeated_save_changes_nothing_and_a_smaller_number_takes_nothing_back() -> None:
    key = make_key().key
    for count in (5, 5, 3, 0):
        save_counts(node="A", month=202611, counts={key.pk: count})
    assert MonthlyCount.objects.get().count == 5
    save_counts(node="A", month=202611, counts={key.pk: 6})
    assert MonthlyCount.objects.get().count == 6


def test_nothing_to_save_asks_nothing() -> None:
    save_counts(node="A", month=202611, counts={})
    assert not MonthlyCount.objects.exists()


def test_latest_use_stays() -> None:
    key = make_key().key
    for seconds in (10, 30, 20):
        save_last_uses(uses={key.pk: NOW + timedelta(seconds=seconds)})
    assert fresh(key).last_used_at == NOW + timedelta(seconds=30)
    assert ApiKey.history.count() == 1  # being used is no change
