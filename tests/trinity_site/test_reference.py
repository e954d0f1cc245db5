"""The readable documentation says what the OpenAPI document says."""

import json
from typing import Any

import pytest

from pricing import openapi
from pricing.problems import PROBLEMS
from trinity_site.reference import KEY_HEADER, Reference, kind_of, make_reference

SITE = "http://prices.example:8080"
MORE = {"forbidden": (403, "This is not allowed"), "bad_request": (400, "Another title")}


@pytest.fixture(scope="module")
def document() -> Any:
    return openapi.document()


@pytest.fixture(scope="module")
def reference(document: Any) -> Reference:
    return make_reference(document, SITE, MORE)


def test_every_operation_is_shown_once(document: Any, reference: Reference) -> None:
    shown = sorted((one.path, one.method.lower()) for group in reference.groups for one in group.operations)
    assert shown == sorted(
        (path, method) for path, methods in document["paths"].items() for method in methods
    )


def test_command_asks_with_the_examples_of_what_is_required(reference: Reference) -> None:
    commands = {one.id: one.curl for group in reference.groups for one in group.operations}
    assert commands["getPrice"] == f"curl {KEY_HEADER}'{SITE}/price?asset=BTC'"
    assert commands["getPrices"] == f"curl {KEY_HEADER}'{SITE}/prices?assets=BTC,ETH'"
    assert commands["listAssets"] == f"curl '{SITE}/assets'"
    assert commands["postPrices"].splitlines() == [
        f"curl {KEY_HEADER}'{SITE}/prices' \\",
        "  -H 'Content-Type: application/json' \\",
        """  -d '{"assets":["BTC","ETH"]}'""",
    ]


def test_answer_is_the_example_of_the_document(reference: Reference) -> None:
    answers = {one.id: one.answer for group in reference.groups for one in group.operations}
    assert json.loads(answers["getPrice"]) == openapi.PRICE_EXAMPLE


def test_parameters_and_members_are_told_apart(reference: Reference) -> None:
    operations = {one.id: one for group in reference.groups for one in group.operations}
    asked, posted = operations["getPrice"], operations["postPrices"]
    assert (asked.fields_are, [one.name for one in asked.fields if one.required]) == ("Parameter", ["asset"])
    assert posted.fields_are == "Member of the body"
    assert [one.name for one in posted.fields if one.required] == ["assets"]


def test_every_problem_that_an_answer_points_to_is_there(reference: Reference) -> None:
    shown = {problem.code: problem for problem in reference.problems}
    assert {code for group in reference.groups for one in group.operations for code in one.problems} <= set(
        shown
    )
    assert shown["forbidden"].title == "This is not allowed"
    assert shown["bad_request"].title == PROBLEMS["bad_request"][1]  # the document's own goes first
    assert [(one.status, one.code) for one in reference.problems] == sorted(
        (one.status, one.code) for one in reference.problems
    )


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "format": "date-time"}, "time, RFC 3339"),
        ({"type": "integer", "minimum": 0, "maximum": 86_400_000}, "whole number, 0 to 86,400,000"),
        ({"type": ["string", "null"]}, "text or null"),
        ({"type": "integer", "enum": [1, 2, 3]}, "1, 2, 3"),
        ({"type": "string", "enum": list("abcdef")}, "text"),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Price"}}, "list of Price"),
        ({"anyOf": [{"$ref": "#/x/Price"}, {"$ref": "#/x/PriceError"}]}, "Price or PriceError"),
    ],
)
def test_schema_in_words(schema: Any, words: str) -> None:
    assert kind_of(schema) == words
