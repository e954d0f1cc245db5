"""Workers that are killed while they answer: what they leave says how many answers were never recorded."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from billing._gate import Gate, gate_size
from telemetry._counters import CounterReader, counters_size, format_counters
from tests.pricing.doubles import Clock, make_gate
from tests.pricing.usage_worker import COUNTER_ROW, mapped
from tests.telemetry.evidence import read_left


class Killed:
    """A worker that was killed at a random instant, and how many answers it had told by then."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.told = 0
        self._begun = threading.Event()
        command = [sys.executable, "-m", "tests.pricing.usage_worker", str(folder), str(seed)]
        child = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
        listener = threading.Thread(target=self._listen, args=(child,))
        listener.start()
        try:
            assert self._begun.wait(60)
            time.sleep(random.Random(seed).random() / 10)
        finally:
            child.kill()
            child.wait()
            listener.join()
            assert child.stdout is not None
            child.stdout.close()

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        while len(word := child.stdout.read(8)) == 8:
            self.told = int.from_bytes(word, "little")
            self._begun.set()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a gate and counters outlive the workers."""
    (tmp_path / "gate").write_bytes(bytes(gate_size(8_192)))
    (tmp_path / "counters").write_bytes(bytes(counters_size()))
    format_counters(mapped(tmp_path / "counters"))
    make_gate(Clock(), mapped(tmp_path / "gate")).close()
    return tmp_path


def counted_by_the_gate(folder: Path) -> int:
    gate = Gate(mapped(folder / "gate"))
    try:
        return sum(gate.usage(row).counted for row in range(gate.keys))
    finally:
        gate.close()


@pytest.mark.parametrize(
    "kills", [12, pytest.param(500, marks=[pytest.mark.full, pytest.mark.timeout(3600)])]
)
def test_evidence_of_killed_workers_fits_what_the_gate_has_counted(kills: int, folder: Path) -> None:
    told = [Killed(folder, seed).told for seed in range(kills)]
    left = list(read_left(folder / "spool"))
    assert len(left) == kills
    for one, answers in zip(left, told, strict=True):
        assert one.in_hand in (0, 1)
        assert one.tally.shed == 0
        assert one.counted - answers in (0, 1)  # whatever was told is there, and at most what was in hand
    open_answers, in_hand = sum(one.owed for one in left), sum(one.in_hand for one in left)
    missing = counted_by_the_gate(folder) - sum(one.counted for one in left)
    assert abs(missing - open_answers) <= in_hand
    reader = CounterReader(mapped(folder / "counters"))
    queued = reader.rows()[COUNTER_ROW]["batch_rows_queued"]
    assert 0 <= sum(one.counted + one.others for one in left) - queued <= in_hand
    assert open_answers > kills  # there was something to be told
    print(f"{kills=} records={queued} {missing=} {open_answers=} {in_hand=}")  # noqa: T201  # the drill's figures
