"""What a report comes to: totals, and figures by day, asset, source and status. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from telemetry.reports import FIGURES, GROUPS, Question, Row, Value, figures, group_maker

TITLES = {
    "usage": "Usage",
    "summary": "Usage summary",
    "report-usage": "Reports made",
    "report-summary": "Summary of reports made",
}


class Breakdown(NamedTuple):
    """Figures by one thing, the first column; *most* rows at most."""

    group: str
    title: str
    most: int
    rows: tuple[Row, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return GROUPS[self.group].name, *(column.name for column in FIGURES)


BREAKDOWNS = (
    Breakdown("day", "Answers by day", 400),
    Breakdown("asset", "Answers by asset", 15),
    Breakdown("source", "Answers by source", 15),
    Breakdown("status", "Answers by status", 15),
)


class Overview(NamedTuple):
    question: Question
    totals: tuple[int, ...]
    breakdowns: tuple[Breakdown, ...]

    @property
    def title(self) -> str:
        return TITLES[self.question.kind.value]


def make_overview(
    question: Question,
    totals: Sequence[Value],
    breakdown: Callable[[Question, str, int], Sequence[Sequence[Value]]],
) -> Overview:
    """Make an overview of the totals and of what *breakdown* reads."""
    parts = tuple(
        part._replace(rows=tuple(map(group_maker((part.group,)), breakdown(question, part.group, part.most))))
        for part in BREAKDOWNS
    )
    return Overview(question, figures(totals), parts)
