"""The reading side of the usage spool: any segment, while it is written, sealed, or left by a dead worker.

A worker's folder is `spool/<row>/`, a segment in it `<created_ns>.seg`. What is read is copied out: a file
that has become shorter is told by its length, and ends no reader by a signal. Memory is what one reading
holds, whatever the backlog.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from telemetry._spool import (
    HEADER_BYTES,
    RECORD_BYTES,
    Tally,
    read_counts,
    read_header,
    read_tally,
    sift,
)
from telemetry.exceptions import LayoutError

SUFFIX = ".seg"
NEW = ".new"
"""Of the name that a worker has for its file beside the segment's, see spool.py."""
MOST = 65_536
"""Records that one reading holds at most: 10 MiB."""
SCAN = 4_096  # records at a time
LOCK = struct.Struct("hhqqi4x")  # struct flock


class Extent(NamedTuple):
    """How far a segment goes."""

    end: int
    """Records up to here have been written; some of them may be damaged."""
    sealed: bool
    final: bool
    """Whether that is all that will ever be in it: it is sealed, or its writer is dead."""


class Reading(NamedTuple):
    """The records from *start* to *end* that are whole, one after another: each knows its own sequence."""

    records: memoryview
    start: int
    end: int
    damaged: int
    """Records between them that are not."""


class Segment:
    """One segment, opened for reading; it may be written meanwhile.

    Raises LayoutError for a file that is none, or that its name does not belong to; OSError as the disk does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._left_end: int | None = None  # of a dead writer's: found once
        self._seen_end = 0
        try:
            self.header = read_header(self._page())
            self._check_file()
        except BaseException:
            self.close()
            raise

    def _check_file(self) -> None:
        size = os.fstat(self._fd).st_size
        if size > self.header.segment_bytes:
            raise LayoutError("the size in bytes", self.header.segment_bytes, size)
        path, name = self.path.absolute(), f"{self.header.row}/{segment_name(self.header.created_ns)}"
        if f"{path.parent.name}/{path.name}" != name:
            raise LayoutError("the name", name, f"{path.parent.name}/{path.name}")

    @property
    def identity(self) -> tuple[str, str]:
        """Node and name: no other segment ever has the same."""
        return self.header.node, f"{self.header.row}-{self.header.created_ns}"

    @property
    def alive(self) -> bool:
        """Whether its writer lives: it holds a record lock, which the kernel frees however it ends."""
        return is_locked(self._fd)

    def tally(self) -> Tally:
        """Say what its process had done when this was its current segment, last of all when it was killed."""
        return read_tally(self._own_page())

    def look(self) -> Extent:
        """Say how far it goes now."""
        alive = self.alive  # asked first: what a dead writer leaves does not change any more
        sealed, written = read_counts(self._own_page(), self.header)
        if sealed is not None:
            return Extent(sealed, sealed=True, final=True)
        if alive:
            self._seen_end = self._seen_end if written is None else written
            return Extent(self._seen_end, sealed=False, final=False)
        if self._left_end is None:
            self._left_end = max(written or 0, self._last_whole(written or 0))
        return Extent(self._left_end, sealed=False, final=True)

    def read(self, start: int, most: int = MOST) -> Reading:
        """Read *most* records from number *start*, counted from 0, or fewer: what there is, at most MOST."""
        if start < 0 or most < 0:
            raise ValueError(f"there are no {most} records from {start}")
        end = max(start, min(start + most, start + MOST, self.look().end))
        records = self._records(start, end)
        self._own_page()
        kept, _ = sift(records, start, self.header.seed)
        return Reading(records[: kept * RECORD_BYTES], start, end, end - start - kept)

    def close(self) -> None:
        """Let go of the file. Closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _page(self) -> bytes:
        return os.pread(self._fd, HEADER_BYTES, 0)

    def _own_page(self) -> bytes:
        """Read the header, or say that the segment has vanished: a file may begin again as another."""
        page = self._page().ljust(HEADER_BYTES, b"\0")
        with contextlib.suppress(LayoutError):  # it has been damaged since, and what it was is known
            if read_header(page) != self.header:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        return page

    def _records(self, start: int, end: int) -> memoryview:
        """Read those places, fewer where the file ends."""
        buffer = memoryview(bytearray((end - start) * RECORD_BYTES))
        got = 0
        while got < len(buffer):
            count = os.preadv(self._fd, [buffer[got:]], HEADER_BYTES + start * RECORD_BYTES + got)
            if count == 0:
                break
            got += count
        return buffer[: got // RECORD_BYTES * RECORD_BYTES]

    def _last_whole(self, start: int) -> int:
        """Find where the last whole record ends: its writer may have died before it could count it."""
        found, place = 0, self._skip_hole(start)
        while place < self.header.capacity:
            next_place = min(place + SCAN, self.header.capacity)
            _, end = sift(self._records(place, next_place), place, self.header.seed)
            found = place + end if end else found
            place = self._skip_hole(next_place)
        return found

    def _skip_hole(self, place: int) -> int:
        """Give the first place from *place* on where the file system knows of anything."""
        try:
            data = os.lseek(self._fd, HEADER_BYTES + place * RECORD_BYTES, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return self.header.capacity
        return max(place, (data - HEADER_BYTES) // RECORD_BYTES)


def is_locked(fd: int) -> bool:
    """Say whether a worker that lives has the file."""
    asked = LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    kind, *_ = LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    return bool(kind != fcntl.F_UNLCK)


def remove_left(folder: Path, *, older_s: float = 0.0) -> None:
    """Remove files that dead workers had made, or kept to begin again; a segment keeps its own name."""
    for path in folder.glob(f"*{NEW}"):
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if time.time() - os.fstat(fd).st_ctime >= older_s and not is_locked(fd):
                    path.unlink()
            finally:
                os.close(fd)


def segment_name(created_ns: int) -> str:
    return f"{created_ns:020}{SUFFIX}"


def find_segments(root: Path) -> Iterator[Path]:
    """Name all segments of a node, each row's by age."""
    for folder in sorted(root.glob("[0-9]*"), key=lambda folder: (len(folder.name), folder.name)):
        yield from sorted(folder.glob(f"*{SUFFIX}"))


def used_bytes(root: Path) -> int:
    """Add up all files of a node's spool, those half made included."""
    total = 0
    for path in root.glob("*/*"):
        try:
            found = path.stat()
            total += found.st_size // max(found.st_nlink, 1)  # a segment that is written has two names
        except FileNotFoundError:  # passed on and deleted meanwhile
            continue
    return total
