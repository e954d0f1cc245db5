"""The node's shared memory: files in /dev/shm that its processes map. The only place that opens them.

A process holds a shared flock on each segment it uses, and the last one out unlinks the file. The kernel
drops the locks of a killed process, so the next start finds out by itself that a segment is nobody's, and
takes it over or replaces it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import re
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Generic, NamedTuple, Protocol, TypeVar

from billing._gate import Gate, check_gate, format_gate, gate_size
from billing._gate_writer import GateWriter
from pricing._board import BoardReader, board_size, format_board
from pricing._board_writer import BoardWriter
from telemetry._counters import CounterReader, Counters, counters_size, format_counters
from telemetry.exceptions import LayoutError
from trinity_site.exceptions import RowTaken, SecondWriter, SegmentError

FOLDER = Path("/dev/shm")
# Two processes that start over an unusable file keep each other from locking it alone for an instant.
_ATTEMPTS = 50
_PAUSE_S = 0.01


class Closable(Protocol):
    def close(self) -> None: ...


class HasWriter(Closable, Protocol):
    @property
    def writer_pid(self) -> int: ...


View = TypeVar("View", bound=Closable)


class Layout(NamedTuple):
    """One kind of segment: its name, its size, how to make one, and how to find out whether memory is one."""

    kind: str
    size: int
    format: Callable[[mmap.mmap], None]
    check: Callable[[mmap.mmap], None]


def board_layout(slots: int) -> Layout:
    return Layout(
        "board",
        board_size(slots),
        lambda memory: format_board(memory, slots),
        lambda memory: BoardReader(memory).close(),
    )


def gate_layout(rows: int) -> Layout:
    return Layout("gate", gate_size(rows), lambda memory: format_gate(memory, rows), check_gate)


def counters_layout() -> Layout:
    return Layout("counters", counters_size(), format_counters, lambda memory: CounterReader(memory).close())


def segment_path(node: str, data_dir: Path, kind: str) -> Path:
    """Name a segment: nodes on one host differ in name or in data folder."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", node):
        raise ValueError(f"a node's name is 1 to 64 letters, digits, dots, dashes and underscores: {node!r}")
    folder = hashlib.sha256(os.fsencode(os.path.realpath(data_dir))).hexdigest()[:8]
    return FOLDER / f"trinity-{node}-{folder}-{kind}"


class Segment:
    """A mapped file under a shared lock. Closing unlinks it when nobody else has it."""

    def __init__(self, path: Path, fd: int, memory: mmap.mmap) -> None:
        self.path = path
        self.memory = memory
        self._fd = fd

    def lock_for_writing(self, attach: Callable[[mmap.mmap], HasWriter]) -> None:
        """Become the one writer until closed. The lock is this open file's: no reader's closing drops it.

        *attach* opens a view that knows the writer, for the message of SecondWriter.
        """
        if not self.lock_byte(0):
            view = attach(self.memory)
            pid = view.writer_pid
            view.close()
            raise SecondWriter(self.path, pid)

    def lock_byte(self, place: int) -> bool:
        """Take one byte's lock until closed; False while another has it. The kernel frees a dead one's."""
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, lock)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        if self._fd < 0:
            return
        self.memory.close()
        fd, self._fd = self._fd, -1
        if _lock_alone(fd) and _is_at(fd, self.path):
            self.path.unlink()
        os.close(fd)


class Opened(Generic[View]):
    """What was asked for, *view*, over its segment; as a context manager it gives the view."""

    def __init__(self, segment: Segment, view: View) -> None:
        self.view = view
        self._segment = segment

    @property
    def path(self) -> Path:
        return self._segment.path

    def close(self) -> None:
        """Let go of the memory. Closing twice is harmless."""
        self.view.close()
        self._segment.close()

    def __enter__(self) -> View:
        return self.view

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_board_writer(node: str, data_dir: Path, *, slots: int) -> Opened[BoardWriter]:
    """Take the node's board over as its writer; SecondWriter while another lives."""

    def view(segment: Segment) -> BoardWriter:
        segment.lock_for_writing(BoardReader)
        return BoardWriter(segment.memory, os.getpid(), time.monotonic_ns())

    return _open(segment_path(node, data_dir, "board"), board_layout(slots), mmap.ACCESS_WRITE, view)


def open_board_reader(node: str, data_dir: Path, *, slots: int) -> Opened[BoardReader]:
    """Attach to the node's board, made empty if it is not there yet."""
    path = segment_path(node, data_dir, "board")
    return _open(path, board_layout(slots), mmap.ACCESS_READ, lambda segment: BoardReader(segment.memory))


