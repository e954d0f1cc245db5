"""`manage.py runfeeds`: the feeds of all exchanges, and the only writer of the price board."""

import asyncio
import logging
from argparse import ArgumentParser
from contextlib import AsyncExitStack
from typing import Any

import uvloop
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from exchanges.feed.connection import Network
from exchanges.feed.manager import FeedManager
from exchanges.rest import ask_token
from exchanges.services import load_exchanges, table_revision
from pricing.exceptions import BoardError
from pricing.parameters import Parameters
from telemetry.running import say_ready, stop_on_signals
from trinity_site.exceptions import SegmentError
from trinity_site.roles import FEEDS_ROW
from trinity_site.shared_memory import open_board_writer, open_counters

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Keep the feeds of the exchanges running. One per node: it writes the price board."
    requires_system_checks = ()  # the supervisor has made them once for all

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--ready-fd", type=int, help="a pipe to write to when the board is ours")

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        try:
            uvloop.run(run_feeds(options["ready_fd"]))
        except (BoardError, SegmentError) as error:
            raise CommandError(str(error)) from error


async def run_feeds(ready_fd: int | None) -> None:
    """Open what the feeds need, run them until a signal comes, and close everything in reverse."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    node, folder = settings.CLUSTER_NODE, settings.TRINITY_DATA_DIR
    async with AsyncExitStack() as stack:
        opened = open_board_writer(node, folder, slots=settings.TRINITY_BOARD_SLOTS)
        board = stack.enter_context(opened)
        counters = stack.enter_context(open_counters(node, folder, worker=FEEDS_ROW))
        manager = FeedManager(
            revision=table_revision,
            load=load_exchanges,
            board=board,
            counters=counters,
            network=Network(allow_loopback=settings.TRINITY_ALLOW_LOOPBACK_EXCHANGES),
            ask_token=ask_token,
            simulator_url=settings.TRINITY_SIMULATOR_URL,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(manager.run(stop), name="feeds")
            if settings.REDIS_URL:
                from pricing.valkey import (  # 0.1 s to import: only where there is a tier 2
                    BoardFlusher,
                    Valkey,
                )

                valkey = Valkey(settings.REDIS_URL, Parameters())
                stack.push_async_callback(valkey.aclose)
                flusher = BoardFlusher(board, valkey, manager.assets)
                group.create_task(flusher.run(stop), name="flusher")
            say_ready(ready_fd)
    logger.info("Feeds stopped")
