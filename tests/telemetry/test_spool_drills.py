"""Workers that are killed while they append, power that fails, disks that are full: nothing told is lost.

The ordinary run is small; ``pytest -m full`` runs the sizes that the goals name.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry import spool as spool_module
from telemetry._spool import HEADER_BYTES, RECORD_BYTES, Appender, decode
from telemetry.segments import Segment, find_segments
from telemetry.spool import RETRY_NS
from tests.telemetry.spooling import (
    CAPACITY,
    ROW,
    SIZE,
    SMALL,
    append_all,
    make_log,
    make_spool,
    read_numbers,
    read_spool,
)

PAGE = 4096


def sizes(name: str, ordinary: int, full: int) -> pytest.MarkDecorator:
    marks = [pytest.mark.full, pytest.mark.timeout(3600)]
    return pytest.mark.parametrize(name, [ordinary, pytest.param(full, marks=marks)])


# -- kill -9


class Reader:
    """Reads a spool while it is written, as the shipper will, and deletes what is read and final."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.numbers: list[int] = []
        self._places: dict[Path, int] = {}

    def read(self) -> None:
        for path in find_segments(self.root):
            place = self._places.get(path, 0)
            with Segment(path) as segment:
                extent = segment.look()
                while place < extent.end:
                    reading = segment.read(place, min(50, extent.end - place))
                    assert reading.damaged == 0
                    logs = decode(reading.records)
                    assert all(log == make_log(log.key_id, sequence=log.sequence) for log in logs)
                    self.numbers += [log.key_id for log in logs]
                    place = reading.end
            self._places[path] = place
            if extent.final:
                path.unlink()


class Worker:
    """A process that appends, and what it has told."""

    def __init__(self, root: Path, first: int) -> None:
        self.told = first - 1
        command = [sys.executable, "-m", "tests.telemetry.spool_worker", str(root), str(first)]
        self._child = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
        self._begun = threading.Event()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        while len(word := self._child.stdout.read(8)) == 8:
            self.told = int.from_bytes(word, "little")
            self._begun.set()

    def wait_until_it_appends(self) -> None:
        assert self._begun.wait(30)

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()
        self._listener.join()
        assert self._child.stdout is not None
        self._child.stdout.close()


@sizes("kills", 12, full=1_000)
def test_killed_workers_lose_nothing_that_they_have_told_and_nothing_comes_twice(
    kills: int, tmp_path: Path
) -> None:
    chance, reader, unknown, first = random.Random(kills), Reader(tmp_path), 0, 0
    for _ in range(kills):
        worker = Worker(tmp_path, first)
        try:
            worker.wait_until_it_appends()
            end_s = time.monotonic() + chance.random() / 10  # the instant of the kill is what is tried
            while time.monotonic() < end_s:
                reader.read()
        finally:
            worker.kill()
        reader.read()
        last = max(reader.numbers)
        assert last in (worker.told, worker.told + 1)
        unknown += last - worker.told
        first = last + 1
    assert sorted(reader.numbers) == [*range(first)]  # a younger segment may have been read before the rest
    assert list(find_segments(tmp_path)) == []  # all were final: none is held by a dead worker
    print(f"{kills=} records={first} appended and not told={unknown}")  # noqa: T201  # the figures of the drill


# -- power loss


class PowerCut(BaseException):
    """The power fails at this call."""


