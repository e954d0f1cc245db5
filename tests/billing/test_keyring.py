"""The keyring between a gate in memory and a database that comes and goes."""

from __future__ import annotations

import asyncio
import dataclasses
import mmap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from billing._gate import (
    ADMITTED,
    DEMO,
    QUOTA_EXCEEDED,
    RATE_LIMITED,
    REVOKED,
    UNKNOWN,
    WRONG_NETWORK,
    WRONG_SCOPE,
    Gate,
    GateKey,
)
from billing.admission import pack_address
from billing.keyring import Keyring
from billing.ratelimit import SECOND_NS, month_start_s, next_month, previous_month
from tests.billing.gates import MONTH, QUICK, FakeDatabase, ask, ask_often, make_memory, open_writer

DAY_NS = 86_400 * SECOND_NS


@pytest.fixture
def memory() -> mmap.mmap:
    return make_memory()


@pytest.fixture
def gate(memory: mmap.mmap) -> Iterator[Gate]:
    """The gate as a worker has it."""
    with Gate(memory) as gate:
        yield gate


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


@asynccontextmanager
async def kept(memory: mmap.mmap, database: FakeDatabase, **options: object) -> AsyncIterator[Keyring]:
    """Keep a gate, and stop in order."""
    stop = asyncio.Event()
    with open_writer(memory) as writer:
        chosen = {"rhythm": QUICK, **options}
        keyring = Keyring(writer, database.store("A"), node="A", **chosen)  # type: ignore[arg-type]  # by name
        running = asyncio.create_task(keyring.run(stop))
        try:
            yield keyring
        finally:
            stop.set()
            async with asyncio.timeout(10):
                await running


@asynccontextmanager
async def loaded(memory: mmap.mmap, database: FakeDatabase, **options: object) -> AsyncIterator[Keyring]:
    async with kept(memory, database, **options) as keyring:
        async with asyncio.timeout(5):
            await keyring.loaded.wait()
        yield keyring


