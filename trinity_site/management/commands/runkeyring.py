"""`manage.py runkeyring`: keys from the database to the node's gate, counts back; the gate's only writer."""

import asyncio
import logging
import secrets
from argparse import ArgumentParser
from contextlib import AsyncExitStack
from typing import Any

import uvloop
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from billing.database import open_store
from billing.demo import DemoTokens
from billing.exceptions import BillingError
from billing.keyring import Keyring
from telemetry.running import say_ready, stop_on_signals
from trinity_site.exceptions import SegmentError
from trinity_site.shared_memory import open_gate_writer

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Keep the node's gate: who may ask, and what was counted. One per node."
    requires_system_checks = ()  # the supervisor has made them once for all

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--ready-fd", type=int, help="a pipe to write to when every key is in the gate")

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        try:
            uvloop.run(run_keyring(options["ready_fd"]))
        except (BillingError, SegmentError) as error:
            raise CommandError(str(error)) from error


async def run_keyring(ready_fd: int | None) -> None:
    """Open what the keyring needs, run it until a signal comes, and close everything in reverse."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    node, folder = settings.CLUSTER_NODE, settings.TRINITY_DATA_DIR
    async with AsyncExitStack() as stack:
        gate = stack.enter_context(open_gate_writer(node, folder, rows=settings.TRINITY_GATE_ROWS))
        sharing = None
        if settings.REDIS_URL:
            from billing.sharing import Sharing  # 0.1 s to import: only where there is something to share

            sharing = Sharing(settings.REDIS_URL, node=node)
            stack.push_async_callback(sharing.aclose)
        tokens = DemoTokens(settings.SECRET_KEY, secrets.token_bytes)
        keyring = Keyring(gate, open_store(node), node=node, sharing=sharing, extra=tuple(tokens.rows()))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(keyring.run(stop), name="keyring")
            group.create_task(say_when_loaded(keyring, running, ready_fd), name="ready")
    logger.info("Keyring stopped")


async def say_when_loaded(keyring: Keyring, running: asyncio.Task[None], ready_fd: int | None) -> None:
    loaded = asyncio.create_task(keyring.loaded.wait(), name="loaded")
    await asyncio.wait([loaded, running], return_when=asyncio.FIRST_COMPLETED)
    loaded.cancel()
    if keyring.loaded.is_set():
        say_ready(ready_fd)
