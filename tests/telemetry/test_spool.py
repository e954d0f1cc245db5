"""One worker's spool: its files, its bound, and what it does when the disk fails."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from telemetry import spool as spool_module
from telemetry._spool import Appender
from telemetry.parameters import SpoolParameters
from telemetry.segments import NEW, SUFFIX, Segment, find_segments, segment_name, used_bytes
from telemetry.spool import RETRY_NS, SPARES, alone_in
from tests.telemetry.spooling import (
    CAPACITY,
    NODE,
    ROW,
    SIZE,
    append_all,
    make_log,
    make_spool,
    read_numbers,
    read_spool,
    write_segment,
)

THREE = SpoolParameters(segment_bytes=SIZE, spool_bytes=3 * SIZE)


class Clock:
    """Monotonic time under the test's hand."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def names(root: Path, suffix: str = SUFFIX) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.glob(f"*/*{suffix}"))


def test_prepared_segment_has_all_its_blocks_and_is_nobody_elses_to_read(root: Path) -> None:
    spool = make_spool(root, wall_ns=lambda: 1234)
    spool.prepare()
    (path,) = find_segments(root)
    assert names(root) == [f"{ROW}/{segment_name(1234)}"]
    found = path.stat()
    assert (found.st_size, found.st_mode & 0o777) == (SIZE, 0o600)
    assert found.st_blocks * 512 >= SIZE
    spool.close()


def test_one_segment_is_prepared_until_it_is_needed(root: Path) -> None:
    spool = make_spool(root)
    for _ in range(3):
        spool.prepare()
    assert len(names(root)) == 1
    spool.appender.append(make_log(0))
    for _ in range(3):
        spool.prepare()
    assert len(names(root)) == 2
    spool.close()


def test_records_go_on_from_segment_to_segment(root: Path) -> None:
    spool = make_spool(root)
    append_all(spool, range(5 * CAPACITY + 7))
    spool.close()
    assert read_spool(root) == [*range(5 * CAPACITY + 7)]
    assert len(names(root)) == 6


