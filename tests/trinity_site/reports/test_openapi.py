from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from telemetry.renderers import FORMATS
from telemetry.reports import Kind, Question, columns_of
from tests.telemetry.reported import ask
from trinity_site.reports.openapi import document, rendered
from trinity_site.reports.questions import parameters_of

OPERATIONS = {path: item["get"] for path, item in document()["paths"].items()}


def test_document_is_valid_openapi_3_1() -> None:
    validate(document())
    assert rendered().startswith(b'{"openapi":"3.1.0"')


@pytest.mark.parametrize("kind", Kind)
def test_parameters_are_those_that_are_read(kind: Kind) -> None:
    told = [row["name"] for row in OPERATIONS[f"/reports/{kind.value}"]["parameters"]]
    assert sorted(told) == sorted(parameters_of(kind))


def test_every_example_fits_its_schema() -> None:
    for operation in OPERATIONS.values():
        for response in operation["responses"].values():
            for media in response["content"].values():
                schema = {**media["schema"], "components": document()["components"]}
                shown: list[Any] = [media["example"]] if "example" in media else []
                shown += [example["value"] for example in media.get("examples", {}).values()]
                for value in shown:
                    Draft202012Validator(schema).validate(value)
        for row in operation["parameters"]:
            Draft202012Validator(row["schema"]).validate(row["example"])


@pytest.mark.parametrize("question", [ask(), ask(Kind.SUMMARY, group_by=("day",))])
def test_members_of_a_row_are_its_columns(question: Question) -> None:
    name = "Summary" if question.kind.is_summary else "Records"
    row = document()["components"]["schemas"][name]["properties"]["rows"]["items"]
    assert {column.name for column in columns_of(question)} <= set(row["properties"])
    assert set(row["required"]) <= {column.name for column in columns_of(question)}


def test_every_format_is_among_the_answers() -> None:
    for operation in OPERATIONS.values():
        told = set(operation["responses"]["200"]["content"])
        assert told == {row.content_type.partition(";")[0] for row in FORMATS.values()}
