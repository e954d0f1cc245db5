"""The month guard: tables of what clocks do, and histories of clocks that do anything."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.months import JUMP_NS, STEADY_NS, Month, MonthGuard, month_at
from billing.ratelimit import SECOND_NS, month_start_s, next_month

MINUTE_NS, HOUR_NS, DAY_NS = 60 * SECOND_NS, 3_600 * SECOND_NS, 86_400 * SECOND_NS
DECEMBER_NS = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp()) * SECOND_NS
BOOT_NS = 5_000 * SECOND_NS  # CLOCK_MONOTONIC when a test begins


class World:
    """A guard and its clocks: the true time, and how far the wall clock is off it."""

    def __init__(self, true_ns: int, *, month: int = 0, error_ns: int = 0) -> None:
        self.true_ns, self.error_ns, self.mono_ns = true_ns, error_ns, BOOT_NS
        self.guard = MonthGuard(month)

    def look(self, *, database: bool = False, database_error_ns: int = 0) -> int | None:
        second_ns = self.true_ns + database_error_ns if database else None
        found = self.guard.look(self.true_ns + self.error_ns, self.mono_ns, second_ns)
        return None if found is None else found.month

    def pass_by(self, ns: int, **options: bool) -> int | None:
        """Let time pass, a look every second, or every minute when it is long; return the last."""
        step_ns = SECOND_NS if ns < HOUR_NS else MINUTE_NS
        found = self.look(**options)
        for _ in range(ns // step_ns):
            self.true_ns += step_ns
            self.mono_ns += step_ns
            found = self.look(**options)
        return found


def test_month_and_its_end_come_from_the_wall_clock() -> None:
    guard = MonthGuard()
    now_ns = DECEMBER_NS - 10 * SECOND_NS
    assert guard.look(now_ns, BOOT_NS) == Month(202611, BOOT_NS + 10 * SECOND_NS)


def test_month_rolls_over_at_midnight() -> None:
    world = World(DECEMBER_NS - 5 * SECOND_NS)
    assert world.pass_by(4 * SECOND_NS) == 202611
    assert world.pass_by(1 * SECOND_NS) == 202612


@pytest.mark.parametrize("back_ns", [SECOND_NS, 30 * MINUTE_NS, 59 * MINUTE_NS])
def test_small_step_back_does_not_reopen_a_month(back_ns: int) -> None:
    world = World(DECEMBER_NS - SECOND_NS)
    assert world.pass_by(10 * SECOND_NS) == 202612
    world.error_ns = -back_ns
    assert world.pass_by(20 * SECOND_NS) == 202612


@pytest.mark.parametrize("jump_ns", [2 * HOUR_NS, 40 * DAY_NS, -40 * DAY_NS, 20_000 * DAY_NS])
def test_jump_that_does_not_last_changes_nothing(jump_ns: int) -> None:
    world = World(DECEMBER_NS - HOUR_NS)
    assert world.look() == 202611
    world.error_ns = jump_ns
    assert world.pass_by(STEADY_NS - 2 * SECOND_NS) == 202611
    world.error_ns = 0
    assert world.pass_by(10 * SECOND_NS) == 202611


@pytest.mark.parametrize(("jump_ns", "month"), [(40 * DAY_NS, 202701), (-40 * DAY_NS, 202610)])
def test_jump_that_lasts_is_believed_after_five_minutes(jump_ns: int, month: int) -> None:
    world = World(DECEMBER_NS - DAY_NS)
    assert world.look() == 202611
    world.error_ns = jump_ns
    assert world.pass_by(STEADY_NS - SECOND_NS) == 202611
    assert world.pass_by(2 * SECOND_NS) == month


def test_jump_that_the_database_confirms_is_believed_at_once() -> None:
    world = World(DECEMBER_NS - DAY_NS, error_ns=-60 * DAY_NS)
    assert world.look() == 202610
    world.error_ns = 0
    assert world.look(database=True) == 202611


def test_jump_that_the_database_contradicts_is_never_believed() -> None:
    world = World(DECEMBER_NS - DAY_NS)
    assert world.look() == 202611
    world.error_ns = 40 * DAY_NS
    assert world.pass_by(2 * HOUR_NS, database=True) == 202611


def test_clock_that_dances_is_never_believed() -> None:
    world = World(DECEMBER_NS - DAY_NS)
    assert world.look() == 202611
    for number in range(600):
        world.error_ns = (40 + number) * DAY_NS
        assert world.pass_by(SECOND_NS) == 202611


def test_clock_that_creeps_ahead_by_less_than_an_hour_at_a_time_is_stopped_at_the_hour() -> None:
    world = World(DECEMBER_NS - DAY_NS)
    for _ in range(60):
        world.error_ns += 50 * MINUTE_NS
        assert world.pass_by(SECOND_NS) == 202611


def test_first_clock_is_the_database_s_where_the_wall_clock_is_wrong() -> None:
    world = World(DECEMBER_NS - DAY_NS, error_ns=-20_000 * DAY_NS)
    assert world.look(database=True) == 202611
    assert world.pass_by(10 * MINUTE_NS, database=True) == 202611


def test_after_a_restart_another_month_than_the_gate_s_must_be_confirmed() -> None:
    world = World(DECEMBER_NS - DAY_NS, month=202611, error_ns=40 * DAY_NS)
    assert world.look() is None
    world.error_ns = 0
    assert world.look() == 202611
    ahead = World(DECEMBER_NS + DAY_NS, month=202611)
    assert ahead.look() is None
    assert ahead.look(database=True) == 202612
    alone = World(DECEMBER_NS + DAY_NS, month=202611)
    assert alone.pass_by(STEADY_NS) == 202612


def test_slow_drift_is_followed_for_ever() -> None:
    world = World(DECEMBER_NS - 20 * DAY_NS)
    for _ in range(48):  # half an hour every ten minutes: a machine that is suspended again and again
        world.error_ns += 30 * MINUTE_NS
        world.pass_by(10 * MINUTE_NS)
    assert not world.guard.doubts(world.true_ns + world.error_ns, world.mono_ns)


_steps = st.lists(
    st.tuples(
        st.integers(0, 400 * SECOND_NS),
        st.sampled_from([0, 0, 0, SECOND_NS, -SECOND_NS, 50 * MINUTE_NS, -50 * MINUTE_NS, 3 * HOUR_NS])
        | st.integers(-400 * DAY_NS, 400 * DAY_NS),
        st.sampled_from(["away", "right", "wrong"]),
    ),
    max_size=80,
)


@given(_steps)
def test_month_goes_back_only_when_the_clock_that_is_believed_is_hours_before_it(
    steps: list[tuple[int, int, str]],
) -> None:
    guard, mono_ns, wall_ns, before = MonthGuard(), BOOT_NS, DECEMBER_NS, 0
    for passed_ns, jump_ns, database in steps:
        mono_ns += passed_ns
        wall_ns += passed_ns + jump_ns
        second_ns = {"away": None, "right": wall_ns, "wrong": wall_ns + 500 * DAY_NS}[database]
        found = guard.look(wall_ns, mono_ns, second_ns)
        assert found is not None, "nothing was known before"
        start_ns = month_start_s(next_month(found.month)) * SECOND_NS
        believed_ns = mono_ns + start_ns - found.ends_mono_ns
        assert found.month in (month_at(believed_ns), month_at(believed_ns + 2 * JUMP_NS))
        if found.month < before:
            assert month_at(believed_ns + 2 * JUMP_NS) < before
        before = found.month


@given(st.lists(st.tuples(st.integers(0, 100 * SECOND_NS), st.integers(-400 * DAY_NS, 400 * DAY_NS))))
def test_with_an_honest_database_no_wall_clock_moves_the_month_by_more_than_its_hour(
    steps: list[tuple[int, int]],
) -> None:
    world = World(DECEMBER_NS - DAY_NS)
    world.look(database=True)
    for passed_ns, error_ns in steps:
        world.true_ns, world.mono_ns, world.error_ns = (
            world.true_ns + passed_ns,
            world.mono_ns + passed_ns,
            error_ns,
        )
        near = {month_at(world.true_ns + shift) for shift in (-2 * HOUR_NS, 0, 2 * HOUR_NS)}
        assert world.look(database=True) in near
