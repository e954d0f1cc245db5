"""What an HTTP worker is made of."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pricing.catalogue import Catalogue
from telemetry import traffic
from telemetry.segments import Segment, find_segments
from tests.trinity_site.tables import CATALOGUE, Tables, until
from trinity_site import sources
from trinity_site.runtime import Runtime, open_runtime
from trinity_site.sources import cancelled


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Tables:
    return Tables(monkeypatch)


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
        TRINITY_SPOOL_BYTES=8 * 65_536,
        TRINITY_SPOOL_SEGMENT_BYTES=65_536,
        TRINITY_SPOOL_SYNC_MS=1_000,
        TRINITY_SPOOL_FULL="refuse",
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


async def test_worker_has_a_segment_for_its_usage_records_from_its_first_answer_on(
    tables: Tables, tmp_path: Path
) -> None:
    async with opened(tmp_path):
        (path,) = find_segments(tmp_path / "spool")
        with Segment(path) as segment:
            assert segment.identity[0] == "RuntimeTest"
            assert (segment.header.row, segment.alive) == (1, True)
    assert list(find_segments(tmp_path / "spool")) == []  # nothing was answered


async def test_worker_opens_without_a_database(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.dead = True
    monkeypatch.setattr(sources, "FIRST_READING_S", 0.03)
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
    await cancelled(task)
    assert segments() == []
