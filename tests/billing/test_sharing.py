"""Nodes that share counts and news of keys, over a real Valkey that dies, freezes and comes back."""

from __future__ import annotations

import asyncio
import dataclasses
import mmap
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from billing import sharing as module
from billing._gate import QUOTA_EXCEEDED, REVOKED, Gate
from billing.exceptions import SharingError
from billing.keyring import Keyring, Rhythm
from billing.sharing import EXPIRY_S, HOLD_S, USAGE, Announcer, Sharing, Told
from tests.billing.gates import (
    INSTALLATION,
    MONTH,
    FakeDatabase,
    ask,
    ask_often,
    make_memory,
    open_writer,
    text_of,
)
from tests.valkeys import ValkeyServer

NAMES = f"{USAGE}:{INSTALLATION}"
DEAD = "redis://127.0.0.1:1/0"
LIVELY = Rhythm(keys_s=0.05, counts_s=0.1, save_s=60, others_s=60)  # so that only Valkey passes counts on
LONE = Rhythm(keys_s=0.05, counts_s=0.1, save_s=0.2, others_s=0.5)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture
async def client(server: ValkeyServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


def make_sharing(url: str, node: str, installation: str = INSTALLATION) -> Sharing:
    sharing = Sharing(url, node=node)
    sharing.installation = installation
    return sharing


class Heard:
    """What one node hears of the others."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.connections = 0
        self.changes = 0

    async def connected(self) -> None:
        self.connections += 1

    def keys_changed(self) -> None:
        self.changes += 1


@asynccontextmanager
async def listening(
    url: str, node: str, installation: str = INSTALLATION
) -> AsyncIterator[tuple[Sharing, Heard]]:
    sharing, heard = make_sharing(url, node, installation), Heard()
    running = asyncio.create_task(
        sharing.run(connected=heard.connected, told=heard.told.append, keys_changed=heard.keys_changed)
    )
    await until(lambda: sharing.is_listening)
    yield sharing, heard
    running.cancel()
    await asyncio.wait([running])
    await sharing.aclose()


class Node:
    """A keyring, and its gate as a worker has it."""

    def __init__(self, name: str, database: FakeDatabase, url: str, memory: mmap.mmap | None = None) -> None:
        self.memory = memory or make_memory()
        self.gate = Gate(self.memory)
        self.name = name
        self.sharing = make_sharing(url, name) if url else None
        self._database = database

    @asynccontextmanager
    async def running(self, rhythm: Rhythm) -> AsyncIterator[Node]:
        stop = asyncio.Event()
        with open_writer(self.memory) as writer, self.gate:
            keyring = Keyring(
                writer, self._database.store(self.name), node=self.name, sharing=self.sharing, rhythm=rhythm
            )
            running = asyncio.create_task(keyring.run(stop))
            await until(keyring.loaded.is_set)
            if self.sharing is not None:
                await until(lambda: self.sharing is not None and self.sharing.is_listening)
            try:
                yield self
            finally:
                stop.set()
                await running
                if self.sharing is not None:
                    await self.sharing.aclose()

    def left(self, key_id: int = 1) -> int:
        """Return how much of the month's cap is left, without asking for any of it."""
        return self.gate.admit(
            text_of(key_id), time.monotonic_ns(), int(time.time()), take=False
        ).cap_remaining


@asynccontextmanager
async def two_nodes(
    database: FakeDatabase, url: str, rhythm: Rhythm = LIVELY
) -> AsyncIterator[tuple[Node, Node]]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Node("A", database, url).running(rhythm))
        other = await stack.enter_async_context(Node("B", database, url).running(rhythm))
        yield one, other


async def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  # other processes are waited for
            await asyncio.sleep(0.01)


async def read_all(url: str) -> dict[str, dict[int, int]]:
    sharing = make_sharing(url, "nobody")
    try:
        return await sharing.read(MONTH)
    except SharingError:
        return {}
    finally:
        await sharing.aclose()