def test_sealed_segments_are_let_go_of_with_the_next_sync(root: Path) -> None:
    spool = make_spool(root)
    append_all(spool, range(2 * CAPACITY))
    opened = len(os.listdir("/proc/self/fd"))
    spool.sync()
    assert len(os.listdir("/proc/self/fd")) < opened
    spool.close()
    assert not any(str(root) in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_closing_seals_what_was_appended_and_removes_what_was_not_used(root: Path) -> None:
    spool = make_spool(root)
    append_all(spool, range(3))
    spool.prepare()
    assert len(names(root)) == 2
    spool.close()
    spool.close()
    (path,) = find_segments(root)
    with Segment(path) as segment:
        assert segment.look() == (3, True, True)
    spool.prepare()
    assert len(names(root)) == 1
    assert not spool.appender.append(make_log(3))


def test_restarted_worker_makes_new_segments_and_leaves_the_old_ones_alone(root: Path) -> None:
    path = write_segment(root, 10, sealed=False)
    before = path.read_bytes()
    spool = make_spool(root)
    append_all(spool, range(10, 20))
    spool.close()
    assert path.read_bytes() == before
    assert read_spool(root) == [*range(20)]


def test_worker_and_its_successor_append_side_by_side(root: Path) -> None:
    old, new = make_spool(root, wall_ns=lambda: 1), make_spool(root, wall_ns=lambda: 1)
    for turn in range(3):
        append_all(old, range(turn * 1000, turn * 1000 + CAPACITY))
        append_all(new, range(turn * 1000 + 500, turn * 1000 + 500 + CAPACITY))
    old.close()
    append_all(new, range(5000, 5010))
    new.close()
    starts = [start for turn in range(3) for start in (turn * 1000, turn * 1000 + 500)]
    expected = [number for start in starts for number in range(start, start + CAPACITY)]
    assert sorted(read_spool(root)) == [*expected, *range(5000, 5010)]
    assert len(names(root)) == 7


def test_clock_that_was_set_back_makes_no_older_segment(root: Path) -> None:
    write_segment(root, 0).rename(root / str(ROW) / segment_name(5_000))
    spool = make_spool(root, wall_ns=lambda: 17)
    spool.prepare()
    assert names(root)[-1] == f"{ROW}/{segment_name(5_001)}"
    spool.close()


def test_what_a_killed_worker_left_half_made_is_removed(root: Path) -> None:
    write_segment(root, 0)
    (root / str(ROW) / "00000000000000000077.new").write_bytes(bytes(SIZE))
    spool = make_spool(root)
    spool.prepare()
    assert not (root / str(ROW) / "00000000000000000077.new").exists()
    assert len(names(root)) == 2
    spool.close()
    assert names(root, NEW) == []


# -- the bound


def test_at_the_bound_appends_are_refused_until_something_is_deleted(root: Path) -> None:
    clock = Clock()
    spool = make_spool(root, parameters=THREE, mono_ns=clock)
    append_all(spool, range(3 * CAPACITY))
    spool.prepare()
    assert not spool.appender.append(make_log(-1 + 3 * CAPACITY))
    assert used_bytes(root) == 3 * SIZE
    assert spool.state().shed == 3 + 1  # append_all meets one before each segment
    assert spool.state().failures == 0
    spool.sync()
    next(find_segments(root)).unlink()
    clock.now_ns += RETRY_NS
    spool.prepare()
    assert spool.appender.append(make_log(3 * CAPACITY))
    spool.close()
    assert read_spool(root) == [*range(CAPACITY, 3 * CAPACITY + 1)]


def test_at_the_bound_the_files_are_looked_at_twice_a_second(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, looks = Clock(), 0

    def look(root: Path) -> int:
        nonlocal looks
        looks += 1
        return used_bytes(root)

    spool = make_spool(root, parameters=THREE, mono_ns=clock)
    append_all(spool, range(3 * CAPACITY))
    monkeypatch.setattr(spool_module, "used_bytes", look)
    for _ in range(100):
        spool.prepare()
        clock.now_ns += 20_000_000
    assert looks == 4
    spool.close()


def test_bound_is_the_nodes(root: Path) -> None:
    first, second = (make_spool(root, row=row, parameters=THREE) for row in (1, 2))
    append_all(first, range(2 * CAPACITY))
    second.prepare()
    first.prepare()
    assert used_bytes(root) == 3 * SIZE
    assert not first.appender.append(make_log(0))
    assert second.appender.append(make_log(0))
    first.close()
    second.close()


def test_spool_that_nears_its_bound_says_so_once_a_minute(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    parameters = SpoolParameters(segment_bytes=SIZE, spool_bytes=5 * SIZE)
    spool = make_spool(root, parameters=parameters, mono_ns=clock)
    append_all(spool, range(3 * CAPACITY))
    spool.measure()
    assert not spool.state().near
    assert caplog.records == []
    append_all(spool, range(2 * CAPACITY))
    spool.measure()
    assert spool.state().near
    assert (spool.state().used_bytes, spool.state().bound_bytes) == (5 * SIZE, 5 * SIZE)
    for _ in range(3):
        spool.prepare()
    clock.now_ns += 61 * 10**9
    spool.prepare()
    told = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert told == [
        (logging.WARNING, f"The usage spool is nearly full: {4 * SIZE} of {5 * SIZE} bytes"),
        *[(logging.ERROR, f"The usage spool is full: {5 * SIZE} of {5 * SIZE} bytes")] * 2,
    ]
    spool.close()


def test_segment_is_not_made_while_another_worker_makes_one(root: Path) -> None:
    spool = make_spool(root)
    root.mkdir()
    other = os.open(root, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    spool.prepare()
    assert list(find_segments(root)) == []
    os.close(other)
    spool.prepare()
    assert len(list(find_segments(root))) == 1
    assert spool.state().failures == 0
    spool.close()


# -- beginning again


@contextlib.contextmanager
def passed_on(path: Path) -> Iterator[int]:
    """Delete a segment, as whoever has passed it on does; yield its file, open."""
    with path.open("rb") as file:
        path.unlink()
        yield file.fileno()


def test_file_that_was_passed_on_begins_again_without_what_was_in_it(root: Path, tmp_path: Path) -> None:
    spool = make_spool(root)
    append_all(spool, range(CAPACITY))
    spool.sync()
    with passed_on(next(find_segments(root))) as file:
        append_all(spool, range(CAPACITY, CAPACITY + 5))
        (again,) = find_segments(root)
        assert os.path.samestat(os.fstat(file), again.stat())
    assert read_numbers(again) == ([*range(CAPACITY, CAPACITY + 5)], 0)
    left = tmp_path / "killed" / str(ROW) / again.name  # a copy is nobody's: as if its writer had been killed
    left.parent.mkdir(parents=True)
    shutil.copy(again, left)
    with Segment(left) as segment:
        assert segment.look() == (5, False, True)
    spool.close()
    assert read_spool(root) == [*range(CAPACITY, CAPACITY + 5)]
    assert names(root, NEW) == []


def test_file_does_not_begin_again_while_its_segment_is_there(root: Path) -> None:
    spool = make_spool(root)
    append_all(spool, range(CAPACITY))
    spool.sync()
    for own_name in root.glob(f"*/*{NEW}"):
        own_name.unlink()
    append_all(spool, range(CAPACITY, 4 * CAPACITY))
    spool.close()
    assert read_spool(root) == [*range(4 * CAPACITY)]


def test_successor_removes_nothing_of_a_worker_that_lives(root: Path) -> None:
    old, new = make_spool(root), make_spool(root)
    old.prepare()
    before = names(root, NEW)
    new.prepare()
    assert set(before) < set(names(root, NEW))
    old.close()
    new.close()


def test_file_whose_sync_failed_does_not_begin_again(root: Path) -> None:
    appender = FailingAppender()
    spool = make_spool(root, appender=appender)
    append_all(spool, range(CAPACITY))
    appender.fails = True
    spool.sync()
    appender.fails = False
    with passed_on(next(find_segments(root))) as file:
        append_all(spool, range(CAPACITY, 3 * CAPACITY))
        assert os.fstat(file).st_nlink == 0
    spool.close()


def test_worker_waits_for_so_many_files_and_no_more(root: Path) -> None:
    spool = make_spool(root)
    append_all(spool, range((SPARES + 3) * CAPACITY))
    spool.sync()
    assert len(names(root, NEW)) == SPARES
    spool.close()
    assert names(root, NEW) == []


def test_where_room_may_run_short_files_are_given_back(root: Path) -> None:
    parameters = SpoolParameters(segment_bytes=SIZE, spool_bytes=8 * SIZE)
    spool = make_spool(root, parameters=parameters)
    append_all(spool, range(3 * CAPACITY))
    spool.sync()
    spool.measure()
    for path in list(find_segments(root)):
        path.unlink()
    assert used_bytes(root) == 3 * SIZE  # kept to begin again
    (root / str(ROW) / segment_name(1)).write_bytes(bytes(SIZE))
    spool.measure()
    assert used_bytes(root) == SIZE
    append_all(spool, range(3 * CAPACITY))
    spool.measure()
    spool.sync()
    assert names(root, NEW) == []
    spool.close()


def test_at_the_bound_a_file_can_begin_again(root: Path) -> None:
    spool = make_spool(root, parameters=THREE)
    append_all(spool, range(CAPACITY))
    spool.sync()
    next(find_segments(root)).unlink()
    (root / "9").mkdir()
    for number in range(2):
        (root / "9" / segment_name(number)).write_bytes(bytes(SIZE))
    append_all(spool, range(5))
    assert (spool.appender.appended, used_bytes(root)) == (CAPACITY + 5, 3 * SIZE)
    spool.close()


# -- failures


class FailingOs:
    """The module `os`, of whose calls the *n*th fails: of those that change or sync something."""

    CALLS = ("open", "posix_fallocate", "pwrite", "pwritev", "fsync", "link", "close")

    def __init__(self, n: int) -> None:
        self.left = n
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._watch(name, real) if name in self.CALLS else real

    def _watch(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.called.append(name)
            if len(self.called) == self.left and name != "close":
                raise OSError(errno.EIO, "injected")
            return real(*arguments)

        return call


def test_whichever_call_fails_no_segment_is_half_made_and_the_next_try_succeeds(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = 0
    for n in range(1, 60):
        failing, clock, here = FailingOs(n), Clock(), root / str(n)
        spool = make_spool(here, mono_ns=clock)
        opened = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr(spool_module, "os", failing)
            here.mkdir(parents=True)
            spool.prepare()
        failed += spool.state().failures
        if spool.state().failures:
            assert not spool.appender.append(make_log(0))
            assert names(here, "") == []
            assert len(os.listdir("/proc/self/fd")) == opened
            spool.prepare()
            assert names(here) == []  # it is left alone for a while
            clock.now_ns += RETRY_NS
            spool.prepare()
        assert spool.appender.append(make_log(0))
        spool.close()
        assert read_spool(here) == [0]
        if n > len(failing.called):
            assert failed == len([call for call in failing.called if call != "close"])
            named = failing.called.index("link")
            assert failing.called[named - 3 : named] == ["posix_fallocate", "pwrite", "fsync"]
            return
    pytest.fail("there was no end of calls")


class FailingAppender(Appender):
    """Its syncs fail while *fails* is set; *synced* keeps all that were tried."""

    def __init__(self) -> None:
        self.fails = False
        self.synced: list[int] = []

    def sync(self, number: int) -> None:
        self.synced.append(number)
        if self.fails:
            raise OSError(errno.EIO, "injected")
        super().sync(number)


def test_segment_whose_sync_failed_is_sealed_as_it_is_and_another_goes_on(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    appender = FailingAppender()
    spool = make_spool(root, appender=appender)
    append_all(spool, range(5))
    spool.prepare()
    appender.fails = True
    spool.sync()
    appender.fails = False
    assert "a sync failed" in caplog.text
    assert spool.state().failures == 2  # the prepared one's, too: what holds for one may hold for both
    spool.prepare()
    append_all(spool, range(5, 10))
    spool.sync()
    spool.close()
    assert read_spool(root) == [*range(10)]
    assert [len(read_numbers(path)[0]) for path in find_segments(root)] == [5, 0, 5]


def test_file_that_may_not_become_so_large_is_a_failure_and_no_signal(root: Path) -> None:
    clock = Clock()
    spool = make_spool(root, mono_ns=clock)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, hard))
    try:
        spool.prepare()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert spool.state().failures == 1
    assert not spool.appender.append(make_log(0))
    assert names(root) == []
    clock.now_ns += RETRY_NS
    spool.prepare()
    assert spool.appender.append(make_log(0))
    spool.close()


def test_folder_that_cannot_be_made_is_a_failure_told_once_a_minute(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    root.write_text("a file where the folder should be")
    spool = make_spool(root, mono_ns=clock)
    for _ in range(3):
        spool.prepare()
        clock.now_ns += RETRY_NS
    assert spool.state().failures == 3
    assert len(caplog.records) == 1
    root.unlink()
    spool.prepare()
    assert spool.appender.append(make_log(0))
    spool.close()


# -- no room


def test_what_is_lost_for_want_of_room_is_passed_on_and_told_once_a_minute(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, heard = Clock(), []
    spool = make_spool(root, mono_ns=clock, on_losses=lambda *lost: heard.append(lost))
    spool.tell_losses()
    assert heard == []
    spool.appender.refuse()
    spool.tell_losses()
    spool.appender.append(make_log(0))
    spool.tell_losses()
    spool.tell_losses()
    assert heard == [(1, 0), (0, 1)]
    clock.now_ns += 61 * 10**9
    spool.appender.refuse()
    spool.tell_losses()
    told = "No room in the usage spool: %s questions refused, %s answers without a record"
    assert [record.getMessage() for record in caplog.records] == [told % (1, 0), told % (1, 1)]
    spool.close()


@pytest.mark.parametrize("full", ["refuse", "shed"])
def test_operator_chooses_what_becomes_of_answers_without_room(root: Path, full: Any) -> None:
    parameters = SpoolParameters(segment_bytes=SIZE, spool_bytes=2 * SIZE, full=full)
    spool = make_spool(root, parameters=parameters)
    append_all(spool, range(2 * CAPACITY))
    spool.prepare()
    assert spool.appender.admits() is (full == "shed")
    spool.close()


def test_first_segment_is_made_after_the_one_that_another_worker_makes(root: Path) -> None:
    spool = make_spool(root)
    root.mkdir()
    with alone_in(root, wait=False) as alone:
        assert alone
        spool.prepare()
        assert spool.appender.wanting  # not now
        waiting = threading.Thread(target=spool.prepare, kwargs={"wait": True})
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
    waiting.join(10)
    assert not spool.appender.wanting
    spool.close()


# -- running


class WatchedAppender(Appender):
    """Says when a segment that has records was synced."""

    def __init__(self) -> None:
        self.has_synced = threading.Event()

    def sync(self, number: int) -> None:
        super().sync(number)
        if self.appended:
            self.has_synced.set()


async def test_running_spool_prepares_and_syncs_until_cancelled(root: Path) -> None:
    appender = WatchedAppender()
    parameters = SpoolParameters(segment_bytes=SIZE, spool_bytes=100 * SIZE, sync_ms=1)
    spool = make_spool(root, appender=appender, parameters=parameters)
    running = asyncio.create_task(spool.run())
    async with asyncio.timeout(20):
        for number in range(3 * CAPACITY):
            while not appender.append(make_log(number)):  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.001)
        appender.has_synced.clear()
        assert await asyncio.to_thread(appender.has_synced.wait, 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    spool.close()
    assert read_spool(root) == [*range(3 * CAPACITY)]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spool")]


async def test_spool_goes_on_within_a_second_after_space_has_returned(root: Path) -> None:
    parameters = SpoolParameters(segment_bytes=SIZE, spool_bytes=2 * SIZE)
    spool = make_spool(root, parameters=parameters)
    append_all(spool, range(2 * CAPACITY))
    running = asyncio.create_task(spool.run())
    await asyncio.sleep(0)
    assert not spool.appender.append(make_log(0))
    next(find_segments(root)).unlink()
    async with asyncio.timeout(1):
        while not spool.appender.append(make_log(0)):  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    spool.close()


def test_worker_is_known_as_alive_until_it_closes(root: Path) -> None:
    spool = make_spool(root, node=NODE)
    append_all(spool, range(1))
    (path,) = find_segments(root)
    with Segment(path) as segment:
        assert segment.alive
        spool.close()
        assert not segment.alive
