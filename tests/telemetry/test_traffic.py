"""Rates of a node: of the last seconds, and since a reset that writes to no counter."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from pathlib import Path

import pytest

from telemetry import traffic
from telemetry._counters import (
    DB_OPEN_CONNS,
    DROPPED_EMPTY,
    HTTP_LATENCY,
    TCP_REQUESTS,
    UDP_PACKETS_RECEIVED,
)
from telemetry.traffic import BASELINE, RECENT, replace_file
from tests.telemetry.counted import WALL_NS, CountedNode


@pytest.fixture
def node(tmp_path: Path) -> CountedNode:
    return CountedNode(tmp_path)


def test_everything_since_the_epoch_counts_before_the_first_reset(node: CountedNode) -> None:
    node.worker().add(TCP_REQUESTS, 7_200)
    rates, since_ns = node.traffic().since_reset()
    assert (rates.elapsed_s, rates.rps["tcp"]) == (3_600.0, 2.0)
    assert since_ns == node.reader.epoch_ns


def test_reset_writes_to_no_counter_and_holds_for_every_worker(node: CountedNode) -> None:
    counters, here, there = node.worker(), node.traffic(), node.traffic()
    counters.add(TCP_REQUESTS, 100)
    counters.drop(DROPPED_EMPTY, 3)
    counters.latency(HTTP_LATENCY, 1_000, 5)
    counters.add(DB_OPEN_CONNS, 4)
    before = bytes(node.memory)
    assert here.reset() == WALL_NS
    assert node.memory == before
    node.forward(4)
    counters.add(TCP_REQUESTS, 8)
    for worker in (here, there):
        rates, since_ns = worker.since_reset()
        assert (since_ns, rates.elapsed_s, rates.rps["tcp"]) == (WALL_NS, 4.0, 2.0)
        assert (rates.counters["tcp_requests"], rates.counters["db_open_conns"]) == (8, 4)
        assert (rates.drops["empty"].count, rates.latency_us["http"].count) == (0, 0)
        assert rates.latency_us["http"].mean is None


def test_second_reset_replaces_the_first(node: CountedNode) -> None:
    counters, here, there = node.worker(), node.traffic(), node.traffic()
    here.reset()
    counters.add(TCP_REQUESTS, 5)
    there.reset()
    assert here.since_reset()[0].counters["tcp_requests"] == 0


def test_reset_of_counters_that_are_gone_does_not_count(node: CountedNode) -> None:
    node.worker().add(TCP_REQUESTS, 1_000)
    node.traffic().reset()
    again = CountedNode(node.folder)  # the node was started anew: other memory, the same folder
    again.worker().add(TCP_REQUESTS, 3)
    rates, since_ns = again.traffic().since_reset()
    assert (rates.counters["tcp_requests"], since_ns) == (3, again.reader.epoch_ns)


def test_reset_from_the_future_does_not_count(node: CountedNode) -> None:
    node.forward(10)
    node.traffic().reset()
    node.forward(-5)
    assert node.traffic().since_reset()[1] == node.reader.epoch_ns


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"epoch_ns":1}', b"\xff", b'{"epoch_ns":"x"}'])
def test_unreadable_baseline_is_left_aside_and_said_once(
    node: CountedNode, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (node.folder / BASELINE).write_bytes(content)
    traffic = node.traffic()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert traffic.since_reset()[1] == node.reader.epoch_ns
    assert caplog.text.count("is not what a reset writes") == 1
    traffic.reset()
    assert traffic.since_reset()[1] == WALL_NS


def test_baseline_is_replaced_whole_and_is_for_the_nodes_user_alone(
    node: CountedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.traffic().reset()
    file = node.folder / BASELINE
    before = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def fail(*arguments: object) -> None:
        assert file.read_bytes() == before  # until the very last step the old one is there
        raise OSError("no space is left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        replace_file(file, b"new")
    assert [path.name for path in node.folder.iterdir()] == [BASELINE]
    assert file.read_bytes() == before


def test_last_seconds_are_about_five(node: CountedNode) -> None:
    counters, traffic = node.worker(), node.traffic()
    counters.add(TCP_REQUESTS, 1_000_000)  # long ago
    for _ in range(20):
        traffic.look()
        node.forward(1)
        counters.add(TCP_REQUESTS, 3)
    rates = traffic.lately()
    assert (rates.elapsed_s, rates.rps["tcp"]) == (RECENT + 1, 3.0)
    assert rates.counters["udp_packets_received"] == 0


def test_last_seconds_of_a_process_that_has_not_looked_yet_are_unknown(node: CountedNode) -> None:
    counters, traffic = node.worker(), node.traffic()
    counters.add(UDP_PACKETS_RECEIVED, 5)
    assert traffic.lately().rps["udp"] is None
    traffic.look()
    node.forward(0.5)
    counters.add(TCP_REQUESTS, 2)
    assert traffic.lately().rps["tcp"] == 4.0


def test_reset_leaves_the_last_seconds_alone(node: CountedNode) -> None:
    counters, traffic = node.worker(), node.traffic()
    traffic.look()
    node.forward(2)
    counters.add(TCP_REQUESTS, 4)
    traffic.reset()
    assert traffic.lately().rps["tcp"] == 2.0


async def test_running_takes_a_snapshot_each_period_and_ends_when_cancelled(
    node: CountedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "PERIOD_S", 0.001)
    here = node.traffic()
    looked = asyncio.Event()
    original, looks = here.look, 0

    def look() -> None:
        nonlocal looks
        original()
        looks += 1
        if looks == 3:
            looked.set()

    monkeypatch.setattr(here, "look", look)
    task = asyncio.create_task(here.run())
    async with asyncio.timeout(5):
        await looked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
