"""The examples of README.md are what the application answers, byte for byte.

An example is the fenced block behind `<!-- answer: NAME -->`: the question as a command, the answer's status
line and those of its fields that matter there, and its body, folded behind commas. To write them anew:
`UPDATE_README=1 ./run test tests/pricing/test_readme.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import pytest

from billing import keys
from billing.ratelimit import SECOND_NS, month_start_s, next_month
from pricing import openapi
from pricing.http import PriceApi
from pricing.problems import PROBLEMS
from tests.pricing.doubles import KEYS, MONTH, START_WALL_NS, Answer, World, ask
from tests.pricing.test_http import make_api

README = Path(__file__).parents[2] / "README.md"
UPDATES = bool(os.environ.get("UPDATE_README"))
SITE = "localhost:8080"
LIMITS = ("ratelimit-policy", "ratelimit")
WIDTH = 118
FREE_CAP = 1_000

# Who asks, nobody or with the key of that name, and the question.
QUESTIONS: dict[str, tuple[str | None, str]] = {
    "price": ("pro", "/price?asset=BTC"),
    "usage": ("pro", "/usage"),
    "bad_request": ("pro", "/price?asset=BTC&max_age_ms=soon"),
    "secret_in_query": (None, "/price?asset=BTC&api_key=$TRINITY_KEY"),
    "unauthorized": (None, "/price?asset=BTC"),
    "revoked": ("revoked", "/price?asset=BTC"),
    "unknown_asset": ("pro", "/price?asset=NOPE"),
    "rate_limited": ("free", "/price?asset=BTC"),
    "quota_exceeded": ("free", "/price?asset=BTC"),
    "stale": ("pro", "/price?asset=BTC&max_age_ms=500"),
}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A node at a frozen moment of November, with a fresh trade."""
    world = World()
    left_ns = month_start_s(next_month(MONTH)) * SECOND_NS - START_WALL_NS
    world.gate.set_month(MONTH, world.clock.mono + left_ns)
    world.tick("BTC", "coinbase", "67123.450", delay_ms=40)
    world.clock.forward(2)
    yield world
    await world.aclose()


@pytest.fixture
def api(world: World) -> PriceApi:
    return make_api(world)


async def set_scene(world: World, api: PriceApi, name: str) -> None:
    """Bring the node to the point where the example begins."""
    if name == "usage":
        restore(world, "pro", 1_233)
        await ask(api, "/price?asset=BTC", key=KEYS["pro"])
    elif name == "stale":
        world.clock.forward(1_158)
    elif name == "rate_limited":
        for _ in range(5):
            await ask(api, "/price?asset=BTC", key=KEYS["free"])
    elif name == "quota_exceeded":
        restore(world, "free", FREE_CAP)


def restore(world: World, name: str, count: int) -> None:
    row = world.gate.find(keys.digest(KEYS[name]))
    assert row is not None
    world.gate.restore(row, MONTH, count)


@pytest.mark.parametrize("name", QUESTIONS)
async def test_example_is_what_is_answered(world: World, api: PriceApi, name: str) -> None:
    await set_scene(world, api, name)
    who, target = QUESTIONS[name]
    answer = await ask(api, target, key=who and KEYS[who])
    code = answer.json().get("code", name)
    assert code == name
    expected = transcript(who, target, answer)
    if UPDATES:
        README.write_text(with_example(README.read_text(), name, expected))
    assert example(README.read_text(), name) == expected


def test_every_marked_example_is_compared() -> None:
    assert re.findall(r"<!-- answer: (\w+) -->", README.read_text()) == list(QUESTIONS)


def test_table_has_every_code_of_a_price_with_its_status() -> None:
    told = {
        code: int(status)
        for status, codes in re.findall(r"^\| (\d{3}) \| (`.+?`) \|", README.read_text(), re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }
    responses = openapi.document()["paths"]["/price"]["get"]["responses"]
    refused = {
        code
        for status, answer in responses.items()
        if status not in ("200", "405", "500")
        for code in answer["content"]["application/problem+json"]["examples"]
    }
    assert told == {code: PROBLEMS[code][0] for code in refused}


# -- how an example is written


def transcript(who: str | None, target: str, answer: Answer) -> str:
    header = ' -H "X-API-Key: $TRINITY_KEY"' if who else ""
    quote = '"' if "$" in target else "'"
    shown = ("www-authenticate", "retry-after", *(LIMITS if answer.status in (200, 429) else ()))
    fields = [f"{name}: {answer.headers[name]}" for name in shown if name in answer.headers]
    return "\n".join(
        [
            f"$ curl -i{header} {quote}{SITE}{target}{quote}",
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
            *fields,
            "",
            *folded(answer.body.decode()),
        ]
    )


def folded(text: str) -> list[str]:
    """Break JSON behind commas between members, as late as the width allows; a space begins what goes on."""
    lines = [""]
    for part in re.split(r"(?<=,)(?=[\"{])", text):
        if lines[-1].strip() and len(lines[-1] + part) > WIDTH:
            lines.append(" ")
        lines[-1] += part
    return lines


def place_of(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- answer: {name} -->\n```\n)(.*?)(```\n)", re.DOTALL)


def example(readme: str, name: str) -> str:
    found = place_of(name).search(readme)
    assert found is not None, f"README.md has no example {name}"
    return found[2].removesuffix("\n")


def with_example(readme: str, name: str, text: str) -> str:
    return place_of(name).sub(lambda found: f"{found[1]}{text}\n{found[3]}", readme)
