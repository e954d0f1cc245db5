"""What pages show of usage: charts, and the same figures in tables. Pure.

Rows are those of `reports.py`: what they are of, then FIGURES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from http import HTTPStatus
from typing import NamedTuple

from telemetry.periods import Step
from telemetry.plots import Bar, Part, Place, bars, columns
from telemetry.reports import FIGURES, Question, Row, Value, figures, group_maker

Figures = Mapping[str, int]
"""By the names of FIGURES."""
OUTCOMES = (("ok", "answered"), ("refused", "refused"), ("failed", "failed"))
_NAMES = tuple(column.name for column in FIGURES)


class Chart(NamedTuple):
    """A drawing, and a table that says the same."""

    name: str
    title: str
    drawing: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """The first cell of each says what it is of, the others are numbers."""


GROUPS = {
    "asset": "Answers by asset",
    "source": "Answers by source",
    "status": "Answers by status",
    "protocol": "Answers by protocol",
    "endpoint": "Answers by endpoint",
}
MOST_BARS = 12
_MOST_COLUMNS = 400


def make_charts(
    question: Question,
    step: Step,
    groups: Iterable[str],
    totals: Sequence[Value],
    breakdown: Callable[[Question, str, int], Sequence[Sequence[Value]]],
) -> tuple[Figures, list[Chart]]:
    """Make a chart over time and one for each of *groups*, of what *breakdown* reads."""

    def rows(group: str, most: int) -> list[Row]:
        return list(map(group_maker((group,)), breakdown(question, group, most)))

    whole = figures_of(figures(totals))
    over_time = chart_over_time(step, question.start, question.end, rows(step.group, _MOST_COLUMNS))
    named = (chart_by_name(group, rows(group, MOST_BARS), whole["answers"]) for group in groups)
    return whole, [over_time, *named]


def figures_of(row: Sequence[Value]) -> Figures:
    """Name the figures at the end of a row."""
    return {name: int(value or 0) for name, value in zip(_NAMES, row[-len(_NAMES) :], strict=True)}  # type: ignore[arg-type]  # numbers, all of them


def chart_over_time(step: Step, start: datetime, end: datetime, rows: Iterable[Row]) -> Chart:
    """Draw a column for each hour or day of [start, end), also for those in which nothing was answered."""
    found = {moment_of(row[0]): figures_of(row) for row in rows}
    moments = []
    while start < end:
        moments.append(start)
        start += step.length
    told = [(moment, found.get(moment)) for moment in moments]
    parts = [
        Part(word, name, [figures[name] if figures else 0 for _, figures in told]) for name, word in OUTCOMES
    ]
    places = [Place(step.number(moment), step.label(moment), step.name(moment)) for moment in moments]
    heads = ("Time (UTC)", "Answers", *(word.capitalize() for _, word in OUTCOMES))
    table = tuple(
        (
            step.name(moment).removesuffix(" UTC"),
            f"{figures['answers']:,}",
            *(f"{figures[name]:,}" for name, _ in OUTCOMES),
        )
        for moment, figures in told
        if figures
    )
    return Chart("time", step.title, columns(step.title, places, parts), heads, table)


def chart_by_name(group: str, rows: Iterable[Row], all_answers: int) -> Chart:
    """Draw a bar for each row, and one for what *all_answers* has beyond them."""
    told = [(name_of(group, row[0]), kind_of(group, row[0]), figures_of(row)) for row in rows]
    left = all_answers - sum(figures["answers"] for _, _, figures in told)
    named = [Bar(name, figures["answers"], kind) for name, kind, figures in told]
    table = [
        (name, f"{figures['answers']:,}", share(figures["answers"], all_answers)) for name, _, figures in told
    ]
    if left > 0:
        named.append(Bar("others", left, "others"))
        table.append(("others", f"{left:,}", share(left, all_answers)))
    title = GROUPS[group]
    return Chart(group, title, bars(title, named), (group.capitalize(), "Answers", "Share"), tuple(table))


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def moment_of(value: Value) -> datetime:
    """Return when an hour or a day began."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    assert isinstance(value, date)
    return datetime(value.year, value.month, value.day, tzinfo=UTC)


def name_of(group: str, value: Value) -> str:
    """Say what a row is of; what has no asset or source is an answer without a price."""
    if value is None or value == "":
        return "none"
    if group == "status":
        return f"{value} {phrase(int(str(value)))}".rstrip()
    return str(value)


def kind_of(group: str, value: Value) -> str:
    """Return the class that a bar has in the page's style."""
    if group != "status":
        return "ok"
    status = int(str(value))
    return "ok" if status < 300 else "refused" if status < 500 else "failed"


def phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
