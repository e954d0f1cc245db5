"""docs/reports.md: its examples run against a report worker, and its tables have every word."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn

from pricing.doors import Limits
from pricing.edge import EdgeConfig
from pricing.problems import PROBLEMS
from telemetry._spool import ENDPOINTS
from telemetry.renderers import FORMATS
from telemetry.reports import DETAILS, FIGURES, GROUPS, Kind
from tests.billing.customers import make_account
from tests.services import free_port
from tests.telemetry.reported import ACCOUNT, make_usage, write_usage
from tests.trinity_site.reports.desk import KEY, Desk
from trinity_site.reports.openapi import document
from trinity_site.reports.questions import parameters_of

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reports.md").read_text()
PROGRAMS = {"python": (sys.executable, "py"), "js": ("node", "js"), "sh": ("bash", "sh")}


class Example(NamedTuple):
    language: str
    text: str
    number: int


EXAMPLES = [
    Example(language, text, number)
    for number, (language, text) in enumerate(re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL), 1)
]


@pytest.fixture
def port(plans: None) -> Iterator[int]:
    """Run a report worker over usage of this month, and give the port where it answers."""
    account = make_account(plan="unlimited")
    write_usage([log._replace(account_id=account.pk) for log in make_usage() if log.account_id == ACCOUNT])
    port, ends, started = free_port(), threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve(account.pk, port, started, ends)))
    thread.start()
    try:
        assert started.wait(30)
        yield port
    finally:
        ends.set()
        thread.join()


class Server(uvicorn.Server):
    """Says when it accepts."""

    def __init__(self, config: uvicorn.Config, started: threading.Event) -> None:
        super().__init__(config)
        self._says = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._says.set()


async def serve(account_id: int, port: int, started: threading.Event, ends: threading.Event) -> None:
    desk = Desk(account_id)
    quiet: dict[str, Any] = {"log_config": None, "access_log": False, "lifespan": "off"}
    server = Server(EdgeConfig(desk.api, limits=Limits(), host="127.0.0.1", port=port, **quiet), started)
    serving = asyncio.create_task(server._serve())
    await asyncio.to_thread(ends.wait)
    server.should_exit = True
    await serving
    await desk.aclose()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.number}-{example.language}")
def test_example_runs_as_it_stands(example: Example, port: int, tmp_path: Path) -> None:
    program, suffix = PROGRAMS[example.language]
    for needed in (program, *re.findall(r"^(curl) ", example.text, re.MULTILINE)):
        if shutil.which(needed) is None:
            pytest.skip(f"there is no {needed} here")
    path = tmp_path / f"example.{suffix}"
    assert ":9090/" in example.text
    path.write_text(example.text.replace("9090", str(port)))
    environment = {**os.environ, "TRINITY_KEY": KEY}
    done = subprocess.run(
        [program, str(path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "answers" in done.stdout or "at,key_id" in done.stdout


def test_every_language_has_its_example() -> None:
    assert {example.language for example in EXAMPLES} == set(PROGRAMS)


def named(title: str) -> list[str]:
    """Return what the first column of a table under a heading names."""
    part = PAGE.partition(f"## {title}")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", part, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([\w./-]+)`", cell)]


def test_every_parameter_is_in_the_table() -> None:
    assert sorted(named("The question")) == sorted(parameters_of(Kind.SUMMARY))


def test_every_report_and_every_word_is_named() -> None:
    for word in (
        *(f"`/reports/{kind.value}`" for kind in Kind),
        *(f"`{name}`" for name in (*FORMATS, *GROUPS, *ENDPOINTS)),
        *(f"`{column.name}`" for column in (*DETAILS, *FIGURES)),
    ):
        assert word in PAGE, word


def test_summaries_by_datagram_are_a_link_away() -> None:
    assert "](udp.md#summaries)" in PAGE
    assert "\n## Summaries\n" in (ROOT / "docs" / "udp.md").read_text()


def test_every_refusal_of_the_description_is_named_with_its_status() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE)
    told = {code: int(status) for status, code in rows}
    assert len(told) == 7
    assert {code: PROBLEMS[code][0] for code in told} == told
    for code in _codes(document()["paths"]["/reports/usage"]["get"]["responses"]):
        assert f"`{code}`" in PAGE, code


def _codes(responses: dict[str, Any]) -> set[str]:
    return {
        code
        for response in responses.values()
        for code in response["content"].get("application/problem+json", {}).get("examples", {})
    }
