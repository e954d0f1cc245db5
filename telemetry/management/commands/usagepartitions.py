"""`manage.py usagepartitions`: what is done to the usage tables each hour, by hand."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from telemetry.commands import ExplainedCommand
from telemetry.keeping import AHEAD_DAYS, ROLLUP_DAYS, Kept, keep
from telemetry.partitions import LOG_DAYS

EXAMPLES = f"""
examples:
  ./run manage usagepartitions --dry-run    say what would be done
  ./run manage usagepartitions              do it; the node does the same each hour

Days of usage logs are made {AHEAD_DAYS} days ahead and dropped after {LOG_DAYS} days; rollups are kept
{ROLLUP_DAYS} days, counts by the month for good. In SQLite there are no days: old rows are deleted.
"""


class Command(ExplainedCommand):
    help = "Make the days of usage logs ahead, and delete what is too old."
    examples = EXAMPLES

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="change nothing")

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        try:
            kept = keep(dry_run=options["dry_run"])
        except DatabaseError as error:
            raise CommandError(f"The database does not answer: {error}. Has `migrate` been run?") from error
        for line in describe(kept):
            self.stdout.write(line)


def describe(kept: Kept) -> list[str]:
    lines = [f"make    {day}" for day in kept.made] + [f"drop    {day}" for day in kept.dropped]
    if kept.moved:
        lines.append(f"move    {kept.moved:,} rows that lay outside of all days")
    lines += [f"delete  {count:,} rows of {table}" for table, count in kept.deleted.items() if count]
    return lines or ["Nothing to be done."]
