"""One process of a service: started, listened to, what it prints handed on, signalled, waited for.

Each is given `--ready-fd N`, a pipe of its own, and writes a byte there once it is ready, and again each
second out of its event loop: one that falls silent hangs. One that is to wait also gets `--go-fd N`: it is
ready when it could begin, and begins when that pipe is closed.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

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
    beside: bool = False  # starts with the one before it, and does not wait for that
    grace_s: float = 8.0  # from the stop signal to SIGKILL
    silent_s: float = 10.0  # from the last sign of life of one that was ready to SIGKILL
    rolls: bool = False  # its socket is the supervisor's, and it knows --go-fd: it can be replaced unnoticed


class Child:
    """A process and what watches it. `end` it in any case: nothing is left of it then."""

    def __init__(
        self,
        service: Service,
        process: asyncio.subprocess.Process,
        *,
        ready: int,
        go: int | None,
        write: Callable[[str, str], None],
        on_ready: Callable[[], None],
    ) -> None:
        self.process = process
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self._service = service
        self._go = go
        self._write = write
        self._on_ready = on_ready
        self._is_leaving = False  # it was asked to: then its silence is no hanging
        self.watching = asyncio.create_task(self._watch(ready), name=f"watch:{service.name}")

    @classmethod
    async def start(
        cls,
        service: Service,
        write: Callable[[str, str], None],
        *,
        waits: bool = False,
        on_ready: Callable[[], None] = lambda: None,
    ) -> Self:
        """Start a process; one that *waits* begins with `go`. Raises OSError."""
        process, ready, go = await start_process(service, waits=waits)
        return cls(service, process, ready=ready, go=go, write=write, on_ready=on_ready)

    def go(self) -> None:
        """Let a process begin that waits."""
        if self._go is not None:
            os.close(self._go)
            self._go = None

    def signal(self, number: signal.Signals) -> None:
        self._is_leaving = True
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has just left by itself
                os.killpg(self.process.pid, number)

    async def end(self) -> None:
        """Kill what is left of it, and wait."""
        self.signal(signal.SIGKILL)
        await self.process.wait()
        await asyncio.gather(self.watching, return_exceptions=True)
        self.go()

    async def _watch(self, ready: int) -> int:
        process, name = self.process, self._service.name
        assert process.stdout is not None  # start_process asks for a pipe
        output = asyncio.create_task(
            relay(process.stdout, lambda line: self._write(name, line)), name=f"output:{name}"
        )
        hearing = asyncio.create_task(self._hear(ready), name=f"hearing:{name}")
        try:
            code = await process.wait()
            await asyncio.wait([output], timeout=LAST_OUTPUT_S)
            return code
        finally:
            self.ended.set()
            for task in (output, hearing):
                task.cancel()
            await asyncio.gather(output, hearing, return_exceptions=True)

    async def _hear(self, ready: int) -> None:
        """Wait until the process is ready, then listen to its signs of life, and kill it when they end."""
        name, started_s = self._service.name, time.monotonic()
        async with reading(ready) as signs:
            if not await signs.read(1):
                return
            self.ready.set()
            self._on_ready()
            took_s = time.monotonic() - started_s
            logger.info("%s is ready after %.1f s (process %d)", name, took_s, self.process.pid)
            while await hears(signs, self._service.silent_s):
                pass
            if not signs.at_eof() and not self._is_leaving:  # the one leaves, the other has its grace
                logger.error("%s has hung for %.1f s: killing it", name, self._service.silent_s)
                self.signal(signal.SIGKILL)


async def start_process(
    service: Service, *, waits: bool = False
) -> tuple[asyncio.subprocess.Process, int, int | None]:
    """Start the service's process; return also the descriptor to read its signs of life from.

    For one that *waits*, the last one is the descriptor to close when it shall begin.
    """
    supervisor = os.getpid()

    def die_with_supervisor() -> None:
        # SIGTERM rather than SIGKILL: leaving in order releases the shared memory too.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:  # it died before the line above
            os._exit(1)

    ours, its = os.pipe()
    waiting, go = os.pipe() if waits else (None, None)
    inherited = [its] if waiting is None else [its, waiting]
    try:
        process = await asyncio.create_subprocess_exec(
            *service.command,
            *("--ready-fd", str(its)),
            *(() if waiting is None else ("--go-fd", str(waiting))),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **service.environment},
            pass_fds=(*service.descriptors, *inherited),
            process_group=0,  # Ctrl-C reaches the supervisor alone, which stops the others in order
            preexec_fn=die_with_supervisor,
        )
    except BaseException:
        os.close(ours)
        if go is not None:
            os.close(go)
        raise
    finally:
        for descriptor in inherited:
            os.close(descriptor)
    return process, ours, go


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