class Disk:
    """What would be on the disk if the power failed now: what was synced, and any pages written back since.

    Stands in for `os` where segments are made. *cut_at* is the call at which the power fails.
    """

    WATCHED = ("open", "posix_fallocate", "pwrite", "pwritev", "fsync", "rename", "unlink")

    def __init__(self, root: Path, cut_at: int = 0) -> None:
        self.root = root
        self.cut_at = cut_at
        self.calls = 0
        self.pages: dict[int, dict[int, bytes]] = {}  # by inode and number
        self.names: dict[str, int] = {}  # name → inode, as the folder was synced

    def __getattr__(self, name: str) -> Any:
        return self._watch(name) if name in self.WATCHED else getattr(os, name)

    def _watch(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls += 1
            if 0 < self.cut_at <= self.calls:
                raise PowerCut
            result = getattr(os, name)(*arguments)
            if name == "fsync":
                self._synced(arguments[0])
            return result

        return call

    def _synced(self, fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if path.is_file():
            self.write_back(path, range(SIZE // PAGE))
        elif path == self.root / str(ROW):
            self.names = self.seen_names()

    def seen_names(self) -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in (self.root / str(ROW)).glob("*")}

    def write_back(self, path: Path, numbers: range | list[int]) -> None:
        pages, content = self.pages.setdefault(path.stat().st_ino, {}), path.read_bytes()
        for number in numbers:
            pages[number] = content[number * PAGE : (number + 1) * PAGE]

    def after_power_cut(self, target: Path, chance: random.Random) -> None:
        """Write into *target* what a restart may find."""
        folder = target / str(ROW)
        folder.mkdir(parents=True)
        seen = self.seen_names()
        inodes = {inode: name for name, inode in seen.items()}
        names = {name: inode for name, inode in self.names.items() if name in seen or chance.random() < 0.5}
        names |= {name: inode for name, inode in seen.items() if name in names or chance.random() < 0.5}
        for name, inode in names.items():
            pages = dict(self.pages.get(inode, {}))
            if inode in inodes:
                content = (self.root / str(ROW) / inodes[inode]).read_bytes()
                for number in range(len(content) // PAGE):
                    if chance.random() < 0.5:
                        pages[number] = content[number * PAGE : (number + 1) * PAGE]
            (folder / name).write_bytes(
                b"".join(pages.get(number, bytes(PAGE)) for number in range(SIZE // PAGE))
            )


class SyncingAppender(Appender):
    """Tells the disk which pages a sync has written: those up to the last record appended before."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.paths: dict[int, Path] = {}
        self.counts: dict[int, int] = {}

    def sync(self, number: int) -> None:
        path = self.paths[number]
        with Segment(path) as segment:
            end = HEADER_BYTES + segment.look().end * RECORD_BYTES
        super().sync(number)
        self.disk.write_back(path, range(-(-end // PAGE)))

    def publish(self, memory: Any) -> int:
        number = super().publish(memory)
        self.paths[number] = list(find_segments(self.disk.root))[-1]
        return number


STEPS = st.lists(
    st.one_of(
        st.integers(1, CAPACITY),
        st.just("sync"),
        st.just("prepare"),
        st.integers(0, 2**32).map(lambda seed: ("write back", seed)),
    ),
    min_size=1,
    max_size=12,
)


def check_after_power_cut(target: Path, promised: int, appended: int) -> None:
    found: list[int] = []
    for path in find_segments(target):
        found += read_numbers(path)[0]  # raises LayoutError for a segment that would stop a restart
    assert len(set(found)) == len(found)
    assert {*range(promised)} <= {*found} <= {*range(appended)}


def play_until_power_cut(
    root: Path, steps: list[Any], seed: int, states: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(root)
    appender, chance = SyncingAppender(disk), random.Random(seed)
    appended = promised = 0
    with monkeypatch.context() as patch:
        patch.setattr(spool_module, "os", disk)
        spool = make_spool(root, appender=appender)
        spool.prepare()
        for step in steps:
            match step:
                case "sync":
                    before = appended
                    spool.sync()
                    promised = before
                case "prepare":
                    spool.prepare()
                case "write back", number:
                    path = random.Random(number).choice(list(find_segments(root)))
                    pages = range(SIZE // PAGE)
                    disk.write_back(path, random.Random(number).sample(pages, number % len(pages)))
                case int():
                    append_all(spool, range(appended, appended + step))
                    appended += step
        for state in range(states):
            target = root.parent / f"{root.name}-{state}"
            disk.after_power_cut(target, chance)
            check_after_power_cut(target, promised, appended)
    spool.close()


@sizes("examples", 20, full=3_000)
def test_power_cut_loses_nothing_that_was_appended_before_the_last_sync(
    examples: int, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(STEPS, st.integers(0, 2**32))
    def play(steps: list[Any], seed: int) -> None:
        folder = tmp_path_factory.mktemp("power")
        play_until_power_cut(folder / "spool", steps, seed, 5 if examples < 100 else 35, monkeypatch)
        subprocess.run(["rm", "-r", str(folder)], check=True)

    play()


def test_power_cut_at_any_call_while_a_segment_is_made_leaves_it_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cut_at in range(1, 100):
        root = tmp_path / str(cut_at)
        disk = Disk(root)
        spool = make_spool(root)
        with monkeypatch.context() as patch:
            patch.setattr(spool_module, "os", disk)
            append_all(spool, range(10))
            spool.sync()
            for path in find_segments(root):
                disk.write_back(path, range(SIZE // PAGE))
            disk.cut_at = disk.calls + cut_at
            with contextlib.suppress(PowerCut):
                spool.prepare()
            was_cut = disk.calls >= disk.cut_at
            disk.cut_at = 0
            for state in range(8):
                target = tmp_path / f"{cut_at}-{state}"
                disk.after_power_cut(target, random.Random(state))
                check_after_power_cut(target, 10, 10)
                restarted = make_spool(target)
                append_all(restarted, range(10, 20))
                restarted.close()
                assert read_spool(target) == [*range(20)]
        spool.close()
        if not was_cut:
            assert cut_at > 8
            return
    pytest.fail("there was no end of calls")


# -- full disks, read-only disks


@contextlib.contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """Mount a small disk; skip where that is not allowed (RLIMIT_FSIZE is tried in test_spool.py)."""
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, b"size=%d" % size) != 0:
        pytest.skip(f"no mounting here: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        libc.umount2(os.fsencode(folder), 2)  # MNT_DETACH


def remount_read_only(folder: Path, read_only: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert (
        libc.mount(b"none", os.fsencode(folder), b"tmpfs", 32 | read_only, None) == 0
    )  # MS_REMOUNT, MS_RDONLY


def fill_up(spool: Any, number: int) -> int:
    """Append until there is no room and none can be made; the next number."""
    while True:
        if not spool.appender.append(make_log(number)):
            spool.prepare()
            if not spool.appender.append(make_log(number)):
                return number
        number += 1


def test_full_disk_refuses_appends_and_goes_on_when_space_returns(tmp_path: Path) -> None:
    now_ns = [0]
    folder = tmp_path / "disk"
    with mounted(folder, 5 * SIZE + SIZE // 2):
        spool = make_spool(folder / "spool", parameters=SMALL, mono_ns=lambda: now_ns[0])
        number = fill_up(spool, 0)
        assert number == 5 * CAPACITY
        assert spool.state().failures == 1
        spool.sync()
        next(find_segments(folder / "spool")).unlink()
        now_ns[0] += RETRY_NS
        assert fill_up(spool, number) == number + CAPACITY
        other = folder / "other"
        next(find_segments(folder / "spool")).rename(other)
        other.write_bytes(b"x" * SIZE)  # somebody else has taken the space
        now_ns[0] += RETRY_NS
        assert fill_up(spool, number + CAPACITY) == number + CAPACITY
        spool.close()
        assert read_spool(folder / "spool") == [*range(2 * CAPACITY, 6 * CAPACITY)]


def test_segment_is_written_to_its_end_on_a_disk_that_others_have_filled(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with mounted(folder, 4 * SIZE):
        spool = make_spool(folder / "spool")
        spool.prepare()
        with contextlib.suppress(OSError), (folder / "other").open("wb", buffering=0) as other:
            while other.write(bytes(PAGE)):
                pass
        assert os.statvfs(folder).f_bfree == 0
        for number in range(CAPACITY):  # with holes in the file this would end in SIGBUS
            assert spool.appender.append(make_log(number))
        spool.close()
        assert read_spool(folder / "spool") == [*range(CAPACITY)]


def test_read_only_disk_refuses_appends_and_goes_on_once_it_is_writable(tmp_path: Path) -> None:
    now_ns = [0]
    folder = tmp_path / "disk"
    with mounted(folder, 8 * SIZE):
        remount_read_only(folder, True)
        spool = make_spool(folder / "spool", mono_ns=lambda: now_ns[0])
        assert fill_up(spool, 0) == 0
        assert spool.state().failures == 1
        remount_read_only(folder, False)
        now_ns[0] += RETRY_NS
        append_all(spool, range(CAPACITY))
        spool.close()
        assert read_spool(folder / "spool") == [*range(CAPACITY)]
