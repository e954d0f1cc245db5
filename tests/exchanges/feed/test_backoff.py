"""Waiting before dialling again: jitter, resets, budgets, herds."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchanges.feed.backoff import CAP_S, FIRST_S, SETTLED_S, Backoff, Pacing

SECOND = 10**9


def largest(low: float, high: float) -> float:
    assert low == 0
    return high


def test_ceiling_doubles_to_the_cap() -> None:
    backoff = Backoff(largest)
    assert [backoff.next_delay_s() for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert backoff.failures == 9


def test_ceiling_stays_at_the_cap_for_ever() -> None:
    backoff = Backoff(largest, first_s=0.5, cap_s=3)
    assert [backoff.next_delay_s() for _ in range(5000)][-1] == 3


@pytest.mark.parametrize(("flowed_s", "failures"), [(0, 3), (SETTLED_S - 0.001, 3), (SETTLED_S, 0), (1e9, 0)])
def test_only_flowing_ticks_start_it_over(flowed_s: float, failures: int) -> None:
    backoff = Backoff(largest)
    for _ in range(3):
        backoff.next_delay_s()
    backoff.ended(flowed_s)
    assert backoff.failures == failures


@pytest.mark.parametrize("attempt", range(8))
def test_delays_of_each_attempt_are_uniform(attempt: int) -> None:
    """W2: chi-squared over ten bins, 1,800 delays, critical value for p = 0.001."""
    rng = random.Random(attempt)
    ceiling = min(FIRST_S * 2**attempt, CAP_S)
    bins: Counter[int] = Counter()
    for _ in range(1800):
        backoff = Backoff(rng.uniform)
        backoff.failures = attempt
        delay = backoff.next_delay_s()
        assert 0 <= delay <= ceiling
        bins[min(9, int(delay / ceiling * 10))] += 1
    assert sum((bins[number] - 180) ** 2 / 180 for number in range(10)) < 27.88


def test_herd_of_18_clients_does_not_return_together() -> None:
    """W2: 1,000 outages; in no second of the settled part do more than twice the mean dial."""
    rng = random.Random(2)
    dials: Counter[int] = Counter()
    for _ in range(1000):
        for _ in range(18):
            backoff = Backoff(rng.uniform)
            at = 0.0
            while at < 300:
                at += backoff.next_delay_s()
                dials[int(at)] += 1
    settled = [dials[second] for second in range(120, 300)]
    assert max(settled) <= 2 * sum(settled) / len(settled)
    opening = [dials[second] for second in range(1)]
    assert max(opening) <= 18 * 1000 * 2  # the first second: an attempt each, and some a second one


attempts = st.lists(st.integers(0, 90 * SECOND), min_size=1, max_size=60)


@given(attempts, st.integers(0, 5), st.integers(1, 60), st.integers(1, 6))
def test_pacing_keeps_gap_and_budget(pauses: list[int], gap_s: int, window_s: int, budget: int) -> None:
    pacing = Pacing(min_gap_s=gap_s, window_s=window_s, window_attempts=budget)
    now, booked = 0, []
    for pause in pauses:
        now += pause
        booked.append(pacing.reserve(now))
        assert booked[-1] >= now
    assert all(b - a >= gap_s * SECOND for a, b in itertools.pairwise(booked))
    for first, beyond in zip(booked, booked[budget:], strict=False):
        assert beyond - first >= window_s * SECOND  # so no window holds more than the budget


@given(attempts, st.integers(0, 5))
def test_pacing_without_a_window_waits_for_the_gap_only(pauses: list[int], gap_s: int) -> None:
    pacing = Pacing(min_gap_s=gap_s)
    now, last = 0, None
    for pause in pauses:
        now += pause
        at = pacing.reserve(now)
        assert at == (now if last is None else max(now, last + gap_s * SECOND))
        last = at


def test_an_attempt_after_quiet_time_need_not_wait() -> None:
    pacing = Pacing(min_gap_s=5, window_s=600, window_attempts=2)
    assert [pacing.reserve(at * SECOND) // SECOND for at in (100, 101, 102, 2000)] == [100, 105, 700, 2000]