async def until_async(
    read: Callable[[], Awaitable[dict[str, dict[int, int]]]], expected: dict[str, dict[int, int]]
) -> None:
    async with asyncio.timeout(5):
        while await read() != expected:  # noqa: ASYNC110  # another connection is waited for
            await asyncio.sleep(0.05)


# The door


async def test_totals_are_kept_by_node_and_expire(server: ValkeyServer, client: Redis) -> None:
    one, other = make_sharing(server.url, "A"), make_sharing(server.url, "B")
    await one.tell(MONTH, {1: 5, 2: 7})
    await one.tell(MONTH, {1: 5})
    await other.tell(MONTH, {1: 3})
    await one.tell(202001, {1: 1})
    assert await other.read(MONTH) == {"A": {1: 5, 2: 7}, "B": {1: 3}}
    for name in (f"{NAMES}:{MONTH}:node:A", f"{NAMES}:{MONTH}:nodes"):
        assert EXPIRY_S - 60 < await client.ttl(name) <= EXPIRY_S
    await one.aclose()
    await other.aclose()


async def test_large_totals_are_told_and_read_in_pieces(server: ValkeyServer) -> None:
    totals = {key_id: key_id for key_id in range(1, 12_001)}
    async with listening(server.url, "B") as (other, heard):
        one = make_sharing(server.url, "A")
        await one.tell(MONTH, totals)
        await until(lambda: len(heard.told) == 3)
        assert {key: value for row in heard.told for key, value in row.totals.items()} == totals
        assert (await other.read(MONTH))["A"] == totals
        await one.aclose()


async def test_node_hears_the_others_and_not_itself(server: ValkeyServer) -> None:
    async with listening(server.url, "A") as (one, heard), listening(server.url, "B") as (other, _):
        await one.tell(MONTH, {1: 5})
        await other.tell(MONTH, {1: 3})
        await until(lambda: bool(heard.told))
        assert [(row.node, row.month, row.totals) for row in heard.told] == [("B", MONTH, {1: 3})]


async def test_what_is_no_message_is_counted_and_ignored(server: ValkeyServer, client: Redis) -> None:
    async with listening(server.url, "A") as (one, heard), listening(server.url, "B") as (other, _):
        for data in (b"", b"nonsense", b"\x93\xa1B\xc0\xc0", b'["B",1]'):
            await client.publish(f"{NAMES}:told", data)
        await client.hset(f"{NAMES}:{MONTH}:node:B", mapping={"x": "1", "2": "y", "3": "4"})
        await other.tell(MONTH, {1: 3})
        await until(lambda: bool(heard.told))
        assert (len(heard.told), one.malformed) == (1, 4)
        assert await one.read(MONTH) == {"B": {1: 3, 3: 4}}


async def test_another_installation_on_the_server_is_another_world(server: ValkeyServer) -> None:
    async with (
        listening(server.url, "A") as (one, heard),
        listening(server.url, "B", "two") as (other, theirs),
    ):
        await other.tell(MONTH, {1: 3})
        await one.tell(MONTH, {1: 3})
        assert await one.read(MONTH) == {"A": {1: 3}}
        one.installation = "two"  # as when a backup of the other database was restored
        await until(lambda: heard.connections == 2, 8)
        await other.tell(MONTH, {1: 5})
        await until(lambda: bool(heard.told))
        assert [row.totals for row in heard.told] == [{1: 5}]
        assert (await one.read(MONTH), theirs.told) == ({"B": {1: 5}}, [])


async def test_node_may_have_any_name(server: ValkeyServer) -> None:
    sharing = make_sharing(server.url, "nodes")
    await sharing.tell(MONTH, {1: 5})
    assert await sharing.hold_name()
    assert await sharing.read(MONTH) == {"nodes": {1: 5}}
    await sharing.aclose()


