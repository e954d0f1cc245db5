"""`manage.py runshipper`: passes the node's usage spool on to the database, directly or through the queue."""

import asyncio
import logging
from argparse import ArgumentParser
from contextlib import AsyncExitStack
from typing import Any

import uvloop
from django.conf import settings
from django.core.management.base import BaseCommand

from billing.connections import fresh_connection, from_asyncio
from telemetry.carriers import Carrier, Direct, Queued
from telemetry.inbox import is_outage, take
from telemetry.keeping import keep
from telemetry.ledger import covered, write_envelopes
from telemetry.parameters import KEEP_S, ShipperParameters
from telemetry.running import repeat, say_ready, stop_on_signals
from telemetry.shipper import Shipper

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Pass the node's usage spool on to the database. One per node."
    requires_system_checks = ()  # the supervisor has made them once for all

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--ready-fd", type=int, help="a pipe to write to when it ships")

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        uvloop.run(run_shipper(options["ready_fd"]))


async def run_shipper(ready_fd: int | None) -> None:
    """Ship until a signal comes, then what is left, for a few seconds at most."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    parameters = ShipperParameters()
    async with AsyncExitStack() as stack:
        carrier = open_carrier(settings.CELERY_BROKER_URL, parameters)
        stack.push_async_callback(carrier.aclose)
        shipper = Shipper(
            settings.TRINITY_DATA_DIR / "spool",
            carrier=carrier,
            covered=from_asyncio(covered),
            parameters=parameters,
        )
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(keep_tables(), name="keeper")
            say_ready(ready_fd)
            await shipper.run(stop)
            keeping.cancel()
    logger.info("Shipper stopped")


async def keep_tables() -> None:
    """See to the tables of usage, where there is no queue whose workers do it."""

    async def once() -> None:
        await asyncio.to_thread(fresh_connection(keep))  # with a connection of its own: shipping goes on

    if not settings.CELERY_BROKER_URL:
        await repeat(once, KEEP_S, "Seeing to the tables of usage")


def open_carrier(broker_url: str, parameters: ShipperParameters) -> Carrier:
    if not broker_url:
        return Direct(from_asyncio(write_envelopes), from_asyncio(take), is_outage)
    from trinity_site.celery import app, publish_to  # 0.2 s to import: only where there is a queue

    return Queued(lambda document: publish_to(app, document), timeout_s=parameters.sqs_timeout_ms / 1000)
