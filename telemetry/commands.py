"""What the project's management commands do alike."""

from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandParser


class ExplainedCommand(BaseCommand):
    """A command whose `--help` ends with its *examples*, laid out as they are written."""

    examples: str

    def create_parser(
        self, prog_name: str, subcommand: str, **options: Any
    ) -> CommandParser:  # Any: Django's own
        shape = {"epilog": self.examples, "formatter_class": RawDescriptionHelpFormatter}
        return super().create_parser(prog_name, subcommand, **{**shape, **options})
