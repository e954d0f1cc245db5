"""Replays recorded frames through a row's rules, as `exchange check --frames` does."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from exchanges.feed.decode import RestRule
from exchanges.feed.guard import PASS, Guard, PeerPrices
from exchanges.feed.protocol import FeedProtocol
from exchanges.feed.spec import FeedSpec, parse_feed
from pricing.tick import Tick

FIXTURES = Path(__file__).resolve().parents[3] / "exchanges" / "fixtures"
SHARED = Path(__file__).resolve().parents[4] / "shared" / "exchanges" / "messages"
OWN = Path(__file__).resolve().parents[2] / "recordings"


class Recorded(NamedTuple):
    """One line of a file of recorded frames."""

    name: str
    number: int
    line: dict[str, Any]


def shipped_row(name: str) -> FeedSpec:
    """Return the row that the project ships for an exchange."""
    folder = next(folder for folder in ("feeds", "more") if (FIXTURES / folder / f"{name}.json").exists())
    return parse_feed(json.loads((FIXTURES / folder / f"{name}.json").read_text())["feed"])


def recorded(folder: Path) -> Iterator[Recorded]:
    for file in sorted(folder.glob("*.jsonl")):
        for number, text in enumerate(file.read_text().splitlines(), 1):
            yield Recorded(file.stem, number, json.loads(text))


def protocol_for(spec: FeedSpec) -> FeedProtocol:
    return FeedProtocol(spec, [], uuid=lambda: "00000000-0000-4000-8000-000000000000", any_symbol=True)


def walking_protocol(spec: FeedSpec) -> FeedProtocol:
    """Return a protocol that walks every document instead of using the built decoders."""
    with patch("exchanges.feed.decode.build_decoder", return_value=None):
        return protocol_for(spec)


def ticks_of(spec: FeedSpec, protocol: FeedProtocol, line: dict[str, Any]) -> list[Tick]:
    if line["kind"] == "ticker_rest":
        asked = line["expect"][0]["symbol"] if line["expect"] else "NONE"
        tick = RestRule(spec).read(line["text"].encode())
        return [] if isinstance(tick, str) else [Tick(tick.symbol or asked, tick.price, tick.traded_ns)]
    return protocol.receive(line["text"], 0, 0)


def as_expected(ticks: list[Tick]) -> list[tuple[str, Decimal, int | None]]:
    return [(tick.symbol, Decimal(tick.price), tick.traded_ns) for tick in ticks]


def expectation(line: dict[str, Any]) -> list[tuple[str, Decimal, int | None]]:
    return [(trade["symbol"], Decimal(trade["price"]), trade["time_ns"]) for trade in line["expect"]]


def latest(spec: FeedSpec, ticks: list[Tick]) -> dict[str, str]:
    """Return what the guard leaves standing of one frame's trades: the newest of each symbol."""
    guard = Guard(max_jump_percent=1_000, tie=spec.quirks.tie, peers=lambda symbol: PeerPrices(()))
    wall_ns = max((tick.traded_ns or 0 for tick in ticks), default=0)
    standing = {}
    for tick in ticks:
        if guard.judge(tick, wall_ns) == PASS:
            standing[tick.symbol] = tick.price
    return standing
