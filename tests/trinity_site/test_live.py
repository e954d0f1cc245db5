"""The broadcast: everybody is told what changed, and nobody waits for anybody."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pricing.catalogue import PublicView
from pricing.parameters import Parameters
from tests.telemetry.counted import CountedNode
from tests.trinity_site.pages import board_of, catalogue_of
from trinity_site import live
from trinity_site.live import SIGN_OF_LIFE_S, Broadcast, TooManyWatchers, open_live, running


class Rows:
    """The rows to be read; *broken* makes the reading fail."""

    def __init__(self, **rows: object) -> None:
        self.rows: dict[str, object] = rows
        self.broken = False
        self.readings = 0

    def read(self) -> dict[str, object]:
        self.readings += 1
        if self.broken:
            raise ValueError("the board is closed")
        return dict(self.rows)


def broadcast_of(rows: Rows, *, limit: int = 10, on_demand: bool = False) -> Broadcast:
    return Broadcast(rows.read, lambda: 7, limit=limit, on_demand=on_demand)


async def next_of(messages: AsyncIterator[bytes]) -> dict[str, Any]:
    async with asyncio.timeout(5):
        message: dict[str, Any] = json.loads(await anext(messages))
        return message


async def says_nothing(messages: AsyncIterator[bytes]) -> bool:
    waiting = asyncio.ensure_future(anext(messages))
    done, _ = await asyncio.wait([waiting], timeout=0.02)
    waiting.cancel()
    return not done


async def test_watcher_is_told_everything_first_and_then_what_changed() -> None:
    rows = Rows(a=1, b=1)
    broadcast = broadcast_of(rows)
    broadcast.refresh()
    with broadcast.watch() as messages:
        assert await next_of(messages) == {"full": True, "now_ms": 7, "rows": {"a": 1, "b": 1}, "gone": []}
        rows.rows = {"b": 2}
        broadcast.refresh()
        assert await next_of(messages) == {"full": False, "now_ms": 7, "rows": {"b": 2}, "gone": ["a"]}


async def test_slow_watcher_skips_and_is_told_everything_again() -> None:
    rows = Rows(a=1, b=1)
    broadcast = broadcast_of(rows)
    with broadcast.watch() as slow:
        await next_of(slow)
        for number in (2, 3):
            rows.rows["a"] = number
            broadcast.refresh()
        message = await next_of(slow)
        assert (message["full"], message["rows"]) == (True, {"a": 3, "b": 1})
        assert await says_nothing(slow)


async def test_all_watchers_are_told_from_one_reading() -> None:
    rows = Rows(a=1)
    broadcast = broadcast_of(rows)
    with broadcast.watch() as first, broadcast.watch() as second:
        broadcast.refresh()
        assert await next_of(first) == await next_of(second)
    assert rows.readings == 1


async def test_nothing_is_said_while_nothing_changes_but_a_sign_of_life() -> None:
    broadcast = broadcast_of(Rows(a=1))
    broadcast.refresh()
    with broadcast.watch() as messages:
        await next_of(messages)
        for _ in range(int(SIGN_OF_LIFE_S) - 1):
            broadcast.refresh()
        assert await says_nothing(messages)
    with broadcast.watch() as messages:
        await next_of(messages)
        broadcast.refresh()
        assert (await next_of(messages))["rows"] == {}


async def test_place_among_too_many_is_refused_until_one_leaves() -> None:
    broadcast = broadcast_of(Rows(), limit=1)
    with broadcast.watch(), pytest.raises(TooManyWatchers), broadcast.watch():
        pass
    with broadcast.watch():
        assert broadcast.watchers == 1
    assert broadcast.watchers == 0


async def test_demanded_rows_are_read_only_while_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL_S", 0.001)
    rows = Rows(a=1)
    broadcast = broadcast_of(rows, on_demand=True)
    async with running(broadcast):
        await asyncio.sleep(0.02)
        assert rows.readings == 0
        with broadcast.watch() as messages:
            assert (await next_of(messages))["rows"] == {"a": 1}  # read for this watcher, not long ago
        await asyncio.sleep(0.02)
        readings = rows.readings
        await asyncio.sleep(0.02)
        assert rows.readings == readings


async def test_failed_reading_is_logged_once_and_the_next_one_counts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "INTERVAL_S", 0.001)
    rows = Rows(a=1)
    rows.broken = True
    broadcast = broadcast_of(rows)
    async with running(broadcast):
        with broadcast.watch() as messages:
            assert (await next_of(messages))["rows"] == {}
            async with asyncio.timeout(5):
                while rows.readings < 5:  # noqa: ASYNC110 (the broadcast reads by the clock)
                    await asyncio.sleep(0.001)
            rows.broken = False
            assert (await next_of(messages))["rows"] == {"a": 1}
    assert caplog.text.count("Reading the board for the pages that watch it failed") == 1


async def test_live_part_leaves_no_task_behind(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    board, catalogue = board_of(time.monotonic_ns()), catalogue_of("BTC")
    view = PublicView(lambda: catalogue)
    opening = open_live(board, view, Parameters(), CountedNode(tmp_path).traffic())
    async with opening as opened, opened.listings([("BTC", "coinbase")]):
        assert len(asyncio.all_tasks()) == len(before) + 3
    assert asyncio.all_tasks() == before
