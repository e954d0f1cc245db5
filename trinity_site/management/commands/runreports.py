"""`manage.py runreports`: one report worker, on the supervisor's sockets or on its own."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from trinity_site.reports.asgi import ReportApplication
from trinity_site.roles import FIRST_REPORTS_ROW
from trinity_site.serving import add_arguments, serve


class Command(BaseCommand):
    help = "Run one report worker: usage in six formats; health and metrics on the reports' health port."
    requires_system_checks = ()  # the supervisor has made them once for all

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_arguments(parser, first_row=FIRST_REPORTS_ROW)

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        serve(
            lambda row: ReportApplication(row=row),
            options,
            variable="TRINITY_REPORTS_PORT",
            health_variable="TRINITY_REPORTS_HEALTH_PORT",
            command="./run manage runreports",
        )
