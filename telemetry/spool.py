"""The writing side of the usage spool: one worker's segments, made ready, made durable, kept within a bound.

| what has happened | what it survives |
|---|---|
| an append said APPENDED | kill -9 of the worker at any instruction |
| a sync since then (`sync_ms`, and what the disk takes for it) | a power cut |
| there is no room (asked before the gate) | no answer; or one without a record, as the operator chose |
| a sync failed | kill -9, no power cut: no second sync is believed. The segment is sealed as it is |

That no append ends in a signal rests on blocks that are taken beforehand and then written in place, as ext4,
XFS and tmpfs do. A lock on each segment says that its writer lives; a child forked without exec shares it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from telemetry._spool import Appender, make_header
from telemetry.parameters import SpoolParameters
from telemetry.running import repeat
from telemetry.segments import LOCK, NEW, SUFFIX, remove_left, segment_name, used_bytes
from telemetry.seldom import Seldom

PERIOD_S = 0.02
MEASURE_S = 5.0
RETRY_NS = 500_000_000
"""Where none could be made no segment is made for so long: to find no room takes a look at every file."""
SPARES = 6
"""Files that a worker keeps at most to begin again with, or waits for, beside those that it writes."""
ZEROS = bytes(1024 * 1024)
"""Written over a new segment: to append to pages that are in memory costs a fraction of what faults do."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolState:
    """One worker's spool at an instant; its size is the node's."""

    appended: int
    refused: int
    """Questions that were not answered for want of room."""
    shed: int
    """Answers without a record, for the same reason."""
    failures: int
    """Calls of the system that failed: no segment could be made, or a sync was refused."""
    used_bytes: int
    bound_bytes: int
    near: bool
    """Whether the node's spool is as full as the operator wants to be warned of."""


