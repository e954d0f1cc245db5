"""A Celery worker in this very process, for the supervisor: it says that it is ready and that it still turns.

One task at a time; several workers are several processes. Celery's own command would fork, take over logging
and signals, and reconnect by itself where a new process is the safer beginning.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from celery import Celery, bootsteps
from celery.beat import EmbeddedService, Scheduler
from celery.worker import state

from telemetry.running import BEAT_S

LOST = 1  # the exit status of a worker that lost the queue


class DueAtOnce(Scheduler):
    """Holds the schedule in memory, and begins with everything due: too often does no harm."""

    def setup_schedule(self) -> None:
        super().setup_schedule()
        for entry in self.schedule.values():
            entry.last_run_at = datetime.fromtimestamp(0, UTC)


class Signs(bootsteps.StartStopStep):
    """Writes a byte to the supervisor's pipe when the worker consumes, and each second out of its loop."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, ready_fd: int | None = None, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._ready_fd = ready_fd

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:  # Any: Celery has no types
        self._consumer = consumer
        if self._ready_fd is not None:
            os.set_blocking(self._ready_fd, False)
            self._say()
        # Without a pipe, too: with each turn of its timer a worker sees whether it is to leave.
        hub.call_repeatedly(BEAT_S, self._beat)

    def _beat(self) -> None:
        """Between two tasks no message is held. One is when the queue was lost before it was acknowledged.

        Celery then goes on as if it were at work on it, and is never given another.
        """
        if self._consumer.task_consumer.channel.qos.can_consume():
            self._say()
        else:
            state.should_stop = LOST

    def _say(self) -> None:
        if self._ready_fd is not None:
            # A supervisor that is stopped reads nothing; one that is gone has this process ended.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._ready_fd, b"1")


def run_worker(app: Celery, *, name: str, ready_fd: int | None, beat: bool) -> int:
    """Consume until a signal comes; return the exit status, which is not 0 when the broker was lost."""
    app.steps["consumer"].add(Signs)
    options = {"pool": "solo", "concurrency": 1, "without_mingle": True, "without_gossip": True}
    worker = app.WorkController(
        hostname=name, without_heartbeat=True, loglevel="INFO", ready_fd=ready_fd, **options
    )
    with stopping_on_signals(), beating(app) if beat else contextlib.nullcontext():
        worker.start()
    return int(worker.exitcode or 0)


@contextlib.contextmanager
def beating(app: Celery) -> Iterator[None]:
    """Have what is due sent to the queue, in a thread: at once, then by the schedule."""
    service = EmbeddedService(app, thread=True, scheduler_cls=DueAtOnce)
    service.start()
    try:
        yield
    finally:
        service.service.stop()  # it is a daemon: one that hangs on the broker keeps nobody


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Have the worker finish its task and leave on the first SIGINT or SIGTERM, and let a second one kill."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def on_signal(number: int, frame: object) -> None:
        state.should_stop = 0
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)

    for number in numbers:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
