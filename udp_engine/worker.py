"""One worker of the engine: a socket that the batch empties, and asyncio for what the board cannot answer."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time

from billing._gate import Gate
from pricing._finder import Finder
from telemetry._counters import Counters
from telemetry._spool import Appender
from telemetry.recorder import Recorder
from telemetry.running import repeat
from telemetry.seldom import Seldom
from udp_engine import sockets
from udp_engine._batch import Batch
from udp_engine.parameters import Parameters
from udp_engine.slow import Answers, SlowPath

DROPS_PERIOD_S = 0.5
PAUSE_S = 1.0  # after an error of the socket itself

logger = logging.getLogger(__name__)


class Worker:
    """Answer what comes to *opened*, which stays its opener's. *workers* share its port, this one too.

    Without a *finder* it is asked for summaries, and *answers* must have them.
    """

    def __init__(
        self,
        opened: socket.socket,
        *,
        finder: Finder | None,
        gate: Gate,
        counters: Counters,
        appender: Appender,
        answers: Answers,
        parameters: Parameters,
        workers: int = 1,
    ) -> None:
        self._socket = opened
        self._counters = counters
        self._parameters = parameters
        self._may_log = Seldom(time.monotonic_ns)
        self._paused: asyncio.TimerHandle | None = None
        tells_address = sockets.is_wildcard(opened)
        if tells_address:
            sockets.tell_address(opened)
        self.buffers = sockets.buffers(opened)
        counters.open_socket(sockets.cookie(opened), *self.buffers)
        refusals_per_s, burst = parameters.share(workers)
        self.batch = Batch(
            opened.fileno(),
            finder,
            gate,
            counters,
            appender,
            budget=parameters.budget,
            own=sockets.own_address(opened),
            tells_address=tells_address,
            refusals_per_s=refusals_per_s,
            refusal_burst=burst,
            networks=parameters.networks,
            secret=secrets.randbits(64),
        )
        self._slow = SlowPath(self.batch, answers, counters, Recorder(appender, counters), parameters)

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until *stop* is set; then let what waits finish, for `grace_ms` at most.

        What nobody has read yet stays in the socket, for whoever reads it next.
        """
        counting = asyncio.create_task(
            repeat(self._keep_counting, DROPS_PERIOD_S, "Counting the kernel's drops"), name="drops"
        )
        self._listen()
        try:
            await stop.wait()
        finally:
            self._leave()
            counting.cancel()
            try:
                await asyncio.wait([counting])
                await self._slow.finish(self._parameters.grace_ms / 1_000)
                self.batch.resume()
            finally:
                self.batch.close()
                self._count_drops()

    async def _keep_counting(self) -> None:
        self._count_drops()

    def _count_drops(self) -> None:
        self._counters.kernel_dropped(sockets.kernel_drops(self._socket))

    def _listen(self) -> None:
        self._paused = None
        asyncio.get_running_loop().add_reader(self._socket, self._on_readable)

    def _leave(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.remove_writer(self._socket)
        if self._paused is not None:
            self._paused.cancel()

    def _on_readable(self) -> None:
        try:
            questions = self.batch.drain()
        except OSError:
            self._pause()
            return
        for question in questions:
            self._slow.take(question)
        if self.batch.is_blocked:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        """Go on where the kernel took no more; nothing new is read before."""
        if self.batch.resume():
            asyncio.get_running_loop().remove_writer(self._socket)
            self._listen()

    def _pause(self) -> None:
        if self._may_log():
            logger.exception("Reading the socket failed; it is tried again each second")
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        self._paused = loop.call_later(PAUSE_S, self._listen)
