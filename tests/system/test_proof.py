"""What the drills rest on: a record that is missing, there twice, made up or wrong is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from telemetry._spool import HTTP, UDP
from tests.system.proof import Row, check
from tests.system.witnesses import Question, Told

TOLD = Told(200, 0, "BTC", 1, "coinbase", "67123.45", "USD", 1)


def asked(at_us: int, told: Told | None = TOLD, *, protocol: int = HTTP, about: str = "") -> Question:
    question = Question(1, protocol, about, at_us)
    if told is not None:
        question.answer(told)
        question.answered_us = at_us + 10
    return question


def row(at_us: int, told: Told = TOLD, *, protocol: int = HTTP, key_id: int = 1) -> Row:
    return Row(key_id, protocol, at_us, 202611, told)


def problems(questions: list[Question], rows: list[Row]) -> list[str]:
    return [finding.problem for finding in check(questions, rows)]


def test_every_answer_with_its_record_is_all_right() -> None:
    assert problems([asked(100), asked(200)], [row(105), row(210)]) == []


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([row(105)], "answered and not logged"),
        ([row(105), row(205), row(206)], "logged too often"),
        ([row(99), row(105), row(205)], "nobody has asked for it"),
        ([row(105), row(205), row(206, key_id=2)], "nobody has asked for it"),
        ([row(105), row(205, TOLD._replace(price="67123.46"))], "logged otherwise than answered"),
        ([row(105), row(211)], "logged after it was answered"),
    ],
)
def test_anything_else_is_found(rows: list[Row], problem: str) -> None:
    assert problems([asked(100), asked(200)], rows) == [problem]


def test_question_without_an_answer_has_one_record_or_none() -> None:
    questions = [asked(100, None), asked(200)]
    assert problems(questions, [row(205)]) == []
    assert problems(questions, [row(150), row(205)]) == []
    assert problems(questions, [row(150), row(151), row(205)]) == ["logged too often"]


def test_answer_that_is_told_to_leave_no_record_has_none() -> None:
    refused = replace(asked(100, Told(503, 0)), records=(0, 0))
    assert problems([refused], []) == []
    assert problems([refused], [row(105, Told(503, 0))]) == ["logged too often"]


def test_late_answer_over_udp_belongs_to_its_own_asset() -> None:
    other = TOLD._replace(asset="ETH")
    questions = [asked(100, protocol=UDP, about="BTC"), asked(200, other, protocol=UDP, about="ETH")]
    questions[0].answered_us = 300
    rows = [row(205, other, protocol=UDP), row(250, protocol=UDP)]
    assert problems(questions, rows) == []
