"""The arithmetic of rates and months, and the header fields that tell of them."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.ratelimit import (
    SECOND_NS,
    Rate,
    emission_ns,
    left,
    month_length_s,
    month_of,
    month_start_s,
    next_month,
    policy_field,
    previous_month,
    retry_after_s,
    state_field,
    take,
)

FREE = Rate(SECOND_NS, 5)
RATES = st.builds(Rate, st.integers(1, 10**13), st.integers(1, 10**6))
TIMES = st.integers(0, 2**62)


def test_burst_is_admitted_at_once_and_then_one_with_every_emission() -> None:
    admitted, tat = 0, 0
    for now in range(0, 10 * SECOND_NS, SECOND_NS // 100):
        turn = take(FREE, tat, now)
        admitted, tat = admitted + turn.admitted, turn.tat_ns
    assert admitted == 5 + 9


def test_remaining_counts_down_and_reset_is_until_one_more() -> None:
    tat, seen = 0, []
    for _ in range(6):
        admitted, tat, remaining, reset_ns = take(FREE, tat, 100)
        seen.append((admitted, remaining, reset_ns))
    assert seen == [
        (True, 4, SECOND_NS),
        (True, 3, SECOND_NS),
        (True, 2, SECOND_NS),
        (True, 1, SECOND_NS),
        (True, 0, SECOND_NS),
        (False, 0, SECOND_NS),
    ]


@given(RATES, TIMES, TIMES)
def test_refusal_changes_nothing_and_names_the_first_instant_that_is_admitted(
    rate: Rate, tat_ns: int, now_ns: int
) -> None:
    turn = take(rate, tat_ns, now_ns)
    if turn.admitted:
        assert turn.tat_ns - max(tat_ns, now_ns) == rate.emission_ns
    else:
        assert turn.tat_ns == tat_ns
        assert take(rate, tat_ns, now_ns + turn.reset_ns).admitted
        assert not take(rate, tat_ns, now_ns + turn.reset_ns - 1).admitted


@given(RATES, st.integers(0, 10**12), st.integers(0, 2**40))
def test_remaining_is_what_is_admitted_at_once_and_grows_at_the_reset(
    rate: Rate, now_ns: int, ahead: int
) -> None:
    tat_ns = now_ns + ahead
    remaining, reset_ns = left(rate, tat_ns, now_ns)
    used = tat_ns + remaining * rate.emission_ns
    assert 0 <= remaining <= rate.burst
    assert not take(rate, max(used, now_ns + remaining * rate.emission_ns), now_ns).admitted
    if remaining:
        assert take(rate, used - rate.emission_ns, now_ns).admitted
    assert (reset_ns == 0) == (ahead == 0)
    if reset_ns:
        assert left(rate, tat_ns, now_ns + reset_ns)[0] == remaining + 1
        assert left(rate, tat_ns, now_ns + reset_ns - 1)[0] == remaining


@given(RATES, TIMES, TIMES)
def test_retry_after_is_whole_seconds_after_which_a_retry_is_admitted(
    rate: Rate, tat_ns: int, now_ns: int
) -> None:
    turn = take(rate, tat_ns, now_ns)
    if not turn.admitted:
        assert take(rate, tat_ns, now_ns + retry_after_s(turn.reset_ns) * SECOND_NS).admitted


@pytest.mark.parametrize(
    ("wait_ns", "seconds"), [(0, 1), (1, 1), (10**9, 1), (10**9 + 1, 2), (12 * 10**9, 12)]
)
def test_retry_after_is_rounded_up_and_never_zero(wait_ns: int, seconds: int) -> None:
    assert retry_after_s(wait_ns) == seconds


def test_emission_is_the_pace_of_the_rate() -> None:
    assert [emission_ns(rate) for rate in (1, 3, 100)] == [SECOND_NS, 333_333_333, 10_000_000]


# -- months


def test_month_begins_and_ends_by_utc() -> None:
    start = month_start_s(202612)
    assert datetime.fromtimestamp(start, UTC) == datetime(2026, 12, 1, tzinfo=UTC)
    assert [month_of(start - 0.001), month_of(start), month_of(start + month_length_s(202612) - 0.001)] == [
        202611,
        202612,
        202612,
    ]
    assert month_of(start + month_length_s(202612)) == next_month(202612) == 202701


def test_month_has_its_own_length() -> None:
    assert [month_length_s(month) // 86_400 for month in (202602, 202802, 202611, 202612)] == [28, 29, 30, 31]


def test_neighbouring_months_differ_in_their_last_bit() -> None:
    month = 202601
    for _ in range(1200):
        assert next_month(month) > month
        assert previous_month(next_month(month)) == month
        assert (next_month(month) ^ month) & 1
        month = next_month(month)
    assert month == 212601


# -- header fields


def verdict(**given: int) -> Any:  # Any: it has the attributes of a verdict
    nothing = dict.fromkeys(
        ("emission_ns", "limit", "remaining", "reset_ns", "cap", "cap_remaining", "cap_reset_ns", "month"), 0
    )
    return SimpleNamespace(**(nothing | given))


RATE: dict[str, int] = {"emission_ns": 10**8, "limit": 20, "remaining": 19, "reset_ns": 10**8}
MONTH: dict[str, int] = {
    "cap": 50_000, "cap_remaining": 49_999, "cap_reset_ns": 86_400 * 10**9 - 1, "month": 202611,
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "policy", "state"),
    [
        (
            RATE | MONTH,
            '"rate";q=20;w=2, "month";q=50000;w=2592000',
            '"rate";r=19;t=1, "month";r=49999;t=86400',
        ),
        (RATE, '"rate";q=20;w=2', '"rate";r=19;t=1'),
        (MONTH, '"month";q=50000;w=2592000', '"month";r=49999;t=86400'),
        (RATE | {"remaining": 20, "reset_ns": 0}, '"rate";q=20;w=2', '"rate";r=20'),
        (RATE | {"limit": 3, "emission_ns": 5 * 10**8}, '"rate";q=3;w=2', '"rate";r=19;t=1'),
        (RATE | {"limit": 1, "emission_ns": 10}, '"rate";q=1;w=1', '"rate";r=19;t=1'),
        ({}, "", ""),
    ],
    ids=["both", "no cap", "no rate", "full bucket", "window rounded up", "window of a second", "partner"],
)
def test_fields_tell_quota_window_and_what_is_left(given: dict[str, int], policy: str, state: str) -> None:
    assert policy_field(verdict(**given)) == policy
    assert state_field(verdict(**given)) == state


@given(st.integers(1, 10**10), st.integers(1, 1000))
def test_client_that_keeps_to_the_policy_is_never_refused(emission: int, burst: int) -> None:
    quota, window_s = burst, retry_after_s(burst * emission)
    assert window_s * SECOND_NS >= quota * emission
    tat, rate = 0, Rate(emission, burst)
    for number in range(3 * burst):
        turn = take(rate, tat, number * window_s * SECOND_NS // quota + 1)
        assert turn.admitted
        tat = turn.tat_ns
