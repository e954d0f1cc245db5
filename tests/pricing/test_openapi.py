from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import ignored_auth

from pricing.http import PriceApi
from pricing.openapi import document, rendered
from pricing.problems import PROBLEMS
from tests.pricing.doubles import World, ask
from tests.pricing.test_http import KEY, PUBLIC_PATHS, make_api

KEYED = ("Authorization", "X-API-Key")  # schemathesis makes both up: one good key shows more
SLOW = list(HealthCheck)  # the requests are made, not filtered, by schemathesis
HIDDEN = {  # what any server answers to any other address, or before it looks at one, and to operators
    "busy",  # of reports, which have a document of their own
    "not_acceptable",
    "report_quota_exceeded",
    "reports_unavailable",
    "too_many_rows",
    "forbidden",
    "invalid",
    "not_counting",
    "not_found",
    "url_too_long",
    "head_too_large",
    "too_many_connections",
}


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    world.tick("BTC", "coinbase", "1.10")
    world.tick("BTC", "kraken", "1.20")
    yield world
    world.board.close()


@pytest.fixture
def api(world: World) -> PriceApi:
    return make_api(world)


def validator(schema: Any) -> Draft202012Validator:
    whole = document()
    return Draft202012Validator({**schema, "components": whole["components"]})


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def test_document_is_valid_openapi_3_1() -> None:
    assert document()["openapi"].startswith("3.1")
    validate(document())


def test_number_of_exchanges_is_not_fixed_in_the_text() -> None:
    assert b"six" not in rendered()


def test_every_public_path_is_described() -> None:
    assert set(document()["paths"]) == set(PUBLIC_PATHS) - {"/openapi.json"}


def test_every_example_fits_its_schema() -> None:
    checked = 0
    for _, _, operation in operations():
        bodies = [response.get("content", {}) for response in operation["responses"].values()]
        bodies.append(operation.get("requestBody", {}).get("content", {}))
        for content in bodies:
            for media in content.values():
                examples = [one["value"] for one in media.get("examples", {}).values()]
                for example in examples or [media["example"]]:
                    validator(media["schema"]).validate(example)
                    checked += 1
        for parameter in operation.get("parameters", ()):
            validator(parameter["schema"]).validate(parameter["example"])
    assert checked > 30


def test_every_problem_code_is_described_with_an_example() -> None:
    shown = {
        code
        for _, _, operation in operations()
        for response in operation["responses"].values()
        for code in response.get("content", {}).get("application/problem+json", {}).get("examples", ())
    }
    assert shown == set(PROBLEMS) - HIDDEN


@pytest.mark.parametrize(
    "target",
    [
        "/price?asset=BTC",
        "/price?asset=NOPE",
        "/price?asset=BTC&min_sources=9",
        "/price?asset=ETH",
        "/price?asset=BTC&token=x",
        "/prices?assets=BTC,NOPE",
        "/usage",
        "/exchanges",
        "/assets",
        "/asset-categories",
    ],
)
async def test_answer_is_as_described(api: PriceApi, target: str) -> None:
    answer = await ask(api, target)
    responses = document()["paths"][target.partition("?")[0]]["get"]["responses"]
    media = responses[str(answer.status)]["content"][answer.headers["content-type"]]
    validator(media["schema"]).validate(answer.json())


async def test_answer_that_marks_its_time_is_as_described(world: World, api: PriceApi) -> None:
    world.fallback.answers["kraken"] = world.polled("1", age_ms=None, source="kraken-rest")
    answer = (await ask(api, "/price?asset=ETH")).json()
    assert answer["time_is"] == "answer"
    validator(document()["components"]["schemas"]["Price"]).validate(answer)


async def test_document_is_served_as_it_is(api: PriceApi) -> None:
    assert (await ask(api, "/openapi.json")).json() == document() == msgspec.json.decode(rendered())


GENERATED = [
    (path, method, mode)
    for path, method, operation in operations()
    for mode in ("positive", "negative")
    if mode == "positive" or "parameters" in operation or "requestBody" in operation
]


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Keep the garbage collector out: schemathesis and Hypothesis parse source in several threads.

    CPython counts the depth of a syntax tree in one place for all of them, and a collection in the middle of
    one lets another thread begin: "SystemError: AST constructor recursion depth mismatch".
    """
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(("path", "method", "mode"), GENERATED)
def test_generated_requests_get_described_answers(api: PriceApi, path: str, method: str, mode: str) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", api)
    cases = schema[path][method].as_strategy(generation_mode=GenerationMode(mode))

    @given(case=cases)
    @settings(
        max_examples=15, derandomize=True, deadline=None, phases=[Phase.generate], suppress_health_check=SLOW
    )
    def drive(case: schemathesis.Case) -> None:
        if document()["paths"][path][method].get("security"):
            case.headers = {
                **KEY,
                **{name: value for name, value in case.headers.items() if name not in KEYED},
            }
        answer = case.call_and_validate(
            excluded_checks=[not_a_server_error, ignored_auth]
        )  # 503 is a promised answer
        assert answer.status_code != 500

    drive()
