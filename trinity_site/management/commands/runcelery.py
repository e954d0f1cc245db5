"""`manage.py runcelery`: a worker of the queue, which writes what nodes send into the database."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from telemetry.commands import ExplainedCommand

EXAMPLES = """
examples:
  CELERY_BROKER_URL=redis://127.0.0.1:6379/0 ./run manage runcelery
  CELERY_BROKER_URL=sqs:// AWS_REGION=us-east-1 ./run manage runcelery --beat

A node runs TRINITY_QUEUE_WORKERS of them, the first with --beat. A worker ends when it loses the queue, so
that whoever supervises it starts another one.
"""


class Command(ExplainedCommand):
    help = "Run a worker of the queue: usage logs of all nodes, into the database."
    examples = EXAMPLES
    requires_system_checks = ()  # the supervisor has made them once for all

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--beat", action="store_true", help="also see to the tables of usage, each hour")
        parser.add_argument("--ready-fd", type=int, help="a pipe to write to when it takes from the queue")

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        if not settings.CELERY_BROKER_URL:
            raise CommandError(
                "CELERY_BROKER_URL is not set. Without a queue the shipper writes to the database itself."
            )
        from trinity_site.celery import app  # 0.2 s to import: only where there is a queue
        from trinity_site.queue_worker import run_worker

        status = run_worker(
            app, name=f"queue@{settings.CLUSTER_NODE}", ready_fd=options["ready_fd"], beat=options["beat"]
        )
        sys.exit(status)