async def until(condition: Callable[[], bool], limit_s: float = 2.0) -> None:
    """Wait until *condition* holds, at most as long as a change may take."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  # the keyring is waited for
            await asyncio.sleep(0.01)


# Keys


async def test_every_key_is_in_the_gate_once_it_is_loaded(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.put(1)
    database.put(2, revoked=True)
    async with loaded(memory, database):
        assert [ask(gate, key_id).code for key_id in (1, 2, 3)] == [ADMITTED, REVOKED, UNKNOWN]


async def test_gate_has_no_month_before_it_is_loaded(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.away = True
    async with kept(memory, database) as keyring:
        await until(lambda: database.asked > 2)
        assert gate.month(time.monotonic_ns()) == 0
        assert not keyring.loaded.is_set()
        database.away = False
        await until(keyring.loaded.is_set)
        assert gate.month(time.monotonic_ns()) == MONTH


async def test_new_changed_and_revoked_keys_are_followed(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    async with loaded(memory, database):
        database.put(1)
        await until(lambda: ask(gate, 1).code == ADMITTED)
        database.put(1, requests_per_second=1, burst=1)
        await until(lambda: ask(gate, 1).code == RATE_LIMITED)
        database.put(1, revoked=True)
        await until(lambda: ask(gate, 1).code == REVOKED)
        database.put(1)
        await until(lambda: ask(gate, 1).code == ADMITTED)


async def test_networks_and_scopes_of_a_key_are_kept_to(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.put(1, networks=("192.0.2.0/24",))
    database.put(2, scope_prices=False)
    async with loaded(memory, database):
        assert ask(gate, 1, address=pack_address("192.0.2.7")).code == ADMITTED
        assert ask(gate, 1, address=pack_address("192.0.3.7")).code == WRONG_NETWORK
        assert ask(gate, 2).code == WRONG_SCOPE


async def test_database_that_dies_takes_no_key_and_is_found_again(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.put(1)
    async with loaded(memory, database):
        database.away = True
        asked = database.asked
        await until(lambda: database.asked > asked + 3)
        assert ask(gate, 1).code == ADMITTED
        database.put(2)
        database.away = False
        await until(lambda: ask(gate, 2).code == ADMITTED)


async def test_restored_database_is_read_anew(memory: mmap.mmap, gate: Gate, database: FakeDatabase) -> None:
    database.put(1, requests_per_month=10)
    kept_rows, kept_revision = dict(database.rows), database.revision
    async with loaded(memory, database) as keyring:
        database.put(1, revoked=True)
        database.put(2)
        await until(lambda: ask(gate, 2).code == ADMITTED and ask(gate, 1).code == REVOKED)
        database.rows, database.revision = kept_rows, kept_revision
        await until(lambda: keyring.revision == kept_revision)
        assert (ask(gate, 1).code, ask(gate, 2).code) == (ADMITTED, UNKNOWN)
        database.put(3)
        await until(lambda: ask(gate, 3).code == ADMITTED)


async def test_another_database_s_number_for_a_key_is_taken_over(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.put(1)
    async with loaded(memory, database):
        pass
    database.rows = {7: database.rows[1]._replace(key_id=7)}
    database.counts.clear()
    async with loaded(memory, database):
        assert ask(gate, 1).key_id == 7


async def test_rows_that_are_always_there_stay_whatever_the_database_says(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    bucket = GateKey(b"b" * 32, key_id=1 << 62, flags=DEMO)

    def ask_bucket() -> int:
        return gate.admit_digest(b"b" * 32, time.monotonic_ns(), int(time.time()), 0).code

    for _ in range(2):
        async with loaded(memory, database, extra=[bucket]):
            assert ask_bucket() == ADMITTED
    assert database.counts == {}, "they are not the database's"
    async with loaded(memory, database):
        assert ask_bucket() == UNKNOWN, "of another secret"


# Keys that do not fit


async def test_full_gate_leaves_out_what_is_too_much_and_goes_on(
    database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    memory = make_memory(rows=2)
    for key_id in (1, 2, 3, 4):
        database.put(key_id)
    with Gate(memory) as gate:
        async with loaded(memory, database) as keyring:
            assert keyring.left_out == 2
            database.put(1, revoked=True)
            await until(lambda: ask(gate, 3).code == ADMITTED)
            assert (ask(gate, 1).code, ask(gate, 2).code) == (UNKNOWN, ADMITTED)
            assert keyring.left_out == 1
    assert caplog.text.count("not in the gate") == 1, "told once a minute"


async def test_gate_that_is_full_of_revoked_keys_takes_every_live_one(database: FakeDatabase) -> None:
    for key_id in range(1, 21):
        database.put(key_id, revoked=True, revoked_s=key_id)
    database.put(21)
    memory = make_memory(rows=4)
    with Gate(memory) as gate:
        async with loaded(memory, database) as keyring:
            assert (gate.keys, ask(gate, 21).code, ask(gate, 20).code) == (4, ADMITTED, REVOKED)
            for key_id in range(22, 25):
                database.put(key_id)
                await until(lambda key_id=key_id: ask(gate, key_id).code == ADMITTED)  # type: ignore[misc]  # bound now
            assert (ask(gate, 20).code, keyring.left_out) == (UNKNOWN, 0)
        database.put(21, revoked=True, revoked_s=21)
        database.put(25)
        async with loaded(memory, database) as keyring:  # which finds the rows of the one before
            assert (ask(gate, 25).code, keyring.left_out) == (ADMITTED, 0)


async def test_what_a_key_without_a_row_had_saved_counts_for_its_account(database: FakeDatabase) -> None:
    limits = {"account_id": 70, "shares_month": True, "requests_per_month": 100}
    for key_id in range(1, 21):
        database.put(key_id, revoked=True, revoked_s=key_id, **limits)
    database.put(21, **limits)
    database.counts[("A", MONTH)] = {1: 40}
    memory = make_memory(rows=4)
    with Gate(memory) as gate:
        async with loaded(memory, database):
            assert (ask(gate, 1).code, ask(gate, 21).cap_remaining) == (UNKNOWN, 59)


async def test_counts_of_a_key_that_makes_way_are_saved(database: FakeDatabase) -> None:
    memory, seldom = make_memory(rows=2), dataclasses.replace(QUICK, counts_s=60, save_s=60)
    database.page = 10
    database.put(1)
    database.put(2)
    with Gate(memory) as gate:
        async with loaded(memory, database, rhythm=seldom):
            ask_often(gate, 1, 3)
            database.put(1, revoked=True, revoked_s=1)
            database.put(3)
            await until(lambda: ask(gate, 3).code == ADMITTED)
        assert database.counts[("A", MONTH)] == {1: 3, 3: 1}
        ask_often(gate, 2, 5)  # while there is no keyring
        database.put(2, revoked=True, revoked_s=2)
        database.put(4)
        async with loaded(memory, database, rhythm=seldom):
            assert (ask(gate, 2).code, ask(gate, 4).code) == (UNKNOWN, ADMITTED)
    assert database.counts[("A", MONTH)] == {1: 3, 2: 5, 3: 1, 4: 1}


async def test_key_whose_new_networks_do_not_fit_is_refused_until_they_do(database: FakeDatabase) -> None:
    memory = make_memory(rows=16)  # lists of networks for ten
    address = pack_address("192.0.2.7")
    for key_id in range(10):
        database.put(key_id, networks=("192.0.2.0/24",))
    database.put(10)
    with Gate(memory) as gate:
        async with loaded(memory, database) as keyring:
            database.put(10, networks=("198.51.100.0/24",))
            await until(lambda: keyring.left_out == 1)
            assert ask(gate, 10, address=address).code == REVOKED, "never with wider limits than it has"
            database.put(0, revoked=True)
            await until(lambda: ask(gate, 10, address=address).code == WRONG_NETWORK)
            assert keyring.left_out == 0


async def test_row_that_cannot_be_read_is_refused_and_hurts_no_other(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.put(1)
    async with loaded(memory, database) as keyring:
        database.put(1, networks=("nonsense",))
        database.put(2)
        await until(lambda: ask(gate, 2).code == ADMITTED)
        assert (ask(gate, 1).code, keyring.left_out) == (REVOKED, 1)


# Counts


async def test_counts_and_last_uses_are_saved(memory: mmap.mmap, gate: Gate, database: FakeDatabase) -> None:
    database.put(1)
    async with loaded(memory, database):
        ask_often(gate, 1, 5)
        await until(lambda: database.counts.get(("A", MONTH)) == {1: 5})
        assert abs(database.uses[1].timestamp() - time.time()) < 5


async def test_last_counts_are_saved_when_the_keyring_stops(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.put(1)
    async with loaded(memory, database):
        await until(lambda: ask_often(gate, 1, 1) == 1)
    assert database.counts[("A", MONTH)] == {1: 1}


async def test_counts_that_could_not_be_saved_are_saved_later(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.put(1)
    async with loaded(memory, database):
        database.away = True
        ask_often(gate, 1, 5)
        asked = database.asked
        await until(lambda: database.asked > asked + 10)
        assert database.counts == {}
        database.away = False
        await until(lambda: database.counts.get(("A", MONTH)) == {1: 5})


async def test_fresh_gate_goes_on_from_what_was_saved(database: FakeDatabase) -> None:
    database.put(1, requests_per_month=10)
    database.counts[("A", MONTH)] = {1: 4}
    database.counts[("B", MONTH)] = {1: 3}
    memory = make_memory()
    with Gate(memory) as gate:
        async with loaded(memory, database):
            assert ask_often(gate, 1, 10) == 3
            assert ask(gate, 1).code == QUOTA_EXCEEDED


async def test_gate_that_outlived_its_keyring_keeps_its_own_larger_counts(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.put(1, requests_per_month=10)
    async with loaded(memory, database):
        pass
    ask_often(gate, 1, 8)  # nobody saves them: the keyring is dead
    database.counts[("A", MONTH)] = {1: 2}
    async with loaded(memory, database):
        assert ask_often(gate, 1, 10) == 2
    assert database.counts[("A", MONTH)] == {1: 10}


async def test_answers_that_reach_the_usage_logs_late_are_counted(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.put(1, requests_per_month=10)
    async with loaded(memory, database):
        database.counts[("A", MONTH)] = {1: 7}  # a killed node's, out of its spool
        await until(lambda: gate.total(0, MONTH) == 7)
        assert ask_often(gate, 1, 10) == 3


@pytest.mark.parametrize("node", ["A", "Gone"])
async def test_answers_of_months_before_that_reach_the_usage_logs_late_are_saved(
    node: str, memory: mmap.mmap, database: FakeDatabase
) -> None:
    database.put(1)
    before = (node, previous_month(previous_month(MONTH)))
    async with loaded(memory, database):
        database.logged[before] = {1: 7}  # out of a killed node's spool
        await until(lambda: database.counts.get(before) == {1: 7})


async def test_workers_are_answered_while_no_keyring_runs(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.put(1)
    async with loaded(memory, database):
        pass
    assert ask_often(gate, 1, 100) == 100


async def test_count_of_a_key_that_the_database_lost_keeps_no_other_from_being_saved(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.put(1)
    database.put(2)
    async with loaded(memory, database):
        database.away = True
        ask_often(gate, 1, 1)
        ask_often(gate, 2, 1)
        asked = database.asked
        await until(lambda: database.asked > asked + 5)
        del database.rows[2]
        database.revision = 1
        database.away = False
        await until(lambda: database.counts.get(("A", MONTH)) == {1: 1})


# The cap of an account


async def test_keys_of_a_customer_share_a_month(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    for key_id in (1, 2):
        database.put(key_id, account_id=70, shares_month=True, requests_per_month=10)
    async with loaded(memory, database):
        assert ask_often(gate, 1, 6) == 6
        await until(lambda: ask(gate, 2).cap_remaining <= 4)
        ask_often(gate, 2, 10)
        await until(lambda: ask(gate, 1).code == QUOTA_EXCEEDED)
        database.put(3, account_id=70, shares_month=True, requests_per_month=10)
        await until(lambda: ask(gate, 3).code == QUOTA_EXCEEDED)
        database.put(1, account_id=70, shares_month=True, requests_per_month=10, revoked=True)
        await until(lambda: ask(gate, 1).code == REVOKED)
        assert ask(gate, 3).code == QUOTA_EXCEEDED, "a revoked key's use stays the account's"


async def test_keys_that_nobody_signs_in_for_have_a_month_each(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    for key_id in (1, 2):
        database.put(key_id, account_id=70, requests_per_month=10)
    async with loaded(memory, database):
        assert ask_often(gate, 1, 10) == 10
        await until(lambda: database.counts.get(("A", MONTH)) == {1: 10})
        assert ask_often(gate, 2, 20) == 10


async def test_what_other_nodes_have_saved_counts_without_valkey(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.put(1, requests_per_month=10)
    async with loaded(memory, database):
        assert ask(gate, 1).cap_remaining == 9
        database.counts[("B", MONTH)] = {1: 7}
        await until(lambda: ask(gate, 1).cap_remaining < 3)


# The month


class Clocks:
    """A wall clock that can be set, beside the real monotonic one."""

    def __init__(self) -> None:
        self.error_ns = 0

    def wall_ns(self) -> int:
        return time.time_ns() + self.error_ns


async def test_wall_clock_that_the_database_contradicts_moves_no_month(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    clocks = Clocks()
    async with loaded(memory, database, wall_ns=clocks.wall_ns) as keyring:
        clocks.error_ns = 40 * DAY_NS
        for _ in range(3):
            await keyring.mind_month()
        assert gate.month(time.monotonic_ns()) == MONTH
        database.error_ns = 40 * DAY_NS
        await keyring.mind_month()
        assert gate.month(time.monotonic_ns()) > MONTH


async def test_new_month_begins_with_full_caps(memory: mmap.mmap, gate: Gate, database: FakeDatabase) -> None:
    clocks = Clocks()
    database.put(1, requests_per_month=10)
    database.counts[("B", MONTH)] = {1: 5}
    async with loaded(memory, database, wall_ns=clocks.wall_ns):
        assert ask_often(gate, 1, 10) == 5
        next_ns = (month_start_s(next_month(MONTH)) + 7_200) * SECOND_NS
        clocks.error_ns = database.error_ns = next_ns - time.time_ns()
        await until(lambda: ask(gate, 1).code == ADMITTED)
        assert ask_often(gate, 1, 20) >= 8
    assert database.counts[("A", MONTH)] == {1: 5}
    assert len(database.counts) == 3


# Stopping


async def test_heart_beats_and_stopping_leaves_no_task(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    before = asyncio.all_tasks()
    async with loaded(memory, database):
        beat_ns = gate.heartbeat_mono_ns
        await until(lambda: gate.heartbeat_mono_ns > beat_ns)
    assert asyncio.all_tasks() == before


async def test_cancelled_keyring_saves_and_leaves(
    memory: mmap.mmap, gate: Gate, database: FakeDatabase
) -> None:
    database.put(1)
    with open_writer(memory) as writer:
        keyring = Keyring(writer, database.store("A"), node="A")
        running = asyncio.create_task(keyring.run(asyncio.Event()))
        await keyring.loaded.wait()
        ask_often(gate, 1, 3)
        running.cancel()
        await asyncio.wait([running], timeout=5)
        assert running.cancelled()
    assert database.counts[("A", MONTH)] == {1: 3}
    assert len(asyncio.all_tasks()) == 1


async def test_stopping_before_the_database_was_there_is_at_once(
    memory: mmap.mmap, database: FakeDatabase
) -> None:
    database.away = True
    async with kept(memory, database):
        await until(lambda: database.asked > 0)
