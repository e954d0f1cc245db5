"""What an HTTP worker is made of, and how it follows the tables."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from billing import offers
from exchanges.services import ExchangeTables
from pricing.catalogue import AssetInfo, Catalogue, ExchangeInfo, ListingInfo
from telemetry import traffic
from trinity_site import runtime
from trinity_site.runtime import Runtime, TableFollower, open_runtime

PATIENCE_S = 10.0
CATALOGUE = Catalogue(
    {"kraken": ExchangeInfo("kraken", "Kraken", "USD", enabled=True)},
    {"BTC": AssetInfo("BTC", "Major Currencies", "kraken", (ListingInfo("kraken", "BTC/USD", True, True),))},
)


class Tables:
    """The database as the follower sees it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.revision = 1
        self.catalogue = CATALOGUE
        self.feeds: tuple[Any, ...] = ()
        self.dead = False
        self.loads = 0
        monkeypatch.setattr(runtime, "table_revision", self._revision)
        monkeypatch.setattr(runtime, "load_exchanges", self._exchanges)
        monkeypatch.setattr(runtime, "load_catalogue", self._catalogue)
        monkeypatch.setattr(runtime, "POLL_S", 0.01)
        monkeypatch.setattr(offers, "load_offers", tuple)

    async def _revision(self) -> int:
        if self.dead:
            raise OSError("the database is gone")
        return self.revision

    async def _exchanges(self) -> ExchangeTables:
        self.loads += 1
        return ExchangeTables(self.feeds, (), {})

    async def _catalogue(self) -> Catalogue:
        return self.catalogue


class Rest:
    """Records what it was told to follow."""

    def __init__(self) -> None:
        self.followed: list[tuple[Any, ...]] = []

    def follow(self, specs: tuple[Any, ...], listings: tuple[Any, ...]) -> None:
        self.followed.append(specs)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Tables:
    return Tables(monkeypatch)


@asynccontextmanager
async def following(follower: TableFollower) -> AsyncIterator[None]:
    task = asyncio.create_task(follower.run())
    try:
        yield
    finally:
        await runtime.cancelled(task)


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (the follower polls; there is no event)
            await asyncio.sleep(0.005)


def follower_of(rest: Rest, simulator_url: str = "") -> TableFollower:
    chosen: Any = rest
    return TableFollower(chosen, simulator_url)


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
        patch.setattr(runtime, "load_catalogue", changed_meanwhile)
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


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Runtime]:
    settings: Any = SimpleNamespace(
        CLUSTER_NODE="RuntimeTest",
        TRINITY_DATA_DIR=folder,
        TRINITY_BOARD_SLOTS=64,
        TRINITY_GATE_ROWS=1_024,
        TRINITY_HTTP_WORKERS=2,
        SECRET_KEY="secret",
        ALLAUTH_TRUSTED_PROXY_COUNT=0,
        TRINITY_SIMULATOR_URL="",
        TRINITY_ALLOW_LOOPBACK_EXCHANGES=False,
        TRINITY_HEALTH_PORT=8081,
        REDIS_URL="",
    )
    async with open_runtime(settings, row=1) as built:
        yield built


def segments() -> list[Path]:
    return list(Path("/dev/shm").glob("trinity-RuntimeTest-*"))


async def test_worker_opens_without_feeds_and_leaves_nothing_behind(tables: Tables, tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with opened(tmp_path) as built:
        assert len(segments()) == 3
        assert built.tables.catalogue is CATALOGUE
        assert built.board.writer_pid == 0
        assert built.board.get("BTC", "kraken") is None
    assert segments() == []
    assert asyncio.all_tasks() == before


async def test_worker_keeps_what_was_counted_in_the_last_seconds(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "PERIOD_S", 0.01)
    async with opened(tmp_path) as built:
        await until(lambda: built.traffic.lately().elapsed_s > 0)
        assert built.traffic.counted.workers() == [1]
        built.traffic.reset()
    assert traffic.BASELINE in os.listdir(tmp_path)


async def test_worker_opens_without_a_database(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.dead = True
    monkeypatch.setattr(runtime, "FIRST_READING_S", 0.03)
    async with opened(tmp_path) as built:
        assert built.tables.catalogue == Catalogue({}, {})
        tables.dead = False
        await until(lambda: built.tables.catalogue is CATALOGUE)


async def test_cancelled_worker_leaves_nothing_behind(tables: Tables, tmp_path: Path) -> None:
    ready = asyncio.Event()

    async def work() -> None:
        async with opened(tmp_path):
            ready.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await ready.wait()
    await runtime.cancelled(task)
    assert segments() == []
