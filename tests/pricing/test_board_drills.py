"""Real processes over one board: a writer at full speed, killed, and stopped, and what readers see of it.

The ordinary run is small; ``pytest -m full`` runs the sizes that the goals name.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pricing._board import BoardReader, Price
from tests.pricing.board_writer import CROWDED_SLOTS, IN_TURN, NODE, SLOTS, TEXTS
from tests.twins import board as layout
from trinity_site.exceptions import SecondWriter
from trinity_site.shared_memory import (
    Opened,
    Segment,
    board_layout,
    open_board_reader,
    open_board_writer,
    open_segment,
    segment_path,
)


def sizes(name: str, ordinary: int, full: int) -> pytest.MarkDecorator:
    marks = [pytest.mark.full, pytest.mark.timeout(3600)]
    return pytest.mark.parametrize(name, [ordinary, pytest.param(full, marks=marks)])


@contextmanager
def writing(data_dir: Path, *how: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.pricing.board_writer", str(data_dir), *how],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened[BoardReader]]:
    board = open_board_reader(NODE, tmp_path, slots=SLOTS)
    yield board
    board.close()
    assert not board.path.exists()


@pytest.fixture
def reader(opened: Opened[BoardReader]) -> BoardReader:
    return opened.view


@pytest.fixture
def raw(opened: Opened[BoardReader], tmp_path: Path) -> Iterator[Segment]:
    """The same memory as bytes."""
    segment = open_segment(segment_path(NODE, tmp_path, "board"), board_layout(SLOTS))
    yield segment
    segment.close()


def is_whole(price: Price | None) -> bool:
    if price is None:
        return False
    number = price.traded_ns
    return (
        price.price == TEXTS[number]
        and price.received_ns == number
        and price.received_mono_ns == number
        and price.source == "okx-ws"
    )


def read_many(reader: BoardReader, reads: int) -> tuple[int, int]:
    """Read so often; how many reads were torn and how many found nothing."""
    get, texts = reader.get, TEXTS
    torn = missed = 0
    for _ in range(reads):
        price = get("BTC", "okx")
        if price is None:
            missed += 1
            continue
        number = price.traded_ns
        if price.price != texts[number] or price.received_ns != number or price.received_mono_ns != number:
            torn += 1
    return torn, missed


def is_in_mid_write(raw: Segment) -> bool:
    at = layout.Parts(SLOTS).slots
    slot = raw.memory[at : at + layout.SLOT_BYTES]
    return slot[0] % 2 == 1 or slot[16:96] != slot[136:216]


@contextmanager
def apart(pid: int) -> Iterator[bool]:
    """Keep this process and another on two cores, where there are two; says whether there are."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[0]})
        os.sched_setaffinity(pid, {cores[1]})
    yield len(cores) > 1
    os.sched_setaffinity(0, cores)


@sizes("reads", 1_000_000, full=100_000_000)
def test_reads_against_a_busy_writer_are_never_torn(reads: int, reader: BoardReader, tmp_path: Path) -> None:
    with writing(tmp_path) as child, apart(child.pid) as on_two_cores:
        before = reader.exchanges()[0].ticks
        torn, missed = read_many(reader, reads)
        done, share = reads, 1 / 1000 if on_two_cores else 1 / 1_000_000
        # Without overlap the drill would prove nothing; on a busy machine it takes longer to come about.
        while reader.read_counts["retries"] < share * reads and done < 20 * reads:
            more = read_many(reader, reads)
            torn, missed, done = torn + more[0], missed + more[1], done + reads
        writes = reader.exchanges()[0].ticks - before
    counts = reader.read_counts
    print(f"reads={done} {writes=} {torn=} {missed=} {counts}")  # noqa: T201  # the figures of the drill
    assert torn == 0
    assert missed == counts["exhausted"] <= reads / 1_000_000
    # The sequence alone finds every overlap; what it let through and the CRC caught would be counted here.
    assert counts["spoilt"] == 0
    assert counts["retries"] >= share * reads


def test_control_reads_that_ignore_the_sequence_are_torn(
    raw: Segment, reader: BoardReader, tmp_path: Path
) -> None:
    first = layout.Parts(SLOTS).slots + 16
    with writing(tmp_path):
        for _ in range(20_000_000):
            copy = raw.memory[first : first + 76]
            if zlib.crc32(copy[:72]) != struct.unpack_from("=I", copy, 72)[0]:
                return
    pytest.fail("no mixed value was seen: the drills above prove nothing")


@sizes("kills", 20, full=500)
def test_writer_killed_at_a_random_instant_leaves_whole_prices(
    kills: int, raw: Segment, reader: BoardReader, tmp_path: Path
) -> None:
    chance = random.Random(kills)
    halves = 0
    for generation in range(1, kills + 1):
        with writing(tmp_path) as child:
            assert read_many(reader, chance.randrange(20_000)) == (0, 0)
            child.kill()
            child.wait()
        halves += is_in_mid_write(raw)
        before = reader.read_counts
        assert read_many(reader, 100) == (0, 0)
        assert reader.read_counts == before  # nobody writes, so nothing is tried twice: no spin
        assert reader.generation == generation
    print(f"{kills=} killed in mid-write={halves} {reader.read_counts}")  # noqa: T201
    with open_board_writer(NODE, tmp_path, slots=SLOTS):
        assert not is_in_mid_write(raw)
        assert is_whole(reader.get("BTC", "okx"))


def test_writer_stopped_in_mid_write_hinders_no_reader_and_stays_the_writer(
    raw: Segment, reader: BoardReader, tmp_path: Path
) -> None:
    with writing(tmp_path) as child:
        stop_in_mid_write(child.pid, raw, reader)
        before = reader.read_counts
        assert read_many(reader, 1000) == (0, 0)
        assert reader.read_counts == before
        with pytest.raises(SecondWriter, match=f"process {child.pid} is its writer"):
            open_board_writer(NODE, tmp_path, slots=SLOTS)
        ticks = reader.exchanges()[0].ticks
        os.kill(child.pid, signal.SIGCONT)
        while reader.exchanges()[0].ticks < ticks + 1000:
            assert is_whole(reader.get("BTC", "okx"))
        assert reader.generation == 1


def stop_in_mid_write(pid: int, raw: Segment, reader: BoardReader) -> None:
    """Stop the process again and again until it stands inside a write."""
    chance = random.Random(1)
    for _ in range(5000):
        read_many(reader, chance.randrange(1000))  # lets it run on to a new place
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        if is_in_mid_write(raw):
            return
        os.kill(pid, signal.SIGCONT)
        os.waitid(os.P_PID, pid, os.WCONTINUED)
    pytest.fail("the writer was never caught inside a write")


@sizes("reads", 200_000, full=20_000_000)
def test_price_is_never_told_under_the_name_of_another_exchange(reads: int, tmp_path: Path) -> None:
    opened = open_board_reader(NODE, tmp_path, slots=CROWDED_SLOTS)
    reader, seen = opened.view, dict.fromkeys(IN_TURN, 0)
    with writing(tmp_path, "turns") as child, apart(child.pid):
        for _ in range(reads):
            for name in IN_TURN:
                price = reader.get("BTC", name)
                if price is not None:
                    seen[name] += 1
                    assert (price.exchange, price.source, price.price) == (name, f"{name}-ws", IN_TURN[name])
            best = reader.best("BTC", 0, 1)
            assert best is None or best.price == IN_TURN[best.exchange]
    opened.close()
    print(f"{reads=} {seen=}")  # noqa: T201
    assert all(seen.values())
