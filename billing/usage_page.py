"""What a customer sees of the account's usage: figures and charts of a period, read from the hourly sums."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from typing import NamedTuple
from urllib.parse import urlencode

from billing.forms import DEFAULT_PERIOD, UsageForm
from billing.models import Account
from telemetry.charts import Chart, Figures, make_charts
from telemetry.making import make_lines
from telemetry.periods import PERIODS, Period, bounds_of
from telemetry.queries import Reading
from telemetry.reports import Kind, Question, Wanted, render_hour

GROUPS = ("asset", "source", "status")
EXPORTED_BY = ("asset", "source")
PAGE_ROWS = 5_000


class Export(NamedTuple):
    """A file that can be downloaded."""

    title: str
    ending: str


EXPORTS = {"csv": Export("CSV", "csv"), "tsv": Export("TSV", "tsv"), "text": Export("Text", "txt")}


class Choice(NamedTuple):
    """A period and a key that were chosen."""

    name: str
    key_id: int | None

    @property
    def period(self) -> Period:
        return PERIODS[self.name]

    @classmethod
    def of(cls, form: UsageForm) -> Choice:
        """Return what was chosen; what is no choice is left out, and the form says so."""
        form.full_clean()
        key_id = form.cleaned_data.get("key")
        return cls(form.cleaned_data.get("period", DEFAULT_PERIOD), int(key_id) if key_id else None)

    def question(self, account: Account, now: datetime, group_by: tuple[str, ...] = ()) -> Question:
        start, end = bounds_of(self.period, now)
        return Question(Kind.SUMMARY, account.pk, start, end, key_id=self.key_id, group_by=group_by)


def read_charts(account: Account, choice: Choice, now: datetime) -> tuple[Figures, list[Chart]]:
    """Read totals and charts, all as of one moment."""
    question, reading = choice.question(account, now), Reading()
    with reading, reading.snapshot():
        totals = reading.totals(question)
        return make_charts(question, choice.period.step, GROUPS, totals, reading.breakdown)


class Command(NamedTuple):
    """A report, as somebody may ask for it in a shell."""

    title: str
    text: str


def commands(question: Question, reports: str) -> list[Command]:
    """Write down how to ask for reports of what a page shows; *reports* is the server that has them."""
    times = {"from": render_hour(question.start), "to": render_hour(question.end)}
    chosen = {**times, **({"key_id": question.key_id} if question.key_id else {})}
    asked = (
        ("Each single answer", "usage", {"format": "csv"}),
        ("An Excel file with charts", "summary", {"format": "xlsx", "group_by": "day,asset"}),
        ("A document with charts", "summary", {"format": "pdf", "group_by": "day"}),
    )
    return [
        Command(title, _curl(f"{reports}/reports/{kind}", f"{kind}.{options['format']}", options | chosen))
        for title, kind, options in asked
    ]


def _curl(address: str, file: str, options: Mapping[str, object]) -> str:
    return f'curl --fail -H "X-API-Key: $TRINITY_KEY" -o {file} "{address}?{urlencode(options, safe=":,")}"'


def export(account: Account, choice: Choice, now: datetime, format: str) -> bytes:
    """Write the figures that the charts are made of."""
    question = choice.question(account, now, (choice.period.step.group, *EXPORTED_BY))
    wanted, reading = Wanted(question, format, None, int(now.timestamp())), Reading()
    with reading, closing(make_lines(wanted, reading, page_rows=PAGE_ROWS)) as lines:
        return b"".join(lines)
