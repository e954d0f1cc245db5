"""`manage.py runhttp`: one HTTP worker, on the supervisor's sockets or on its own."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from trinity_site.asgi import Application
from trinity_site.roles import FIRST_HTTP_ROW
from trinity_site.serving import add_arguments, serve


class Command(BaseCommand):
    help = "Run one HTTP worker: prices, pages, admin; health and metrics on the health port."
    requires_system_checks = ()  # the supervisor has made them once for all

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_arguments(parser, first_row=FIRST_HTTP_ROW)

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        serve(
            lambda row: Application(row=row),
            options,
            variable="TRINITY_HTTP_PORT",
            health_variable="TRINITY_HEALTH_PORT",
            command="./run manage runhttp",
        )
