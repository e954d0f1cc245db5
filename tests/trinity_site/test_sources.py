"""How a process follows the exchange tables."""

import os
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pricing.catalogue import Catalogue
from telemetry._counters import CounterReader, Counters, counters_size, format_counters
from tests.trinity_site.tables import CATALOGUE, Rest, Tables, follower_of, following, until
from trinity_site import sources


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Tables:
    return Tables(monkeypatch)


async def test_tables_are_read_again_only_when_their_revision_changed(tables: Tables) -> None:
    follower = follower_of(Rest())
    await follower.refresh()
    await follower.refresh()
    assert tables.loads == 1
    tables.revision = 2
    await follower.refresh()
    assert tables.loads == 2


async def test_change_during_the_reading_is_seen_by_the_next_one(tables: Tables) -> None:
    follower = follower_of(Rest())

    async def changed_meanwhile() -> Catalogue:
        tables.revision = 2
        return CATALOGUE

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "load_catalogue", changed_meanwhile)
        await follower.refresh()
    await follower.refresh()
    assert tables.loads == 2


async def test_dead_database_leaves_what_was_read_and_is_found_again(
    tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    follower = follower_of(Rest())
    async with following(follower):
        await until(lambda: follower.catalogue is CATALOGUE)
        tables.dead = True
        await until(lambda: "Reading the exchange tables failed" in caplog.text)
        assert follower.catalogue is CATALOGUE
        tables.catalogue, tables.revision, tables.dead = Catalogue({}, {}), 2, False
        await until(lambda: follower.catalogue is tables.catalogue)
    assert caplog.text.count("Reading the exchange tables failed") == 1


async def test_rest_follows_simulated_exchanges_in_a_demo(tables: Tables) -> None:
    tables.feeds = (SimpleNamespace(simulated=lambda url: f"simulated at {url}"),)
    rest = Rest()
    await follower_of(rest, "http://127.0.0.1:8090").refresh()
    await follower_of(rest).refresh()
    assert rest.followed == [("simulated at http://127.0.0.1:8090",), tables.feeds]


async def test_what_is_lost_for_want_of_room_is_counted_in_the_workers_row(tmp_path: Path) -> None:
    memory = bytearray(counters_size())
    format_counters(memory)
    reader = CounterReader(memory)
    settings: Any = SimpleNamespace(
        CLUSTER_NODE="SourcesTest",
        TRINITY_DATA_DIR=tmp_path,
        TRINITY_SPOOL_BYTES=2 * 65_536,
        TRINITY_SPOOL_SEGMENT_BYTES=65_536,
        TRINITY_SPOOL_SYNC_MS=1,
        TRINITY_SPOOL_FULL="refuse",
    )
    async with AsyncExitStack() as stack:
        spool = await sources.open_spool(stack, settings, Counters(memory, 7), row=7)
        assert os.listdir(tmp_path / "spool") == ["7"]
        spool.appender.refuse()
        await until(lambda: reader.unrecorded() == {"refused": 1, "shed": 0})
