"""Key guessing: slowed down by address, recorded in bounded memory, and nobody else's trouble."""

import asyncio
from collections.abc import Sequence

import pytest
from asgiref.sync import async_to_sync
from hypothesis import given
from hypothesis import strategies as st

from billing import guessing
from billing.guessing import ELSEWHERE, MALFORMED, PER_MINUTE, REVOKED, UNKNOWN, Guesses, RefusedKey
from billing.models import SecurityEvent
from billing.ratelimit import SECOND_NS
from billing.security import record_refused_keys

HERE, THERE = "192.0.2.7", "198.51.100.9"
PREFIX = "tb_live_abcd"


class Records:
    """Keeps what is handed over."""

    def __init__(self) -> None:
        self.rows: list[RefusedKey] = []
        self.times = 0

    async def __call__(self, rows: Sequence[RefusedKey]) -> None:
        self.rows += rows
        self.times += 1


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def guesses(records: Records) -> Guesses:
    return Guesses(record=records)


def guess(guesses: Guesses, times: int, *, address: str = HERE, at_s: float = 1_000) -> list[int | None]:
    return [guesses.refused(address, PREFIX, int(at_s * SECOND_NS)) for _ in range(times)]


def test_address_that_guesses_too_often_is_told_how_long_to_wait(guesses: Guesses) -> None:
    assert guess(guesses, 20) == [None] * 20
    assert guess(guesses, 2) == [3, 3]
    assert guess(guesses, 1, at_s=1_002) == [1]
    assert guess(guesses, 2, at_s=1_003) == [None, 3]
    assert guess(guesses, 21, at_s=1_100) == [None] * 20 + [3]


def test_another_address_is_not_slowed_down(guesses: Guesses) -> None:
    guess(guesses, 30)
    assert guess(guesses, 1, address=THERE) == [None]


def test_ipv6_addresses_of_one_subscriber_are_one(guesses: Guesses) -> None:
    for number in range(20):
        guess(guesses, 1, address=f"2001:db8::{number:x}")
    assert guess(guesses, 1, address="2001:db8::ffff:1") == [3]
    assert guess(guesses, 1, address="2001:db8:0:1::1") == [None]
    guess(guesses, 20)
    assert guess(guesses, 1, address=f"::ffff:{HERE}") == [3]


def test_what_is_no_address_is_somebody_too(guesses: Guesses) -> None:
    guess(guesses, 20, address="")
    assert guess(guesses, 1, address="nonsense") == [3]


@given(st.lists(st.integers(0, 10 * SECOND_NS), max_size=200))
def test_no_minute_lets_more_guesses_through_than_a_burst_and_a_minute_s_worth(waits: list[int]) -> None:
    guesses = Guesses(record=Records())
    now_ns, admitted = 0, []
    for wait in waits:
        now_ns += wait
        if guesses.refused(HERE, PREFIX, now_ns) is None:
            admitted.append(now_ns)
    for start in admitted:
        within = [at for at in admitted if start <= at < start + 60 * SECOND_NS]
        assert len(within) <= 2 * PER_MINUTE


def test_workers_share_what_an_address_may_try() -> None:
    workers = [Guesses(record=Records(), workers=4) for _ in range(4)]
    assert [guess(one, 6).count(None) for one in workers] == [5] * 4
    assert [one.refused(HERE, PREFIX, 1_000 * SECOND_NS) for one in workers] == [12] * 4


async def test_attempts_are_handed_over_as_counts(guesses: Guesses, records: Records) -> None:
    guess(guesses, 25)
    guesses.refused(THERE, "", 0)
    guesses.note(REVOKED, THERE, PREFIX)
    guesses.note(ELSEWHERE, THERE, PREFIX)
    await guesses.hand_over()
    assert records.rows == [
        RefusedKey(UNKNOWN, HERE, PREFIX, 25),
        RefusedKey(MALFORMED, THERE, "", 1),
        RefusedKey(REVOKED, THERE, PREFIX, 1),
        RefusedKey(ELSEWHERE, THERE, PREFIX, 1),
    ]
    await guesses.hand_over()
    assert records.times == 1, "nothing was waiting"


async def test_real_key_that_is_refused_slows_nobody_down(guesses: Guesses) -> None:
    for _ in range(50):
        guesses.note(REVOKED, HERE, PREFIX)
    assert guess(guesses, 1) == [None]


async def test_made_up_names_are_told_for_the_first_few_only(guesses: Guesses, records: Records) -> None:
    for number in range(20):
        guesses.refused(HERE, f"tb_live_{number:04}", 0)
    await guesses.hand_over()
    names = {row.prefix: row.times for row in records.rows}
    assert names == {"tb_live_0000": 1, "tb_live_0001": 1, "tb_live_0002": 1, "": 17}


async def test_rows_that_wait_are_bounded_and_none_goes_uncounted(guesses: Guesses, records: Records) -> None:
    for number in range(2_000):
        guesses.refused(f"10.0.{number >> 8}.{number & 255}", PREFIX, 0)
    await guesses.hand_over()
    assert len(records.rows) == guessing.MOST_WAITING + 1
    assert records.rows[-1] == RefusedKey(UNKNOWN, "", "", 2_000 - guessing.MOST_WAITING)


def test_oldest_address_makes_room_and_is_counted(guesses: Guesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guessing, "MOST_ADDRESSES", 2)
    guess(guesses, 20)
    guess(guesses, 1, address=THERE)
    guess(guesses, 1)  # seen again: the other one is now the oldest
    guess(guesses, 1, address="203.0.113.1")
    assert guesses.dropped == 1
    assert guess(guesses, 1) == [3], "who still guesses is not forgotten"


def test_address_that_has_been_quiet_makes_room_unnoticed(
    guesses: Guesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guessing, "MOST_ADDRESSES", 1)
    guess(guesses, 20)
    guess(guesses, 1, address=THERE, at_s=2_000)
    assert guesses.dropped == 0


async def test_running_hands_over_until_cancelled(guesses: Guesses, records: Records) -> None:
    guess(guesses, 1)
    task = asyncio.create_task(guesses.run())
    async with asyncio.timeout(5):
        while not records.rows:  # noqa: ASYNC110  # the first round is at once
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_failed_hand_over_ends_nothing_and_loses_its_own_rows_only(records: Records) -> None:
    async def fail(rows: Sequence[RefusedKey]) -> None:
        raise OSError

    guesses = Guesses(record=fail)
    guess(guesses, 1)
    with pytest.raises(OSError):
        await guesses.hand_over()
    assert guess(guesses, 1) == [None]


@pytest.mark.django_db
def test_refused_keys_become_events() -> None:
    async_to_sync(record_refused_keys)(
        [
            RefusedKey(UNKNOWN, HERE, PREFIX, 3),
            RefusedKey(MALFORMED, "2001:db8::/64", "", 2),
            RefusedKey(REVOKED, "", "", 1),
        ]
    )
    rows = SecurityEvent.objects.order_by("-count").values_list("kind", "source", "subject", "count")
    assert list(rows) == [
        ("key_unknown", HERE, PREFIX, 3),
        ("key_malformed", "2001:db8::/64", "", 2),
        ("key_revoked", "", "", 1),
    ]


def test_kinds_are_those_of_the_record() -> None:
    assert {UNKNOWN, MALFORMED, REVOKED, ELSEWHERE} <= set(SecurityEvent.Kind.values)
