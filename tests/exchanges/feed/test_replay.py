import base64
import json
from typing import Any

import pytest

from exchanges.feed.replay import Replay
from pricing.tick import Tick
from tests.exchanges.rows import feed_spec

REST = {"rest": {"time_path": "t", "time_format": "unix_ms"}}


def trade(price: str = "1") -> str:
    return json.dumps({"e": "trade", "s": "BTC-USD", "p": price, "T": 1_763_816_400_123, "i": "1"})


def replayed(*lines: dict[str, Any], **changes: Any) -> tuple[list[Tick], Replay]:  # Any: JSON, columns
    replay = Replay(feed_spec(**changes))
    return [tick for _, tick in replay.run([json.dumps(line) for line in lines])], replay


@pytest.mark.parametrize(
    "line",
    [
        {"text": trade()},
        {"text": trade(), "frame": "binary"},
        {"text": base64.b64encode(trade().encode()).decode(), "encoding": "base64"},
        {"text": trade().encode().hex(), "encoding": "hex"},
    ],
)
def test_frame_is_read_however_it_was_recorded(line: dict[str, str]) -> None:
    ((tick,), _) = replayed(line)
    assert (tick.symbol, tick.price) == ("BTC-USD", "1")


@pytest.mark.parametrize(
    "line",
    [
        {"text": "%%%", "encoding": "base64"},
        {"text": "xyz", "encoding": "hex"},
        {"text": "\ud800"},
        {"text": 7},
        {},
    ],
)
def test_line_that_cannot_be_decoded_is_counted_and_passed_over(line: dict[str, Any]) -> None:
    ticks, replay = replayed(line, {"text": trade()})
    assert (len(ticks), replay.bad_lines, replay.frames) == (1, 1, 1)
    assert replay.complaints[0].startswith("line 1:")


@pytest.mark.parametrize(
    ("members", "symbol"),
    [
        ({}, ""),
        ({"expect": [{"symbol": "BTC-USD"}]}, "BTC-USD"),
        ({"symbol": "ETH-USD", "expect": [{"symbol": "BTC-USD"}]}, "ETH-USD"),
        ({"expect": "nonsense"}, ""),
        ({"expect": [None]}, ""),
    ],
)
def test_rest_answer_is_about_the_symbol_that_was_asked_for(members: dict[str, Any], symbol: str) -> None:
    line = {"kind": "ticker_rest", "text": '{"last":"7.10","t":1763816400123}', **members}
    ((tick,), _) = replayed(line, quirks=REST)
    assert tick == Tick(symbol, "7.10", 1_763_816_400_123_000_000)


def test_rest_answer_that_names_its_symbol_is_about_that() -> None:
    quirks = {"rest": {"symbol_path": "s"}}
    line = {"kind": "ticker_rest", "text": '{"last":"7","s":"X"}', "expect": [{"symbol": "BTC-USD"}]}
    ((tick,), _) = replayed(line, quirks=quirks)
    assert tick.symbol == "X"


def test_rest_error_yields_nothing_and_is_named() -> None:
    ticks, replay = replayed({"kind": "ticker_rest", "text": '{"error":1}'})
    assert (ticks, replay.complaints) == ([], ["line 1: REST: no price"])


def test_complaints_are_bounded() -> None:
    _, replay = replayed(*({} for _ in range(100)))
    assert (replay.bad_lines, len(replay.complaints)) == (100, 20)
