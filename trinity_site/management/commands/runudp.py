"""`manage.py runudp`: the UDP engine, one worker per socket; on the supervisor's socket or on its own."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import uvloop
from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError

from telemetry._counters import Counters
from telemetry.commands import ExplainedCommand
from telemetry.running import closed, say_ready, stop_on_signals
from trinity_site.exceptions import RowTaken, SegmentError
from trinity_site.output import Output, logging_to
from trinity_site.roles import MOST_WORKERS, udp_services
from trinity_site.shared_memory import open_counters
from trinity_site.sockets import listen_udp
from trinity_site.sources import open_spool
from trinity_site.supervisor import Supervisor, rolling_on_signal
from trinity_site.udp_worlds import open_prices, open_summaries
from udp_engine.parameters import Parameters
from udp_engine.worker import Worker

logger = logging.getLogger(__name__)

EXAMPLES = """
examples:
  ./run manage runudp                  one worker for each core, on TRINITY_UDP_PORT
  ./run manage runudp --workers 1      one, in this very process
  TRINITY_UDP_PORT=3679 ./run manage runudp
  ./run manage runudp --reports        what keys have used, on TRINITY_REPORTS_UDP_PORT

It answers for the keys that `runkeyring` holds, with the prices that `runfeeds` writes: both belong to the
same node (CLUSTER_NODE, TRINITY_DATA_DIR). Summaries are read from the database.
"""


class Command(ExplainedCommand):
    help = "Run the UDP engine: prices by datagram, or summaries of what keys have used."
    examples = EXAMPLES
    requires_system_checks = ()  # the supervisor has made them once for all

    def add_arguments(self, parser: ArgumentParser) -> None:
        workers = parser.add_argument("--workers", type=int, help="1 to 31 (default: TRINITY_UDP_WORKERS)")
        workers.choices = range(1, MOST_WORKERS + 1)
        workers.metavar = "N"
        parser.add_argument("--reports", action="store_true", help="answer summaries, in one worker")
        parser.add_argument("--fd", type=int, help="a bound socket that was inherited: one worker, for it")
        parser.add_argument(
            "--row", type=int, help="that worker's row of counters (default: one that is free)"
        )
        parser.add_argument("--cpu", type=int, help="the core to which it is pinned")
        parser.add_argument("--go-fd", type=int, help="a pipe: begin when its other end is closed")
        parser.add_argument("--ready-fd", type=int, help="a pipe to write to when it answers")

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        reports = options["reports"]
        workers = 1 if reports else options["workers"] or settings.TRINITY_UDP_WORKERS
        variable = "TRINITY_REPORTS_UDP_PORT" if reports else "TRINITY_UDP_PORT"
        if not workers:
            raise CommandError("TRINITY_UDP_WORKERS is 0: say how many, as in --workers 1.")
        try:
            if options["fd"] is None:
                self.check(app_configs=[apps.get_app_config("udp_engine")])
            if options["fd"] is None and workers > 1:
                asyncio.run(run_workers(workers))
                return
            core = options["cpu"]
            if core is None and settings.TRINITY_UDP_PINNED and not reports:
                core = settings.TRINITY_CORES[0]
            if core is not None:
                os.sched_setaffinity(0, {core})
            command = "./run manage runudp --reports" if reports else "./run manage runudp"
            with adopt_udp(options["fd"]) or listen_udp(settings, 1, command, variable)[0] as opened:
                uvloop.run(run_worker(opened, options, workers))
        except (SegmentError, OSError, ValueError) as error:
            raise CommandError(str(error)) from error


def adopt_udp(descriptor: int | None) -> socket.socket | None:
    return None if descriptor is None else socket.socket(fileno=descriptor)


async def run_worker(opened: socket.socket, options: dict[str, Any], workers: int) -> None:  # Any: Django's
    """Open what a worker needs, answer until a signal comes, and close everything in reverse.

    All but the counters' row is open before the worker in whose place this one is leaves.
    """
    stop = asyncio.Event()
    stop_on_signals(stop)
    opened.setblocking(False)
    async with AsyncExitStack() as stack:
        counters = Counters()
        open_world = open_summaries if options["reports"] else open_prices
        world = await open_world(stack, settings, counters)
        if options["go_fd"] is not None:
            say_ready(options["ready_fd"])
            await closed(options["go_fd"])
        rows = [options["row"]] if options["row"] is not None else world.spare_rows
        row = count_in(stack, rows, counters)
        spool = await open_spool(stack, settings, counters, row=row)
        worker = Worker(
            opened,
            finder=world.finder,
            gate=world.gate,
            counters=counters,
            appender=spool.appender,
            answers=world.answers,
            parameters=Parameters(),
            workers=workers,
        )
        host, port = opened.getsockname()[:2]
        logger.info("Answering UDP on %s port %d, buffer %d bytes", host, port, worker.buffers.receive_bytes)
        if options["go_fd"] is None:
            say_ready(options["ready_fd"])
        await worker.run(stop)
    logger.info("UDP worker stopped")


def count_in(stack: AsyncExitStack, rows: Sequence[int], counters: Counters) -> int:
    """Have *counters* count in the first of *rows* that is free."""
    for candidate in rows:
        try:
            opened = open_counters(
                settings.CLUSTER_NODE, settings.TRINITY_DATA_DIR, worker=candidate, counters=counters
            )
        except RowTaken:
            if candidate == rows[-1]:
                raise
        else:
            stack.enter_context(opened)
            return candidate
    raise AssertionError("the last candidate is taken, or raises")


async def run_workers(count: int) -> None:
    """Run *count* workers in processes of their own until a signal comes."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(one) for one in listen_udp(settings, count, "./run manage runudp")]
        output, errors = Output(sys.stdout.fileno()), Output(sys.stderr.fileno())
        with logging_to(errors):
            supervisor = Supervisor(
                list(udp_services(settings, opened, spare=True)),
                lambda name, line: output.write(f"{name} | {line}\n"),
            )
            with rolling_on_signal(supervisor):
                await supervisor.run(stop)
