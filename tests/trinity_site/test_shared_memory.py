"""Segments in /dev/shm: made once, shared, taken over after a kill, and gone with the last process."""

from __future__ import annotations

import mmap
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from billing import keys
from billing._gate import ADMITTED, GateKey
from pricing._board import BoardReader
from telemetry._counters import FEED_TICKS
from trinity_site.exceptions import RowTaken, SecondWriter, SegmentError
from trinity_site.shared_memory import (
    board_layout,
    open_board_reader,
    open_board_writer,
    open_counter_reader,
    open_counters,
    open_gate,
    open_gate_writer,
    open_segment,
    segment_path,
)

SLOTS = 16
NODE = "TestNode"

# A process that opens what its first argument names, says so, and does what the next line tells it to.
CHILD = """
import os, sys
from pathlib import Path
from trinity_site.shared_memory import open_board_reader, open_board_writer, open_counters, open_gate_writer
what, folder = sys.argv[1], Path(sys.argv[2])
try:
    if what == "counters":
        opened = open_counters("TestNode", folder, worker=1)
        opened.view.add(0)
    elif what == "gate":
        opened = open_gate_writer("TestNode", folder, rows=16)
    else:
        opener = open_board_writer if what == "writer" else open_board_reader
        opened = opener("TestNode", folder, slots=16)
except Exception as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(3)
print("open", flush=True)
order = sys.stdin.readline().strip()
if order == "close":
    opened.close()
elif order == "raise":
    raise SystemExit(4)
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    left = [segment_path(NODE, tmp_path, kind) for kind in ("board", "gate", "counters")]
    for path in left:
        path.unlink(missing_ok=True)


def start(what: str, folder: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CHILD, what, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    return child


def finish(child: subprocess.Popen[str], order: str) -> None:
    """End the child as told, and see that it had nothing to warn of."""
    if order == "kill":
        child.kill()
    _, errors = child.communicate(None if order == "kill" else f"{order}\n", timeout=20)
    assert errors == ""


def test_path_differs_by_node_folder_and_kind(tmp_path: Path) -> None:
    paths = {
        segment_path("A", tmp_path, "board"),
        segment_path("B", tmp_path, "board"),
        segment_path("A", tmp_path / "other", "board"),
        segment_path("A", tmp_path, "counters"),
    }
    assert len(paths) == 4
    assert all(path.parent == Path("/dev/shm") for path in paths)


@pytest.mark.parametrize("node", ["", "../x", "a/b", "a b", "x" * 65])
def test_node_name_that_is_no_file_name_is_refused(node: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="node's name"):
        segment_path(node, tmp_path, "board")


def test_segment_is_for_its_user_only(data_dir: Path) -> None:
    with open_board_reader(NODE, data_dir, slots=SLOTS):
        mode = segment_path(NODE, data_dir, "board").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_reader_sees_what_the_writer_stores(data_dir: Path) -> None:
    with (
        open_board_reader(NODE, data_dir, slots=SLOTS) as reader,
        open_board_writer(NODE, data_dir, slots=SLOTS) as writer,
    ):
        writer.set_exchange("kraken", source="kraken-ws", quote="USD")
        writer.write(writer.place("BTC", "kraken"), "1.5", 1, 2, 3)
        price = reader.get("BTC", "kraken")
        assert price is not None
        assert price.price == "1.5"
        assert reader.writer_pid == os.getpid()


def test_last_one_out_unlinks(data_dir: Path) -> None:
    path = segment_path(NODE, data_dir, "board")
    writer = open_board_writer(NODE, data_dir, slots=SLOTS)
    reader = open_board_reader(NODE, data_dir, slots=SLOTS)
    writer.close()
    assert path.exists()
    reader.close()
    assert not path.exists()


def test_closing_twice_leaves_a_successor_alone(data_dir: Path) -> None:
    first = open_board_reader(NODE, data_dir, slots=SLOTS)
    first.close()
    with open_board_reader(NODE, data_dir, slots=SLOTS):
        first.close()
        assert segment_path(NODE, data_dir, "board").exists()


def test_closing_a_segment_that_was_unlinked_leaves_its_successor(data_dir: Path) -> None:
    path = segment_path(NODE, data_dir, "board")
    first = open_board_reader(NODE, data_dir, slots=SLOTS)
    path.unlink()
    with open_board_reader(NODE, data_dir, slots=SLOTS):
        first.close()
        assert path.exists()


def test_reader_memory_cannot_be_written(data_dir: Path) -> None:
    path = segment_path(NODE, data_dir, "board")
    segment = open_segment(path, board_layout(SLOTS), access=mmap.ACCESS_READ)
    with pytest.raises(TypeError):
        segment.memory[0] = 1
    segment.close()


def test_second_writer_is_refused_and_told_the_pid(data_dir: Path) -> None:
    child = start("writer", data_dir)
    with pytest.raises(SecondWriter, match=f"process {child.pid} is its writer") as caught:
        open_board_writer(NODE, data_dir, slots=SLOTS)
    assert caught.value.pid == child.pid
    finish(child, "close")
    with open_board_writer(NODE, data_dir, slots=SLOTS) as writer:
        assert writer.generation == 1


def test_readers_coming_and_going_do_not_free_the_writers_lock(data_dir: Path) -> None:
    with open_board_writer(NODE, data_dir, slots=SLOTS):
        open_board_reader(NODE, data_dir, slots=SLOTS).close()
        with pytest.raises(SecondWriter):
            open_board_writer(NODE, data_dir, slots=SLOTS)


def test_writer_takes_over_from_a_killed_one(data_dir: Path) -> None:
    with open_board_reader(NODE, data_dir, slots=SLOTS) as reader:
        child = start("writer", data_dir)
        assert (reader.generation, reader.writer_pid) == (1, child.pid)
        finish(child, "kill")
        with open_board_writer(NODE, data_dir, slots=SLOTS):
            assert (reader.generation, reader.writer_pid) == (2, os.getpid())


def test_stopped_writer_still_is_the_writer(data_dir: Path) -> None:
    child = start("writer", data_dir)
    os.kill(child.pid, signal.SIGSTOP)
    try:
        with pytest.raises(SecondWriter):
            open_board_writer(NODE, data_dir, slots=SLOTS)
    finally:
        os.kill(child.pid, signal.SIGCONT)
    finish(child, "close")


@pytest.mark.parametrize("content", [b"", b"garbage", b"\0" * 4096], ids=["empty", "short", "zeros"])
def test_unusable_file_of_nobody_is_replaced(content: bytes, data_dir: Path) -> None:
    segment_path(NODE, data_dir, "board").write_bytes(content)
    with open_board_reader(NODE, data_dir, slots=SLOTS) as reader:
        assert reader.slots == SLOTS


def test_board_of_another_size_of_nobody_is_replaced(data_dir: Path) -> None:
    left = open_board_writer(NODE, data_dir, slots=SLOTS)
    path = left.path
    content = path.read_bytes()
    left.close()
    path.write_bytes(content)
    with open_board_reader(NODE, data_dir, slots=2 * SLOTS) as reader:
        assert (reader.slots, reader.generation) == (2 * SLOTS, 0)


def test_board_of_another_size_in_use_is_refused_unharmed(data_dir: Path) -> None:
    with open_board_writer(NODE, data_dir, slots=SLOTS) as writer:
        with pytest.raises(SegmentError, match=r"in use with another version or configuration: .* size"):
            open_board_reader(NODE, data_dir, slots=2 * SLOTS)
        writer.set_exchange("kraken", source="kraken-ws", quote="USD")
        assert len(writer.exchanges()) == 1


def test_board_of_another_version_in_use_is_refused_and_both_are_named(data_dir: Path) -> None:
    child = start("reader", data_dir)
    with segment_path(NODE, data_dir, "board").open("r+b") as file:
        file.seek(8)
        file.write((99).to_bytes(4, sys.byteorder))
    with pytest.raises(SegmentError, match="the layout version is 99, expected 1"):
        open_board_reader(NODE, data_dir, slots=SLOTS)
    finish(child, "close")


def test_segment_of_another_user_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment_path(NODE, data_dir, "board").touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(SegmentError, match="another user"):
        open_board_reader(NODE, data_dir, slots=SLOTS)


def test_symbolic_link_is_not_followed(data_dir: Path) -> None:
    target = data_dir / "target"
    target.write_bytes(b"precious")
    segment_path(NODE, data_dir, "board").symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        open_board_reader(NODE, data_dir, slots=SLOTS)
    assert target.read_bytes() == b"precious"


def test_gate_is_shared_by_its_writer_and_those_who_judge(data_dir: Path) -> None:
    text = keys.generate(os.urandom)
    with open_gate(NODE, data_dir, rows=SLOTS) as gate:
        with open_gate_writer(NODE, data_dir, rows=SLOTS) as writer:
            row = writer.put(GateKey(keys.digest(text), 5))
            assert gate.admit(text.encode(), 0, 0).code == ADMITTED
            assert writer.usage(row).counted == 1
        assert gate.admit(text.encode(), 0, 0).code == ADMITTED
        path = segment_path(NODE, data_dir, "gate")
        assert path.exists()
    assert not path.exists()


def test_second_writer_of_the_gate_is_refused_and_takes_over_from_a_killed_one(data_dir: Path) -> None:
    with open_gate(NODE, data_dir, rows=SLOTS) as gate:
        child = start("gate", data_dir)
        with pytest.raises(SecondWriter, match=f"process {child.pid} is its writer"):
            open_gate_writer(NODE, data_dir, rows=SLOTS)
        finish(child, "kill")
        with open_gate_writer(NODE, data_dir, rows=SLOTS):
            assert (gate.generation, gate.writer_pid) == (2, os.getpid())


def test_gate_of_another_size_in_use_is_refused_unharmed(data_dir: Path) -> None:
    with open_gate(NODE, data_dir, rows=SLOTS) as gate:
        with pytest.raises(SegmentError, match=r"in use with another version or configuration: .* size"):
            open_gate(NODE, data_dir, rows=2 * SLOTS)
        assert gate.rows == SLOTS


def test_counters_go_on_where_a_killed_worker_stopped(data_dir: Path) -> None:
    with open_counter_reader(NODE, data_dir) as reader:
        for _ in range(2):
            with open_counters(NODE, data_dir, worker=3) as counters:
                counters.add(FEED_TICKS, 5)
        assert reader.totals()["feed_ticks"] == 10


def sizes(ordinary: int, full: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "kills", [ordinary, pytest.param(full, marks=[pytest.mark.full, pytest.mark.timeout(1800)])]
    )


@sizes(6, full=1000)
def test_restarts_of_every_kind_leave_the_board_alive_and_nothing_behind(kills: int, data_dir: Path) -> None:
    path = segment_path(NODE, data_dir, "board")
    with open_board_writer(NODE, data_dir, slots=SLOTS) as writer:
        writer.set_exchange("kraken", source="kraken-ws", quote="USD")
        slot = writer.place("BTC", "kraken")
        with open_board_reader(NODE, data_dir, slots=SLOTS) as reader:
            for number in range(kills):
                writer.write(slot, str(number), 1, 2, 3)
                finish(start("reader", data_dir), ("close", "raise", "kill")[number % 3])
                price = reader.get("BTC", "kraken")
                assert price is not None
                assert price.price == str(number)
    assert not path.exists()


@sizes(6, full=300)
def test_restarts_of_a_counting_worker_lose_no_count(kills: int, data_dir: Path) -> None:
    with open_counter_reader(NODE, data_dir) as reader:
        for number in range(kills):
            finish(start("counters", data_dir), ("close", "kill")[number % 2])
            assert reader.totals()["tcp_requests"] == number + 1


def test_processes_that_start_together_share_one_segment(data_dir: Path) -> None:
    def opener() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, "reader", str(data_dir)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    children = [opener() for _ in range(4)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
    with open_board_writer(NODE, data_dir, slots=SLOTS) as writer:
        path = segment_path(NODE, data_dir, "board")
        inode = path.stat().st_ino
        for child in children:
            maps = Path(f"/proc/{child.pid}/maps").read_text()
            assert f" {inode} " in maps
            assert f"{path} (deleted)" not in maps
        for child in children:
            child.communicate("close\n", timeout=20)
        assert isinstance(writer, BoardReader)
        assert path.exists()
    assert not path.exists()


def test_row_of_counters_has_one_writer_until_it_closes_or_dies(data_dir: Path) -> None:
    with open_counters(NODE, data_dir, worker=3):
        with pytest.raises(RowTaken, match="counts in row 3") as refused:
            open_counters(NODE, data_dir, worker=3)
        assert refused.value.row == 3
        open_counters(NODE, data_dir, worker=4).close()
    open_counters(NODE, data_dir, worker=3).close()