async def test_name_that_another_keyring_holds_is_not_free_until_that_is_dead(
    server: ValkeyServer, client: Redis
) -> None:
    one, other, third = (make_sharing(server.url, name) for name in "AAB")
    for _ in range(2):
        assert await one.hold_name()
        assert await third.hold_name()
    assert 0 < await client.ttl(f"{NAMES}:holder:A") <= HOLD_S
    assert await other.hold_name(), "who was there may be dead"
    for _ in range(2):
        assert await one.hold_name()
        assert not await other.hold_name()
    assert await other.hold_name(), "dead, by now"
    await client.delete(f"{NAMES}:holder:A")  # as time does
    assert await other.hold_name()
    assert await one.hold_name() is False
    for sharing in (one, other, third):
        await sharing.aclose()


async def test_dead_server_is_one_error_within_its_time(server: ValkeyServer) -> None:
    sharing = make_sharing(DEAD, "A")
    with pytest.raises(SharingError):
        await sharing.tell(MONTH, {1: 1})
    with pytest.raises(SharingError):
        await sharing.read(MONTH)
    await sharing.aclose()
    frozen = make_sharing(server.url, "A")
    await frozen.tell(MONTH, {1: 1})
    server.process.send_signal(signal.SIGSTOP)
    started_s = time.monotonic()
    with pytest.raises(SharingError):
        await frozen.tell(MONTH, {1: 1})
    assert time.monotonic() - started_s < 3
    server.process.send_signal(signal.SIGCONT)
    await frozen.aclose()


