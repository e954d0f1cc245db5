"""Keep the processes of a node running: start in order, restart what dies or hangs, stop in reverse order.

What is run is a table of services made elsewhere (`roles.py`); nothing here knows what a service does. Each
is given `--ready-fd N`, a pipe of its own, and writes a byte there once it is ready, and again each second
out of its event loop: one that falls silent hangs.
"""

import asyncio
import contextlib
import ctypes
import enum
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from telemetry.running import happens

logger = logging.getLogger(__name__)

START_S = 15.0
LAST_OUTPUT_S = 1.0  # for lines still in the pipe of a process that has died
LONGEST_LINE_BYTES = 65_536
SIGNS_BYTES = 1_024
PIECES = 5  # into which a silence is cut, see hears()
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: tuple[int, ...] = ()  # inherited under the same numbers
    stop_signal: signal.Signals = signal.SIGTERM
    start_s: float = START_S  # how long the services after it wait for this one; 0: not at all
    grace_s: float = 8.0  # from the stop signal to SIGKILL
    silent_s: float = 10.0  # from the last sign of life of one that was ready to SIGKILL
    rolls: bool = False  # its socket is the supervisor's: it can be replaced without anybody noticing


class State(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting to start again"
    STOPPED = "stopped"


class Life:
    """What one service has been through, and how long it waits to be started again. No clock, no process.

    After the first death not at all, after the next *first_s*, then doubling to *cap_s*: a start takes about
    a second, so five deaths in a row are each made good within 5 s. It begins anew only after *healthy_s* of
    being ready: a process that becomes ready and dies at once would otherwise be started as fast as the
    machine can.
    """

    def __init__(self, *, first_s: float = 0.25, cap_s: float = 30.0, healthy_s: float = 60.0) -> None:
        self.state = State.STOPPED
        self.deaths = 0
        self._first_s, self._cap_s, self._healthy_s = first_s, cap_s, healthy_s
        self._next_s = 0.0
        self._ready_since_s: float | None = None

    def started(self) -> None:
        self.state = State.STARTING
        self._ready_since_s = None

    def became_ready(self, now_s: float) -> None:
        self.state = State.READY
        self._ready_since_s = now_s

    def died(self, now_s: float) -> float:
        """Note a death that nobody asked for and return the seconds to wait."""
        if self._ready_since_s is not None and now_s - self._ready_since_s >= self._healthy_s:
            self._next_s = 0.0
        delay_s, self._next_s = self._next_s, min(max(self._next_s * 2, self._first_s), self._cap_s)
        self.state = State.WAITING
        self.deaths += 1
        return delay_s

    def stopped(self) -> None:
        self.state = State.STOPPED


class Keeper:
    """One service and the process that runs it at the moment."""

    def __init__(self, service: Service, write: Callable[[str, str], None], life: Life | None = None) -> None:
        self.service = service
        self.life = life or Life()
        self.ready = asyncio.Event()  # set by each process that becomes ready, cleared by `replace`
        self.process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._asked: signal.Signals | None = None  # the strongest that anybody asked for
        self._ended = asyncio.Event()
        self._write = write
        self._replacing = False

    async def keep(self) -> None:
        """Run the service again and again until it is stopped. Raises nothing but cancellation."""
        try:
            while not self._stopping.is_set():
                ending = await self._run_once()
                if self._stopping.is_set():
                    break
                if self._replacing:
                    self._replacing = False
                    continue
                delay_s = self.life.died(time.monotonic())
                logger.error("%s %s; starting it again in %.1f s", self.service.name, ending, delay_s)
                await happens(self._stopping, delay_s)
        finally:
            self.life.stopped()
            self._ended.set()

    async def stop(self) -> None:
        """Ask the process to leave, and kill it when its grace is over."""
        self._ask(self.service.stop_signal)
        if not await happens(self._ended, self.service.grace_s):
            logger.error("%s did not stop within %.0f s: killing it", self.service.name, self.service.grace_s)
            self.kill()
            await self._ended.wait()

    async def replace(self) -> None:
        """End the process in order, and wait until another one in its place is ready or the node stops.

        What came meanwhile waits in the socket, which is the supervisor's.
        """
        old = self.process
        if old is None or old.returncode is not None:
            return  # it is being started again anyway
        self.ready.clear()
        self._replacing = True
        self._signal(self.service.stop_signal)
        try:
            async with asyncio.timeout(self.service.grace_s):
                await old.wait()
        except TimeoutError:
            logger.error("%s did not stop within %.0f s: killing it", self.service.name, self.service.grace_s)
            self._signal(signal.SIGKILL)
        await first_of(self.ready, self._stopping, timeout_s=START_S)

    def kill(self) -> None:
        self._ask(signal.SIGKILL)

    def _ask(self, number: signal.Signals) -> None:
        if self._asked is not signal.SIGKILL:
            self._asked = number
        self._stopping.set()
        self._signal(number)

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has just left by itself
                os.killpg(self.process.pid, number)

    async def _run_once(self) -> str:
        """Run one process to its end and say how it ended."""
        try:
            self.process, ready = await start_process(self.service)
        except OSError as error:
            return f"could not be started ({error})"
        self.life.started()
        try:
            if self._asked is not None:  # while the process was being made
                self._signal(self._asked)
            return how_it_ended(await self._watch(self.process, ready))
        except Exception:
            logger.exception("Watching %s failed", self.service.name)
            return "was lost sight of"
        finally:
            self._signal(signal.SIGKILL)  # only if watching it failed or was cancelled: it is dead otherwise
            await self.process.wait()

    async def _watch(self, process: asyncio.subprocess.Process, ready: int) -> int:
        assert process.stdout is not None  # start_process asks for a pipe
        name = self.service.name
        output = asyncio.create_task(
            relay(process.stdout, lambda line: self._write(name, line)), name=f"output:{name}"
        )
        hearing = asyncio.create_task(self._hear(process.pid, ready), name=f"hearing:{name}")
        try:
            code = await process.wait()
            await asyncio.wait([output], timeout=LAST_OUTPUT_S)
            return code
        finally:
            for task in (output, hearing):
                task.cancel()
            await asyncio.gather(output, hearing, return_exceptions=True)

    async def _hear(self, pid: int, ready: int) -> None:
        """Wait until the process is ready, then listen to its signs of life, and kill it when they end."""
        name, started_s = self.service.name, time.monotonic()
        async with reading(ready) as signs:
            if not await signs.read(1):
                return
            now_s = time.monotonic()
            self.life.became_ready(now_s)
            self.ready.set()
            logger.info("%s is ready after %.1f s (process %d)", name, now_s - started_s, pid)
            while await hears(signs, self.service.silent_s):
                pass
            if not signs.at_eof() and not self._stopping.is_set():  # the one leaves, the other has its grace
                logger.error("%s has hung for %.1f s: killing it", name, self.service.silent_s)
                self._signal(signal.SIGKILL)


class Supervisor:
    """Run a table of services. *write* is given each line they print, with the service's name."""

    def __init__(self, services: Sequence[Service], write: Callable[[str, str], None]) -> None:
        self.keepers = [Keeper(service, write) for service in services]

    async def run(self, stop: asyncio.Event, on_started: Callable[[], None] = lambda: None) -> None:
        """Start everything in order, call *on_started*, and when *stop* is set stop it all in reverse order.

        A service that does not become ready in time is logged and kept; the ones after it start all the same,
        because each can say by itself what it is missing.
        """
        with watching_children_without_threads():
            await self._run(stop, on_started)

    async def _run(self, stop: asyncio.Event, on_started: Callable[[], None]) -> None:
        async with asyncio.TaskGroup() as group:
            started: list[Keeper] = []
            for keeper in self.keepers:
                if stop.is_set():
                    break
                group.create_task(keeper.keep(), name=f"keep:{keeper.service.name}")
                started.append(keeper)
                limit_s = keeper.service.start_s
                await first_of(keeper.ready, stop, timeout_s=limit_s)
                if limit_s and not keeper.ready.is_set() and not stop.is_set():
                    logger.warning("%s is not ready after %.0f s: going on", keeper.service.name, limit_s)
            if not stop.is_set():
                on_started()
            await stop.wait()
            for keeper in reversed(started):
                await keeper.stop()

    async def roll(self) -> None:
        """Replace every process whose socket outlives it, one after another."""
        for keeper in self.keepers:
            if keeper.service.rolls:
                await keeper.replace()
                state = "is back" if keeper.ready.is_set() else "is not ready yet"
                logger.info("%s was replaced and %s", keeper.service.name, state)

    def kill(self) -> None:
        """End every process at once, without grace."""
        for keeper in self.keepers:
            keeper.kill()


@contextlib.contextmanager
def watching_children_without_threads() -> Iterator[None]:
    """Wait for children through file descriptors, as Python 3.12 does by itself.

    When a process is killed, the kernel hands its children from thread to thread as these die, and signals
    them each time. The second signal would kill a child that is leaving in order.
    """
    if sys.version_info >= (3, 12):
        yield
        return
    watcher = asyncio.PidfdChildWatcher()
    watcher.attach_loop(asyncio.get_running_loop())
    asyncio.set_child_watcher(watcher)
    try:
        yield
    finally:
        # It belongs to this loop: whoever comes next has one made.
        asyncio.set_child_watcher(None)  # type: ignore[arg-type]  # which None asks for


async def start_process(service: Service) -> tuple[asyncio.subprocess.Process, int]:
    """Start the service's process; return also the descriptor to read its signs of life from."""
    supervisor = os.getpid()

    def die_with_supervisor() -> None:
        # SIGTERM rather than SIGKILL: leaving in order releases the shared memory too.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:  # it died before the line above
            os._exit(1)

    ours, its = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *service.command,
            *("--ready-fd", str(its)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **service.environment},
            pass_fds=(*service.descriptors, its),
            process_group=0,  # Ctrl-C reaches the supervisor alone, which stops the others in order
            preexec_fn=die_with_supervisor,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(its)
    return process, ours


@contextlib.asynccontextmanager
async def reading(descriptor: int) -> AsyncIterator[asyncio.StreamReader]:
    """Read from a pipe, and close it in the end."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        yield reader
    finally:
        transport.close()


async def hears(signs: asyncio.StreamReader, silent_s: float) -> bool:
    """Wait for a sign of life; False after *silent_s* without one, and at the end of the pipe.

    It is listened for several times, not once for so long: a machine that was suspended, or a supervisor
    that was stopped, has missed one time when it goes on, however long that was, and kills nobody for it.
    """
    for _ in range(PIECES):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(silent_s / PIECES):
                return await signs.read(SIGNS_BYTES) != b""
    return False


async def relay(stream: asyncio.StreamReader, write: Callable[[str], None]) -> None:
    """Hand each line of *stream* to *write*; a line without end is handed on in pieces."""
    rest = b""
    while chunk := await stream.read(LONGEST_LINE_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LONGEST_LINE_BYTES:
            lines, rest = [*lines, rest], b""
        for line in lines:
            write(line.decode(errors="replace"))
    if rest:
        write(rest.decode(errors="replace"))


def how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has a number and no name
        return f"was ended by signal {-code}"


async def first_of(*events: asyncio.Event, timeout_s: float) -> None:
    """Wait until one of *events* is set, at most so long."""
    waits = [asyncio.create_task(event.wait(), name="first_of") for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