def open_gate_writer(node: str, data_dir: Path, *, rows: int) -> Opened[GateWriter]:
    """Take the node's gate over as its writer; SecondWriter while another lives."""

    def view(segment: Segment) -> GateWriter:
        segment.lock_for_writing(Gate)
        return GateWriter(segment.memory, os.getpid(), time.monotonic_ns())

    return _open(segment_path(node, data_dir, "gate"), gate_layout(rows), mmap.ACCESS_WRITE, view)


def open_gate(node: str, data_dir: Path, *, rows: int) -> Opened[Gate]:
    """Attach to the node's gate, made empty if it is not there yet: who judges also counts."""
    path = segment_path(node, data_dir, "gate")
    return _open(path, gate_layout(rows), mmap.ACCESS_WRITE, lambda segment: Gate(segment.memory))


def open_counters(
    node: str, data_dir: Path, *, worker: int, counters: Counters | None = None
) -> Opened[Counters]:
    """Become the one who counts in a worker's row, with *counters* where they are given; RowTaken."""

    def view(segment: Segment) -> Counters:
        if not segment.lock_byte(worker):
            raise RowTaken(segment.path, worker)
        counting = Counters() if counters is None else counters
        counting.attach(segment.memory, worker)
        return counting

    return _open(segment_path(node, data_dir, "counters"), counters_layout(), mmap.ACCESS_WRITE, view)


def open_counter_reader(node: str, data_dir: Path) -> Opened[CounterReader]:
    """Attach to all rows of the node's counters."""
    path = segment_path(node, data_dir, "counters")
    return _open(path, counters_layout(), mmap.ACCESS_READ, lambda segment: CounterReader(segment.memory))


@contextlib.contextmanager
def peek(node: str, data_dir: Path, kind: str, attach: Callable[[mmap.mmap], View]) -> Iterator[View | None]:
    """Give a view of a segment as it is, of a killed node's too; None where there is none that can be read.

    Whoever peeks does not use it: nothing is made, kept or unlinked by that, and what the view changes stays
    its own.
    """
    with contextlib.ExitStack() as stack:
        try:
            fd = os.open(segment_path(node, data_dir, kind), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            stack.callback(os.close, fd)
            view = attach(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))
        except (FileNotFoundError, LayoutError, ValueError):  # ValueError: it is just being made, and empty
            yield None
            return
        stack.callback(view.close)
        yield view


def _open(path: Path, layout: Layout, access: int, view: Callable[[Segment], View]) -> Opened[View]:
    segment = open_segment(path, layout, access=access)
    try:
        return Opened(segment, view(segment))
    except BaseException:
        segment.close()
        raise


def open_segment(path: Path, layout: Layout, *, access: int = mmap.ACCESS_WRITE) -> Segment:
    """Attach to the segment at *path*, made or replaced when nobody uses it.

    SegmentError when it cannot be used: a file of another layout with somebody attached is theirs, and is
    never changed.
    """
    refusal: Exception | None = None
    for _ in range(_ATTEMPTS):
        fd = _open_file(path)
        try:
            segment = _attach(path, fd, layout, access)
        except LayoutError as error:
            os.close(fd)
            refusal = error
            time.sleep(_PAUSE_S)
            continue
        except BaseException:
            os.close(fd)
            raise
        if segment is not None:
            return segment
        os.close(fd)
    raise SegmentError(path, f"in use with another version or configuration: {refusal}") from refusal


def _open_file(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    if os.fstat(fd).st_uid != os.geteuid():
        os.close(fd)
        raise SegmentError(path, "it belongs to another user")
    return fd


def _attach(path: Path, fd: int, layout: Layout, access: int) -> Segment | None:
    """Map the file under a shared lock; None when it was unlinked meanwhile and must be opened again."""
    if _lock_alone(fd) and _is_at(fd, path):
        _make_usable(fd, layout)
    # Whoever has it alone makes it or unlinks it, which takes milliseconds.
    fcntl.flock(fd, fcntl.LOCK_SH)
    if not _is_at(fd, path):
        return None
    _check(fd, layout)
    return Segment(path, fd, mmap.mmap(fd, layout.size, access=access))


def _make_usable(fd: int, layout: Layout) -> None:
    """Keep what a killed process left behind if it is of this layout, else start with an empty one."""
    try:
        _check(fd, layout)
    except LayoutError:
        os.ftruncate(fd, 0)
        # Taken from the kernel at once: a hole that cannot be filled later would be a SIGBUS, not an error.
        os.posix_fallocate(fd, 0, layout.size)
        with mmap.mmap(fd, layout.size) as memory:
            layout.format(memory)


def _check(fd: int, layout: Layout) -> None:
    size = os.fstat(fd).st_size
    if size != layout.size:
        raise LayoutError(f"the size in bytes of the {layout.kind}", layout.size, size)
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as memory:
        layout.check(memory)


def _lock_alone(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: Path) -> bool:
    """Whether the open file still is the one that others find there."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)