async def test_listener_says_each_time_that_it_may_have_missed_something(
    server: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(server.url, "A") as (one, heard):
        server.kill()
        await until(lambda: not one.is_listening)
        server.start()
        await until(lambda: one.is_listening)
        assert heard.connections == 2
        async with listening(server.url, "B") as (other, _):
            await other.tell(MONTH, {1: 3})
            await until(lambda: bool(heard.told))
    assert caplog.text.count("not shared") == 1, "told once a minute"


async def test_frozen_server_is_noticed_and_found_again(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ALIVE_S", 0.2)
    async with listening(server.url, "A") as (one, heard):
        await asyncio.sleep(0.6)
        assert one.is_listening, "a quiet one is asked, and answers"
        server.process.send_signal(signal.SIGSTOP)
        await until(lambda: not one.is_listening)
        server.process.send_signal(signal.SIGCONT)
        await until(lambda: one.is_listening)
        assert heard.connections == 2


async def test_cancelled_listener_leaves_no_task(server: ValkeyServer) -> None:
    before = asyncio.all_tasks()
    async with listening(server.url, "A"):
        pass
    assert asyncio.all_tasks() == before


async def test_cancellation_at_the_instant_of_a_ping_is_not_lost(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ALIVE_S", 0.02)
    drain = asyncio.StreamWriter.drain

    async def drain_and_be_cancelled(self: asyncio.StreamWriter) -> None:
        await drain(self)
        if sharing.is_listening:  # nothing but pings is sent by then
            running.cancel()

    monkeypatch.setattr(asyncio.StreamWriter, "drain", drain_and_be_cancelled)
    sharing, heard = make_sharing(server.url, "A"), Heard()
    running = asyncio.create_task(
        sharing.run(connected=heard.connected, told=heard.told.append, keys_changed=heard.keys_changed)
    )
    await asyncio.wait([running], timeout=2)
    assert running.cancelled()
    await sharing.aclose()


# News of keys


async def test_announcement_reaches_every_node(server: ValkeyServer) -> None:
    announcer = Announcer(server.url)
    async with listening(server.url, "A") as (_, one), listening(server.url, "B") as (_, other):
        announcer.announce()
        await until(lambda: one.changes == other.changes == 1)
    announcer.close()


def test_announcement_to_nobody_costs_little_and_is_logged_seldom(caplog: pytest.LogCaptureFixture) -> None:
    now_ns = [0]
    announcer = Announcer(DEAD, mono_ns=lambda: now_ns[0])
    started_s = time.monotonic()
    for _ in range(50):
        announcer.announce()
    assert time.monotonic() - started_s < 2
    now_ns[0] = 10_000_000_000
    announcer.announce()
    assert caplog.text.count("were not told") == 1
    announcer.close()


def test_announcement_to_a_frozen_server_is_given_up_at_once(server: ValkeyServer) -> None:
    announcer = Announcer(server.url)
    announcer.announce()
    server.process.send_signal(signal.SIGSTOP)
    started_s = time.monotonic()
    for _ in range(20):
        announcer.announce()
    assert time.monotonic() - started_s < 1.5
    announcer.close()


async def test_revoked_key_is_out_of_every_gate_at_once(server: ValkeyServer, database: FakeDatabase) -> None:
    database.put(1)
    announcer = Announcer(server.url)
    slow = dataclasses.replace(LIVELY, keys_s=60)  # nothing but the announcement makes them look
    async with two_nodes(database, server.url, slow) as nodes:
        database.put(1, revoked=True)
        announcer.announce()
        for node in nodes:
            await until(lambda gate=node.gate: ask(gate, 1).code == REVOKED, 1.0)  # type: ignore[misc]  # bound now
    announcer.close()


# Two nodes


async def test_what_one_node_counts_is_used_up_on_the_other(
    server: ValkeyServer, database: FakeDatabase
) -> None:
    database.put(1, requests_per_month=100)
    async with two_nodes(database, server.url) as (one, other):
        assert ask_often(one.gate, 1, 60) == 60
        await until(lambda: other.left() == 40)
        assert ask_often(other.gate, 1, 100) == 40
        await until(lambda: one.left() == 0)
        assert ask(one.gate, 1).code == QUOTA_EXCEEDED


async def test_keys_of_an_account_share_its_month_across_nodes(
    server: ValkeyServer, database: FakeDatabase
) -> None:
    for key_id in (1, 2):
        database.put(key_id, account_id=70, shares_month=True, requests_per_month=100)
    async with two_nodes(database, server.url) as (one, other):
        ask_often(one.gate, 1, 30)
        ask_often(other.gate, 2, 20)
        for node in (one, other):
            for key_id in (1, 2):
                await until(lambda node=node, key_id=key_id: node.left(key_id) == 50)  # type: ignore[misc]


async def test_overshoot_with_valkey_is_what_is_admitted_in_about_a_second(
    server: ValkeyServer, database: FakeDatabase
) -> None:
    cap, per_second, period_s = 100, 100, LIVELY.counts_s
    database.put(1, requests_per_month=cap, requests_per_second=per_second, burst=1)
    async with two_nodes(database, server.url) as nodes:
        admitted, end_s = 0, time.monotonic() + 1.5
        while time.monotonic() < end_s:
            admitted += sum(ask(node.gate, 1).code == 0 for node in nodes)
            await asyncio.sleep(0.002)
    latency_s = 0.4  # of a busy machine: two collections and the way
    assert cap <= admitted <= cap + len(nodes) * per_second * (period_s + latency_s)


async def test_overshoot_without_valkey_is_the_other_nodes_caps_until_the_database_is_read(
    database: FakeDatabase,
) -> None:
    database.put(1, requests_per_month=100)
    async with two_nodes(database, "", LONE) as (one, other):
        assert ask_often(one.gate, 1, 300) + ask_often(other.gate, 1, 300) == 200
        database.put(1, requests_per_month=250)
        await until(lambda: one.left() == other.left() == 50)
    assert database.counts == {("A", MONTH): {1: 100}, ("B", MONTH): {1: 100}}


async def test_second_node_of_one_name_is_told_so_and_counts_what_the_first_one_does(
    server: ValkeyServer, database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    database.put(1, requests_per_month=100)
    rhythm = dataclasses.replace(LIVELY, name_s=0.1)
    async with (
        Node("A", database, server.url).running(rhythm),
        Node("A", database, server.url).running(rhythm) as other,
        Node("A", database, server.url).running(rhythm) as third,
    ):
        ask_often(other.gate, 1, 30)
        await until(lambda: third.left() == 70)
        await until(lambda: "CLUSTER_NODE" in caplog.text)
        await asyncio.sleep(0.5)
    errors = [row.message for row in caplog.records if row.levelname == "ERROR"]
    assert len(errors) == 2, "once a minute, by each who came later"
    assert all("called A too" in error for error in errors)


async def test_restarted_node_is_no_second_one(
    server: ValkeyServer, database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    rhythm = dataclasses.replace(LIVELY, name_s=0.05)
    for _ in range(3):
        async with Node("A", database, server.url).running(rhythm):
            await asyncio.sleep(0.3)
    assert "CLUSTER_NODE" not in caplog.text


async def test_dead_valkey_stops_nobody_and_counts_converge_when_it_is_back(
    server: ValkeyServer, database: FakeDatabase
) -> None:
    database.put(1, requests_per_month=1_000)
    async with two_nodes(database, server.url) as (one, other):
        ask_often(one.gate, 1, 10)
        await until(lambda: other.left() == 990)
        server.kill()
        assert ask_often(one.gate, 1, 20) == 20
        assert ask_often(other.gate, 1, 30) == 30
        beat_ns = one.gate.heartbeat_mono_ns
        await until(lambda: one.gate.heartbeat_mono_ns > beat_ns)
        database.put(2)
        await until(lambda: ask(one.gate, 2).code == 0)
        server.start()  # empty: it forgets everything
        await until(lambda: one.left() == other.left() == 940)


async def test_server_that_forgot_everything_is_filled_again(
    server: ValkeyServer, client: Redis, database: FakeDatabase
) -> None:
    database.put(1, requests_per_month=100)
    async with Node("A", database, server.url).running(LIVELY) as one:
        ask_often(one.gate, 1, 60)
        await until_async(lambda: read_all(server.url), {"A": {1: 60}})
        server.kill()
        server.start()
        await until_async(lambda: read_all(server.url), {"A": {1: 60}})


async def test_node_that_joins_late_learns_what_was_told_before(
    server: ValkeyServer, database: FakeDatabase
) -> None:
    database.put(1, requests_per_month=100)
    async with Node("A", database, server.url).running(LIVELY) as one:
        ask_often(one.gate, 1, 60)
        await until_async(lambda: read_all(server.url), {"A": {1: 60}})
        async with Node("B", database, server.url).running(LIVELY) as other:
            await until(lambda: other.left() == 40)


async def test_node_that_lost_its_gate_takes_back_what_it_had_told(
    server: ValkeyServer, database: FakeDatabase
) -> None:
    database.put(1, requests_per_month=100)
    database.counts[("A", MONTH)] = {1: 50}  # as it was saved last
    before = make_sharing(server.url, "A")
    await before.tell(MONTH, {1: 70})
    await before.aclose()
    async with Node("A", database, server.url).running(LIVELY) as node:
        await until(lambda: node.left() == 30)
    assert database.counts[("A", MONTH)] == {1: 70}


async def test_idle_keys_cost_nothing(server: ValkeyServer, client: Redis, database: FakeDatabase) -> None:
    database.put(1)
    async with two_nodes(database, server.url) as (one, _):
        ask_often(one.gate, 1, 3)
        await asyncio.sleep(0.5)
        await client.config_resetstat()
        await asyncio.sleep(0.5)
        stats = await client.info("commandstats")
        assert not {"cmdstat_hset", "cmdstat_publish", "cmdstat_hscan"} & stats.keys()


async def test_read_only_valkey_is_logged_and_hurts_nobody(
    server: ValkeyServer, client: Redis, database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    database.put(1)
    async with two_nodes(database, server.url) as (one, _):
        await client.config_set("maxmemory", 1)  # full: writes are refused, reads and subscriptions are not
        ask_often(one.gate, 1, 3)
        await until(lambda: "could not be told" in caplog.text)
        assert ask(one.gate, 1).code == 0
