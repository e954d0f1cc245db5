"""`manage.py reconcile`: served = logged = billed, proven or not."""

import json
import re
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.utils import timezone

from billing.usage import month_of
from telemetry.commands import ExplainedCommand
from telemetry.reconciling import Report
from trinity_site.books import known_nodes, reconcile_settled

MOST_FINDINGS = 20
ELSEWHERE = (
    "The spool and the gate of {node} are not on this machine: they are left out, and while it answers\n"
    "so are its counts. This command compares all of it there."
)
EXAMPLES = """
examples:
  ./run manage reconcile                    this node, this month, now
  ./run manage reconcile --wait 30          until nothing is on its way, for 30 s at most
  ./run manage reconcile --month 2026-10    another month
  ./run manage reconcile --quick --json     without counting the table of rows, for machines

It ends with status 1 when anything differs. What is on its way to the database is told and no difference.
"""


class Command(ExplainedCommand):
    help = "Hold counters, spool, ledger, rows, rollups and billing's counts against one another."
    examples = EXAMPLES

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--month", type=parse_month, help="2026-11 (default: this one)")
        parser.add_argument(
            "--node", default=settings.CLUSTER_NODE, help="whose books (default: this node's)"
        )
        parser.add_argument("--quick", action="store_true", help="do not count the rows one by one")
        parser.add_argument(
            "--wait", type=float, default=0.0, metavar="SECONDS", help="for what is on its way"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        nodes = known_nodes(settings)
        if options["node"] not in nodes:
            raise CommandError(f"{options['node']!r} has no books; these have: {', '.join(nodes)}")
        report = reconcile_settled(
            settings,
            node=options["node"],
            month=options["month"] or month_of(timezone.now()),
            quick=options["quick"],
            wait_s=options["wait"],
        )
        if options["json"]:
            self.stdout.write(json.dumps(describe(report), indent=1))
        else:
            self.show(report)
        if not report.agrees:
            raise SystemExit(1)

    def show(self, report: Report) -> None:
        self.stdout.write(f"{report.node}, {shown_month(report.month)}\n\n")
        self.stdout.write(f"{'':<20} {'left':>14} {'right':>14} {'difference':>11}\n")
        for check in report.checks:
            line = (
                f"{check.name:<20} {check.left:>14,} {check.right:>14,} {check.difference:>11,}  {check.note}"
            )
            self.stdout.write(line.rstrip(), self.style.ERROR if check.difference else None)
        if report.node != settings.CLUSTER_NODE:
            self.stdout.write(f"\n{ELSEWHERE.format(node=report.node)}")
        if report.agrees:
            self.stdout.write("\nNo difference.", self.style.SUCCESS)
            return
        self.stdout.write(f"\n{len(report.findings):,} differences:", self.style.ERROR)
        for one in report.findings[:MOST_FINDINGS]:
            self.stdout.write(f"  {one.check}: {one.where}: {one.text}")
        if len(report.findings) > MOST_FINDINGS:
            self.stdout.write(f"  and {len(report.findings) - MOST_FINDINGS:,} more, see --json")


def describe(report: Report) -> dict[str, Any]:  # Any: JSON
    return {
        "node": report.node,
        "month": shown_month(report.month),
        "agrees": report.agrees,
        "waiting": report.waiting,
        "checks": [check._asdict() for check in report.checks],
        "findings": [finding._asdict() for finding in report.findings],
    }


def parse_month(text: str) -> int:
    if not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", text):
        raise ArgumentTypeError(f"{text!r} is no month as in 2026-11")
    return int(text.replace("-", ""))


def shown_month(month: int) -> str:
    return f"{month // 100}-{month % 100:02}"