class SegmentFile:
    """A segment that this process writes: its file, locked, and its memory.

    It has two names: that of the segment, and one of the worker's own. When whoever passes segments on has
    deleted the first, the file can begin again as another segment: its pages are in memory already.
    """

    def __init__(self, path: Path, header: bytes, size: int) -> None:
        """Make it, and give it the name of a segment once all of it is on the disk."""
        self.own_name = path.with_suffix(NEW)
        self.has_failed = False
        """Whether a sync of it has failed: it does not begin again."""
        self._size = size
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.own_name, flags, 0o600)
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
            os.posix_fallocate(self._fd, 0, size)
            self._begin(path, header)
            whole, rest = divmod(size - len(header), len(ZEROS))
            os.pwritev(self._fd, [ZEROS] * whole + [ZEROS[:rest]], len(header))
            self.memory = mmap.mmap(self._fd, size)
        except BaseException:
            self._give_up(path)
            raise

    def begin_again(self, path: Path, header: bytes) -> None:
        """Become another segment. No record of an earlier one counts in it: checksums go on from its own."""
        try:
            self._begin(path, header)
            self.memory = mmap.mmap(self._fd, self._size)
        except BaseException:
            self._give_up(path)
            raise

    @property
    def is_passed_on(self) -> bool:
        """Whether the worker's own name is the only one that is left of it."""
        try:
            return os.stat(self.own_name).st_nlink == 1
        except FileNotFoundError:  # somebody has removed that one: the other may still be there
            return False

    def close(self) -> None:
        """Leave it to whoever passes segments on."""
        with contextlib.suppress(OSError):  # then it is left behind, and removed by others
            os.unlink(self.own_name)
        os.close(self._fd)

    def _begin(self, path: Path, header: bytes) -> None:
        self.path = path
        if os.pwrite(self._fd, header, 0) != len(header):
            raise OSError(f"{self.own_name}: the header was not written whole")
        os.fsync(self._fd)
        os.link(self.own_name, path)
        sync_folder(path.parent)

    def _give_up(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # the first failure is told; what stays is empty
            os.unlink(path)
        self.close()


class Spool:
    """One worker's spool below *root*. Its appender is for the worker's one thread, the rest for any.

    Nothing is made before the first `prepare`, and nothing here raises when the disk fails: then there is no
    room. *on_losses* hears, in the worker's thread, how many questions more were refused or shed for that.
    """

    def __init__(
        self,
        root: Path,
        *,
        node: str,
        row: int,
        parameters: SpoolParameters | None = None,
        appender: Appender | None = None,
        on_losses: Callable[[int, int], None] = lambda refused, shed: None,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.appender = appender or Appender()
        self.parameters = parameters or SpoolParameters()
        self.appender.sheds = self.parameters.full == "shed"
        self._on_losses = on_losses
        self._refused = self._shed = self._told_refused = self._told_shed = 0
        self._bound = self.parameters.spool_bytes
        self._used_bytes = 0
        self._root, self._folder = root, root / str(row)
        self._node, self._row, self._boot_ns = node, row, wall_ns()
        self._wall_ns, self._mono_ns = wall_ns, mono_ns
        self._may_tell_failure = Seldom(mono_ns)
        self._may_tell_full, self._may_tell_near = Seldom(mono_ns), Seldom(mono_ns)
        self._may_tell_losses = Seldom(mono_ns)
        self._files: dict[int, SegmentFile] = {}  # by the appender's number
        self._spares: list[SegmentFile] = []  # to begin again with, once they have been passed on
        self._tried_ns: int | None = None  # in vain
        self._failures = 0
        # Each keeps others out of what its name says; who wants several takes them in this order.
        self._preparing, self._syncing, self._numbering = threading.Lock(), threading.Lock(), threading.Lock()

    async def run(self) -> None:
        """Prepare and sync until cancelled. Each has a thread, so that a slow sync delays no preparing."""
        loop = asyncio.get_running_loop()

        with ThreadPoolExecutor(2, "spool") as threads:

            async def prepare() -> None:
                if self.appender.wanting:  # seldom: most turns cost no change of threads
                    await loop.run_in_executor(threads, self.prepare)

            async def sync() -> None:
                await loop.run_in_executor(threads, self.sync)
                self.tell_losses()

            async def measure() -> None:
                await loop.run_in_executor(threads, self.measure)

            async with asyncio.TaskGroup() as group:
                preparing = repeat(prepare, PERIOD_S, "Preparing the usage spool")
                syncing = repeat(sync, self.parameters.sync_ms / 1000, "Syncing the usage spool")
                measuring = repeat(measure, MEASURE_S, "Measuring the usage spool")
                group.create_task(preparing, name="spool:prepare")
                group.create_task(syncing, name="spool:sync")
                group.create_task(measuring, name="spool:measure")

    def prepare(self, *, wait: bool = False) -> None:
        """Make the next segment when there is none and the bound allows it.

        While another worker makes one nothing is done, unless *wait* says to be next.
        """
        with self._preparing:
            if not self.appender.wanting or self._has_just_tried():
                return
            try:
                self._make_next(wait=wait)
            except OSError as error:
                self._tried_ns = self._mono_ns()
                self._tell_failure(f"{self._folder}: no segment could be made", error)

    def sync(self) -> None:
        """Make durable what has been appended, and let go of what is sealed."""
        with self._syncing:
            with self._numbering:
                retired = self.appender.take_retired()
            for number in retired:
                self._retire(number)
            for number in list(self._files):
                self._sync_one(number)

    def measure(self) -> None:
        """Look how much of the disk the node's spool takes; where room may run short it is given back."""
        self._used_bytes = used_bytes(self._root)
        if not self._has_room_for_spares:
            self._drop_spares()

    def tell_losses(self) -> None:
        """Pass on what was refused or shed for want of room since the last call; once a minute to the log."""
        refused, shed = self.appender.refused, self.appender.tally.shed
        if (refused, shed) == (self._refused, self._shed):
            return
        self._on_losses(refused - self._refused, shed - self._shed)
        self._refused, self._shed = refused, shed
        if self._may_tell_losses():
            told = refused - self._told_refused, shed - self._told_shed
            logger.error(
                "No room in the usage spool: %s questions refused, %s answers without a record", *told
            )
            self._told_refused, self._told_shed = refused, shed

    def state(self) -> SpoolState:
        """Say how it stands; its size as last measured."""
        return SpoolState(
            appended=self.appender.appended,
            refused=self.appender.refused,
            shed=self.appender.tally.shed,
            failures=self._failures,
            used_bytes=self._used_bytes,
            bound_bytes=self._bound,
            near=self._is_near(self._used_bytes),
        )

    def close(self) -> None:
        """Seal what was appended and make it durable. Closing twice is harmless; nobody may be appending."""
        with self._preparing, self._syncing:
            for number in self.appender.close():
                self._retire(number)
            for number, file in list(self._files.items()):
                with contextlib.suppress(OSError):  # an empty segment more is seen and deleted like any other
                    os.unlink(file.path)
                self._let_go(number).close()
            self._drop_spares()

    # -- making

    def _has_just_tried(self) -> bool:
        return self._tried_ns is not None and self._mono_ns() - self._tried_ns < RETRY_NS

    def _make_next(self, *, wait: bool) -> None:
        size = self.parameters.segment_bytes
        self._make_folder()
        with alone_in(self._root, wait=wait) as alone:
            if not alone:  # another worker makes one: the next call will see how much is used then
                return
            remove_left(self._folder)
            created_ns = max(self._wall_ns(), newest_ns(self._folder) + 1)
            header = make_header(self._node, self._row, created_ns, size, self._boot_ns)
            path = self._folder / segment_name(created_ns)
            used = used_bytes(self._root) + size
            spare = self._take_spare()
            if used > self._bound and spare is None:
                self._tried_ns = self._mono_ns()
                if self._may_tell_full():
                    logger.error("The usage spool is full: %s of %s bytes", used - size, self._bound)
                return
            if spare is not None:
                spare.begin_again(path, header)
            file = spare or SegmentFile(path, header, size)
        with self._numbering:
            self._files[self.appender.publish(file.memory)] = file
        if self._is_near(used) and self._may_tell_near():
            logger.warning("The usage spool is nearly full: %s of %s bytes", used, self._bound)

    def _take_spare(self) -> SegmentFile | None:
        with self._numbering:
            spare = next((file for file in self._spares if file.is_passed_on), None)
            if spare is not None:
                self._spares.remove(spare)
        return spare

    def _make_folder(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            sync_folder(self._root.parent)
            sync_folder(self._root)

    # -- syncing

    def _retire(self, number: int) -> None:
        self._sync_one(number)
        file = self._let_go(number)
        with self._numbering:
            is_kept = not file.has_failed and self._has_room_for_spares and len(self._spares) < SPARES
            if is_kept:
                self._spares.append(file)
        if not is_kept:
            file.close()

    def _let_go(self, number: int) -> SegmentFile:
        self.appender.release(number)
        file = self._files.pop(number)
        file.memory.close()
        return file

    @property
    def _has_room_for_spares(self) -> bool:
        return self._used_bytes * 2 < self._bound

    def _drop_spares(self) -> None:
        with self._numbering:
            dropped, self._spares = self._spares, []
        for file in dropped:
            file.close()

    def _sync_one(self, number: int) -> None:
        """Sync a segment unless that has failed: what could not be written the kernel holds for written."""
        try:
            self.appender.sync(number)
        except OSError as error:
            self._files[number].has_failed = True
            self.appender.condemn(number)
            self._tell_failure(f"{self._files[number].path}: a sync failed, it is sealed as it is", error)

    # -- telling

    def _is_near(self, used: int) -> bool:
        return used * 100 >= self._bound * self.parameters.warn_percent

    def _tell_failure(self, what: str, error: OSError) -> None:
        self._failures += 1
        if self._may_tell_failure():
            logger.error("The usage spool fails: %s (%s)", what, error)


def newest_ns(folder: Path) -> int:
    """Say when the newest segment was made: a clock that was set back makes no older one."""
    return max((int(path.stem) for path in folder.glob(f"*{SUFFIX}") if path.stem.isdecimal()), default=0)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def alone_in(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Keep other processes from making segments meanwhile; False when one does, and is not waited for."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(fd)
