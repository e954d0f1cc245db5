"""Loads in processes of their own, seen as one: a process may open only so many files and fills one core."""

from __future__ import annotations

import contextlib
import signal
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EPIPE
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait

from udp_engine._load import Load, Reading

LOOK_S = 0.25
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Making:
    """What a Load is made from."""

    protocol: int
    address: tuple[str, int]
    requests: Sequence[bytes]
    most: int
    window: int
    timeout_ms: int


class Pool:
    """Sockets to one address, spread evenly over processes."""

    def __init__(self, making: Making, processes: int = 1) -> None:
        """Start the processes. What a Load is made from, and the key in it, travels through a pipe.

        Raises OSError, and ValueError where no Load can be made from it.
        """
        spawn = get_context("spawn")  # no fork: who starts this may have threads
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=serve, args=(theirs,), name="load", daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        try:
            self._tell([("make", making)] * processes)
        except (OSError, ValueError):
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process.pid]

    def grow(self, sockets: int) -> None:
        """Have so many sockets open, and connected where they connect. Raises OSError."""
        self._tell([("grow", share) for share in shares(sockets, len(self._pipes))])

    def run(self, seconds: float, rate: float, progress: Callable[[Reading], bool]) -> Reading:
        """Send for *seconds*; *progress* is told all the while, and stops it with False. Raises OSError."""
        for pipe in self._pipes:
            pipe.send(("run", (seconds, rate / len(self._pipes))))
        latest: dict[Connection, Reading] = {}
        busy, stopped = set(self._pipes), False
        failures: list[Exception] = []
        while busy:
            ready = wait(list(busy), LOOK_S)
            for pipe in [pipe for pipe in busy if pipe in ready]:
                said = receive(pipe)
                if isinstance(said, Reading):
                    latest[pipe] = said
                else:
                    busy.remove(pipe)
                    failures += [said] if said else []
            if latest and not progress(merge(list(latest.values()))) and not stopped:
                stopped = True
                for pipe in busy:
                    pipe.send(("stop", None))
        if failures:
            raise failures[0]
        return merge(list(latest.values()))

    def close(self) -> None:
        """End the processes; doing it twice is harmless."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(STOP_S)
            process.kill()
            process.join()
        self._pipes.clear()
        self._processes.clear()

    def _tell(self, commands: Sequence[tuple[str, object]]) -> None:
        for pipe, command in zip(self._pipes, commands, strict=True):
            pipe.send(command)
        answers = [receive(pipe) for pipe in self._pipes]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer


def receive(pipe: Connection) -> Reading | OSError | ValueError | None:
    """Return what a process says: how far it is, or that a command is done, well or not."""
    try:
        said: Reading | OSError | ValueError | None = pipe.recv()
    except (EOFError, ConnectionResetError):
        return OSError(EPIPE, "a process of the load has ended")
    return said


def shares(count: int, parts: int) -> list[int]:
    """Divide *count* as evenly as it goes."""
    return [count // parts + (part < count % parts) for part in range(parts)]


def merge(readings: Sequence[Reading]) -> Reading:
    """Add up what was counted; the time is the longest."""
    if len(readings) == 1:
        return readings[0]
    errors: Counter[str] = Counter()
    latencies = [array("Q", reading.latencies) for reading in readings]
    for reading in readings:
        errors.update(reading.errors)
    counted = {name: sum(getattr(reading, name) for reading in readings) for name in COUNTED}
    return Reading(
        **counted,
        errors=dict(errors),
        sending_ns=max(reading.sending_ns for reading in readings),
        longest_ns=max(reading.longest_ns for reading in readings),
        latencies=array("Q", map(sum, zip(*latencies, strict=True))).tobytes(),
    )


COUNTED = [
    name for name in Reading._fields if name not in ("errors", "sending_ns", "longest_ns", "latencies")
]


# ---- in the other process


def serve(pipe: Connection) -> None:
    """Do what the pipe says until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the other side decides
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _, making = pipe.recv()
        try:
            load = make(making)
        except (OSError, ValueError) as error:
            pipe.send(error)
            return
        with contextlib.closing(load):
            pipe.send(None)
            while True:
                command, argument = pipe.recv()
                if command == "grow":
                    pipe.send(failure_of(lambda: load.grow(argument)))  # noqa: B023 (called at once)
                elif command == "run":
                    pipe.send(run(load, pipe, *argument))


def make(making: Making) -> Load:
    return Load(
        making.protocol,
        making.address,
        making.requests,
        most=making.most,
        window=making.window,
        timeout_ms=making.timeout_ms,
    )


def run(load: Load, pipe: Connection, seconds: float, rate: float) -> OSError | None:
    """Run the native loop in a thread, and tell of it meanwhile and at the end."""
    failures: list[OSError | None] = []
    thread = threading.Thread(target=lambda: failures.append(failure_of(lambda: load.run(seconds, rate))))
    thread.start()
    stopped = False
    try:
        while thread.is_alive():
            thread.join(LOOK_S)
            pipe.send(load.reading())
            stopped = stopped or (pipe.poll() and pipe.recv() is not None)
            if stopped:  # said again and again, for a run that had not begun
                load.stop()
    finally:
        while thread.is_alive():  # the other side is gone
            load.stop()
            thread.join(LOOK_S)
    pipe.send(load.reading())
    return failures[0]


def failure_of(act: Callable[[], None]) -> OSError | None:
    try:
        act()
    except OSError as error:
        return error
    return None
