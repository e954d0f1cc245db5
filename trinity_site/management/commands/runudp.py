"""`manage.py runudp`: the UDP engine, one worker per socket; on the supervisor's socket or on its own."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from argparse import ArgumentParser
from contextlib import AsyncExitStack
from typing import Any

import uvloop
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from pricing._finder import Finder
from telemetry.running import say_ready, stop_on_signals, wait_to_begin
from trinity_site.exceptions import SegmentError
from trinity_site.output import Output, logging_to
from trinity_site.roles import FIRST_UDP_ROW, udp_services
from trinity_site.sockets import listen_udp
from trinity_site.sources import open_sources
from trinity_site.supervisor import Supervisor
from udp_engine import wire
from udp_engine.parameters import Parameters
from udp_engine.worker import Worker

logger = logging.getLogger(__name__)

EXAMPLES = """
examples:
  ./run manage runudp                  one worker for each core, on TRINITY_UDP_PORT
  ./run manage runudp --workers 1      one, in this very process
  TRINITY_UDP_PORT=3679 ./run manage runudp

It answers for the keys that `runkeyring` holds, with the prices that `runfeeds` writes: both belong to the
same node (CLUSTER_NODE, TRINITY_DATA_DIR).
"""


class Command(BaseCommand):
    help = "Run the UDP engine: prices by datagram."
    requires_system_checks = ()  # the supervisor has made them once for all

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.epilog = EXAMPLES
        parser.add_argument("--workers", type=int, help="how many (default: TRINITY_UDP_WORKERS)")
        parser.add_argument("--fd", type=int, help="a bound socket that was inherited: one worker, for it")
        parser.add_argument("--row", type=int, default=FIRST_UDP_ROW, help="that worker's row of counters")
        parser.add_argument("--cpu", type=int, help="the core to which it is pinned")
        parser.add_argument("--go-fd", type=int, help="a pipe: begin when its other end is closed")
        parser.add_argument("--ready-fd", type=int, help="a pipe to write to when it answers")

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        workers = options["workers"] or settings.TRINITY_UDP_WORKERS
        if workers < 1:
            raise CommandError("At least one worker is needed: --workers 1.")
        try:
            if options["fd"] is None and workers > 1:
                asyncio.run(run_workers(workers))
                return
            if options["cpu"] is not None:
                os.sched_setaffinity(0, {options["cpu"]})
            wait_to_begin(options["ready_fd"], options["go_fd"])
            opened = adopt_udp(options["fd"]) or listen_udp(settings, 1, "./run manage runudp")[0]
            with opened:
                uvloop.run(run_worker(opened, options, workers))
        except (SegmentError, OSError) as error:
            raise CommandError(str(error)) from error


def adopt_udp(descriptor: int | None) -> socket.socket | None:
    return None if descriptor is None else socket.socket(fileno=descriptor)


async def run_worker(opened: socket.socket, options: dict[str, Any], workers: int) -> None:  # Any: Django's
    """Open what a worker needs, answer until a signal comes, and close everything in reverse."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    opened.setblocking(False)
    async with AsyncExitStack() as stack:
        sources = await open_sources(stack, settings, row=options["row"])
        finder = Finder(sources.board, ttl_ms=sources.parameters.price_ttl_ms, label=wire.LABEL)
        await sources.follow(stack, lambda: finder.follow(sources.prices.view.listed()))
        worker = Worker(
            opened,
            finder=finder,
            gate=sources.gate,
            counters=sources.counters,
            prices=sources.prices,
            parameters=Parameters(),
            workers=workers,
        )
        host, port = opened.getsockname()[:2]
        logger.info("Answering UDP on %s port %d, buffer %d bytes", host, port, worker.buffers.receive_bytes)
        say_ready(options["ready_fd"])
        await worker.run(stop)
    logger.info("UDP worker stopped")


async def run_workers(count: int) -> None:
    """Run *count* workers in processes of their own until a signal comes."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(one) for one in listen_udp(settings, count, "./run manage runudp")]
        output, errors = Output(sys.stdout.fileno()), Output(sys.stderr.fileno())
        with logging_to(errors):
            supervisor = Supervisor(
                list(udp_services(settings, opened)), lambda name, line: output.write(f"{name} | {line}\n")
            )
            await supervisor.run(stop)
