"""Keep the processes of a node running: start in order, restart what dies or hangs, stop in reverse order.

What is run is a table of services made elsewhere (`roles.py`); nothing here knows what a service does.
"""

import asyncio
import contextlib
import enum
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from telemetry.running import happens
from trinity_site.children import START_S, Child, Service, how_it_ended

ROLL = signal.SIGUSR2  # see docs/operations.md

logger = logging.getLogger(__name__)


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
        self.ready = asyncio.Event()  # set by the first process that became ready, and left so
        self._child: Child | None = None
        self._successor: Child | None = None  # ready to go on where the process leaves
        self._stopping = asyncio.Event()
        self._asked: signal.Signals | None = None  # the strongest that anybody asked for
        self._ended = asyncio.Event()
        self._write = write

    @property
    def process(self) -> asyncio.subprocess.Process | None:
        return self._child.process if self._child is not None else None

    async def keep(self) -> None:
        """Run the service again and again until it is stopped. Raises nothing but cancellation."""
        try:
            while not self._stopping.is_set():
                ending = await self._run_once()
                if self._stopping.is_set() or self._successor is not None:
                    continue
                delay_s = self.life.died(time.monotonic())
                logger.error("%s %s; starting it again in %.1f s", self.service.name, ending, delay_s)
                await happens(self._stopping, delay_s)
        finally:
            if self._successor is not None:
                await self._successor.end()
            self.life.stopped()
            self._ended.set()

    async def stop(self) -> None:
        """Ask the process to leave, and kill it when its grace is over."""
        self._ask(self.service.stop_signal)
        if not await happens(self._ended, self.service.grace_s):
            logger.error("%s did not stop within %.0f s: killing it", self.service.name, self.service.grace_s)
            self.kill()
            await self._ended.wait()

    async def replace(self) -> bool:
        """Have another process ready, then end this one in order; False leaves everything as it was.

        The other one begins when this one has left: a row of counters has one writer. What comes meanwhile
        waits in the socket, which is the supervisor's.
        """
        old = self._child
        if old is None or self._successor is not None or self._stopping.is_set():
            return False  # it is being started again anyway
        try:
            successor = await Child.start(self.service, self._write, waits=True)
        except OSError as error:
            logger.error("%s could not be started anew (%s)", self.service.name, error)
            return False
        try:
            await first_of(successor.ready, self._stopping, timeout_s=START_S)
        except BaseException:
            await successor.end()
            raise
        if not successor.ready.is_set() or self._stopping.is_set() or self._child is not old:
            logger.error("%s was not replaced: the new process did not become ready", self.service.name)
            await successor.end()
            return False
        self._successor = successor
        old.signal(self.service.stop_signal)
        if not await happens(old.ended, self.service.grace_s):
            logger.error("%s did not stop within %.0f s: killing it", self.service.name, self.service.grace_s)
            old.signal(signal.SIGKILL)
            await old.ended.wait()
        return True

    def kill(self) -> None:
        self._ask(signal.SIGKILL)

    def _ask(self, number: signal.Signals) -> None:
        if self._asked is not signal.SIGKILL:
            self._asked = number
        self._stopping.set()
        if self._child is not None:
            self._child.signal(number)

    async def _run_once(self) -> str:
        """Run one process to its end and say how it ended."""
        child, self._successor = self._successor, None
        if child is None:
            self.life.started()
            try:
                child = await Child.start(self.service, self._write, on_ready=self._note_ready)
            except OSError as error:
                return f"could not be started ({error})"
        else:
            child.go()
            self._note_ready()
        self._child = child
        try:
            if self._asked is not None:  # while the process was being made
                child.signal(self._asked)
            return how_it_ended(await child.watching)
        except Exception:
            logger.exception("Watching %s failed", self.service.name)
            return "was lost sight of"
        finally:
            await child.end()  # only if watching it failed or was cancelled: it is dead otherwise

    def _note_ready(self) -> None:
        self.life.became_ready(time.monotonic())
        self.ready.set()


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
            awaited: list[Keeper] = []
            for keeper in self.keepers:
                if not keeper.service.beside:
                    await all_ready(awaited, stop)
                    awaited = []
                if stop.is_set():
                    break
                group.create_task(keeper.keep(), name=f"keep:{keeper.service.name}")
                started.append(keeper)
                awaited.append(keeper)
            await all_ready(awaited, stop)
            if not stop.is_set():
                on_started()
            await stop.wait()
            for keeper in reversed(started):
                await keeper.stop()

    async def roll(self) -> None:
        """Replace every process whose socket outlives it, one after another."""
        for keeper in self.keepers:
            if keeper.service.rolls and await keeper.replace():
                logger.info("%s was replaced", keeper.service.name)

    def kill(self) -> None:
        """End every process at once, without grace."""
        for keeper in self.keepers:
            keeper.kill()


async def all_ready(keepers: Sequence[Keeper], stop: asyncio.Event) -> None:
    """Wait for services that have been started together, for each as long as it may take, or until *stop*."""
    for keeper in keepers:
        limit_s = keeper.service.start_s
        await first_of(keeper.ready, stop, timeout_s=limit_s)
        if limit_s and not keeper.ready.is_set() and not stop.is_set():
            logger.warning("%s is not ready after %.0f s: going on", keeper.service.name, limit_s)


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


@contextlib.contextmanager
def rolling_on_signal(supervisor: Supervisor) -> Iterator[None]:
    """Replace the workers on SIGUSR2, until left; what is under way then is given up."""
    loop = asyncio.get_running_loop()
    rolling: asyncio.Task[None] | None = None

    def roll() -> None:
        nonlocal rolling
        if rolling is None or rolling.done():
            rolling = asyncio.create_task(supervisor.roll(), name="roll")

    loop.add_signal_handler(ROLL, roll)
    try:
        yield
    finally:
        loop.remove_signal_handler(ROLL)
        if rolling is not None:
            rolling.cancel()


async def first_of(*events: asyncio.Event, timeout_s: float) -> None:
    """Wait until one of *events* is set, at most so long."""
    waits = [asyncio.create_task(event.wait(), name="first_of") for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
