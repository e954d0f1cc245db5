"""docs/udp.md: its examples run against a worker of the engine, and its tables have every word."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pricing._finder import Finder
from pricing.parameters import MS
from pricing.parameters import Parameters as PriceParameters
from pricing.service import PriceService
from telemetry._counters import DROP_REASONS
from tests.pricing.doubles import CATALOGUE, KEYS, Clock, make_board, make_gate
from tests.telemetry.spooling import SpoolInMemory
from tests.udp_engine.engines import make_counters
from udp_engine import sockets, wire
from udp_engine.parameters import Parameters
from udp_engine.prices import PriceAnswers
from udp_engine.summaries import SummaryAnswers, Sums, Whose
from udp_engine.worker import Worker

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "udp.md").read_text()
KEY = KEYS["unlimited"]
SUMS = Sums({"200": 120, "404": 10}, {"01": 30, "23": 100}, {"BTC": 70, "ETH": 50}, 2, 10)
PRICES = {("BTC", "coinbase"): "67123.450", ("ETH", "kraken"): "3012.7"}


class Example(NamedTuple):
    language: str
    text: str
    number: int


EXAMPLES = [
    Example(language, text, number)
    for number, (language, text) in enumerate(re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL), 1)
]
ABOUT_PRICES, _, ABOUT_SUMMARIES = PAGE.partition("## Summaries\n")
DIALOGUE = [
    (about, *said)
    for about, text in (("2679", ABOUT_PRICES), ("2680", ABOUT_SUMMARIES))
    for said in re.findall(r"^→ (.+)\n← (.+)$", text, re.MULTILINE)
]

PROGRAMS = {"python": (sys.executable, "py"), "js": ("node", "js"), "go": ("go", "go"), "sh": ("bash", "sh")}


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, str]]:
    """Run a worker for prices and one for summaries; give the ports of 127.0.0.1 for those of the page."""
    ready, ends = threading.Event(), threading.Event()
    with sockets.open_socket("127.0.0.1", 0) as prices, sockets.open_socket("127.0.0.1", 0) as summaries:
        serving = serve(prices, summaries, ready, ends)
        thread = threading.Thread(target=lambda: asyncio.run(serving), name="udp-workers")
        thread.start()
        assert ready.wait(30)
        yield {"2679": str(prices.getsockname()[1]), "2680": str(summaries.getsockname()[1])}
        ends.set()
        thread.join()


async def serve(
    opened: socket.socket, for_summaries: socket.socket, ready: threading.Event, ends: threading.Event
) -> None:
    clock = Clock()
    clock.wall, clock.mono = time.time_ns(), time.monotonic_ns()
    board, gate, (_, counters) = make_board(clock), make_gate(clock), make_counters()
    prices = PriceService(board, None, None, PriceParameters(), counters, catalogue=lambda: CATALOGUE)
    finder = Finder(board, ttl_ms=PriceParameters().price_ttl_ms, label=wire.LABEL)
    finder.follow(prices.view.listed())
    worker = Worker(
        opened,
        finder=finder,
        gate=gate,
        counters=counters,
        appender=SpoolInMemory().appender,
        answers=PriceAnswers(prices),
        parameters=Parameters(),
    )
    answers = SummaryAnswers(read_sums, gate, Parameters())
    summaries = Worker(
        for_summaries,
        finder=None,
        gate=gate,
        counters=make_counters()[1],
        appender=SpoolInMemory().appender,
        answers=answers,
        parameters=Parameters(),
    )
    stop = asyncio.Event()
    running = [asyncio.create_task(one.run(stop)) for one in (worker, summaries)]
    while not ends.is_set():
        for (asset, exchange), price in PRICES.items():
            wall_ns, mono_ns = time.time_ns(), time.monotonic_ns()
            board.write(board.place(asset, exchange), price, wall_ns - 40 * MS, wall_ns, mono_ns)
        ready.set()
        await asyncio.sleep(0.05)
    stop.set()
    await asyncio.gather(*running)
    await answers.aclose()
    await prices.aclose()


async def read_sums(whose: Whose) -> Sums:
    return SUMS


@pytest.mark.timeout(300)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.number}-{example.language}")
def test_example_runs_as_it_stands(example: Example, ports: dict[str, str], tmp_path: Path) -> None:
    program, suffix = PROGRAMS[example.language]
    for needed in (program, *re.findall(r"\| (nc) ", example.text)):
        if shutil.which(needed) is None:
            pytest.skip(f"there is no {needed} here")
    path = tmp_path / f"example.{suffix}"
    (named,) = [named for named in ports if named in example.text]
    path.write_text(example.text.replace(named, ports[named]))
    command = [program, *(("run",) if example.language == "go" else ()), str(path)]
    environment = {**os.environ, "TRINITY_KEY": KEY, "PYTHONPATH": str(ROOT), "GO111MODULE": "off"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"2679": "67123.450", "2680": "ETH"}[named] in done.stdout


def test_every_language_has_its_example() -> None:
    assert {example.language for example in EXAMPLES} == set(PROGRAMS)


@pytest.mark.parametrize(("named", "question", "expected"), DIALOGUE)
def test_answer_is_the_one_that_is_shown(
    named: str, question: str, expected: str, ports: dict[str, str]
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", int(ports[named])))
        client.settimeout(30)
        client.send(question.replace("tb_live_…", KEY).encode())
        assert timeless(client.recv(2_000).decode()) == timeless(expected)


def timeless(answer: str) -> str:
    """Leave out what is another figure each time."""
    answer = answer.replace('"limit":50000', '"limit":null')  # the doubles' key has none
    answer = re.sub(r'"month":"[^"]+"', '"month":""', answer)
    return re.sub(r'"(ts|age_ms|key|used)":\d+', r'"\1":0', answer).rstrip(" ")


def test_dialogue_is_found() -> None:
    assert [named for named, *_ in DIALOGUE] == ["2679"] * 4 + ["2680"] * 2


def test_every_code_is_in_the_table() -> None:
    table = PAGE.partition("| `error` |")[2].partition("##")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(wire.CODES)


def test_members_of_a_summary_are_those_that_are_told() -> None:
    table = ABOUT_SUMMARIES.partition("| member |")[2].partition("\n\n")[0]
    told = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split(" | ")[0])]
    assert told == ["id", *wire.Summary.__struct_fields__]


def test_every_reason_for_silence_is_in_the_table() -> None:
    told = re.findall(r"^\| [^|]+ \| (`\w+`(?:, `\w+`)*) \|$", PAGE, re.MULTILINE)
    assert sorted(re.findall(r"\w+", " ".join(told))) == sorted(DROP_REASONS)


def test_fields_are_those_that_are_read() -> None:
    table = PAGE.partition("## The question")[2].partition("##")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [
        "asset",
        "assets",
        "api_key",
        "id",
        "exchange",
        "max_age_ms",
    ]
