"""What a UDP worker answers from: the board and the tiers below it for prices, the database for summaries."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from django.conf import LazySettings

from billing._gate import Gate
from pricing._finder import Finder
from telemetry._counters import Counters
from trinity_site.reports.summaries import SummaryReader
from trinity_site.roles import FIRST_UDP_ROW, MOST_WORKERS, SPARE_REPORTS_UDP_ROW
from trinity_site.shared_memory import open_gate
from trinity_site.sources import open_sources
from udp_engine import wire
from udp_engine.parameters import Parameters
from udp_engine.prices import PriceAnswers
from udp_engine.slow import Answers
from udp_engine.summaries import SummaryAnswers


@dataclass(frozen=True, slots=True)
class World:
    gate: Gate
    finder: Finder | None
    answers: Answers
    spare_rows: Sequence[int]
    """Of counters, for a worker that runs alone: a node takes the first ones."""


async def open_prices(stack: AsyncExitStack, settings: LazySettings, counters: Counters) -> World:
    sources = await open_sources(stack, settings, counters)
    finder = Finder(sources.board, ttl_ms=sources.parameters.price_ttl_ms, label=wire.LABEL)
    await sources.follow(stack, lambda: finder.follow(sources.prices.view.listed()))
    rows = range(FIRST_UDP_ROW + MOST_WORKERS - 1, FIRST_UDP_ROW - 1, -1)
    return World(sources.gate, finder, PriceAnswers(sources.prices), rows)


async def open_summaries(stack: AsyncExitStack, settings: LazySettings, counters: Counters) -> World:
    node, folder = settings.CLUSTER_NODE, settings.TRINITY_DATA_DIR
    gate = stack.enter_context(open_gate(node, folder, rows=settings.TRINITY_GATE_ROWS))
    reader = SummaryReader()
    stack.callback(reader.close)
    answers = SummaryAnswers(reader.read, gate, Parameters())
    stack.push_async_callback(answers.aclose)
    return World(gate, None, answers, [SPARE_REPORTS_UDP_ROW])
