"""What real workers leave in the spool: a record of whatever a client has received, through kills."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.test_udp_drills import SEVERAL, killed
from tests.system.udp_workers import GOOD, ID, UdpWorkers, load, udp_workers
from tests.telemetry.evidence import read_left
from tests.udp_engine.live import request

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture
def workers(tmp_path: Path, database: Path) -> Iterator[UdpWorkers]:
    with udp_workers(tmp_path, database) as workers:
        yield workers


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.full)])
async def test_killed_udp_workers_have_recorded_whatever_a_client_received(
    workers: UdpWorkers, kills: int, tmp_path: Path
) -> None:
    workers.open(2)
    kinds = [GOOD, GOOD, request(asset="NOPE", id=ID), SEVERAL]
    async with workers.running():
        with load(workers, kinds, timeout_ms=4_000) as made:
            loading = asyncio.create_task(asyncio.to_thread(made.run, 600.0, 5_000.0), name="load")
            for number in range(kills):
                await asyncio.sleep(0.5)
                await killed(workers, number % 2)
            made.stop()
            await loading
            reading = made.reading()
        await workers.settled()
    left = list(read_left(tmp_path / "spool"))
    assert len(left) == 2 + kills
    assert all(one.in_hand in (0, 1) and one.tally.shed == 0 for one in left)
    records = sum(one.counted + one.others for one in left)
    answered = reading.answered + sum(reading.errors.values())
    assert 0 <= records - answered <= reading.lost
    counted = sum(workers.gate.usage(row).counted for row in range(workers.gate.keys))
    missing = counted - sum(one.counted for one in left)
    assert abs(missing - sum(one.owed for one in left)) <= sum(one.in_hand for one in left)
    assert workers.totals()["batch_rows_queued"] == pytest.approx(records, abs=kills)
