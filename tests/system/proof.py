"""Witnesses against usage logs: every answer is logged once, as it was, and nothing else is. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from telemetry._spool import UDP
from tests.system.witnesses import Question, Told

ALL_SHOWN = 20


class Row(NamedTuple):
    """What the database has of an answer."""

    key_id: int
    protocol: int
    at_us: int
    month: int
    told: Told

    @property
    def about(self) -> str:
        return self.told.asset if self.protocol == UDP else ""


class Finding(NamedTuple):
    problem: str
    question: Question | None
    rows: list[Row]


def check(questions: Iterable[Question], rows: Iterable[Row]) -> list[Finding]:
    """Hold the answers that were received against the rows that there are."""
    asked: dict[tuple[int, int, str], list[Question]] = defaultdict(list)
    for question in questions:
        asked[question.key_id, question.protocol, question.about].append(question)
    found: dict[int, list[Row]] = defaultdict(list)
    findings = []
    for row in rows:
        those = asked.get((row.key_id, row.protocol, row.about), [])
        place = bisect_right(those, row.at_us, key=lambda one: one.asked_us)
        if place:
            found[id(those[place - 1])].append(row)
        else:
            findings.append(Finding("nobody has asked for it", None, [row]))
    for those in asked.values():
        for question in those:
            findings += check_one(question, found[id(question)])
    return findings


def check_one(question: Question, rows: list[Row]) -> list[Finding]:
    least, most = question.records
    if len(rows) < least:
        return [Finding("answered and not logged", question, rows)]
    if len(rows) > most:
        return [Finding("logged too often", question, rows)]
    if question.told is not None and any(row.told != question.told for row in rows):
        return [Finding("logged otherwise than answered", question, rows)]
    if question.told is not None and any(row.at_us > question.answered_us for row in rows):
        return [Finding("logged after it was answered", question, rows)]
    return []


def show(findings: list[Finding]) -> str:
    lines = [f"{one.problem}: {one.question} {one.rows}" for one in findings[:ALL_SHOWN]]
    return "\n".join([f"{len(findings)} findings", *lines])
