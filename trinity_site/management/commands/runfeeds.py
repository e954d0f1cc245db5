"""`manage.py runfeeds`: the feeds of all exchanges, and the only writer of the price board."""

import asyncio
import logging
import signal
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
from pricing.valkey import BoardFlusher, Valkey
from trinity_site.exceptions import SegmentError
from trinity_site.roles import FEEDS_ROW
from trinity_site.shared_memory import open_board_writer, open_counters

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Keep the feeds of the exchanges running. One per node: it writes the price board."

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        try:
            uvloop.run(run_feeds())
        except (BoardError, SegmentError) as error:
            raise CommandError(str(error)) from error


async def run_feeds() -> None:
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
                valkey = Valkey(settings.REDIS_URL, Parameters())
                stack.push_async_callback(valkey.aclose)
                flusher = BoardFlusher(board, valkey, manager.assets)
                group.create_task(flusher.run(stop), name="flusher")
    logger.info("Feeds stopped")


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set *stop* on the first SIGINT or SIGTERM, and let a second one kill."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
