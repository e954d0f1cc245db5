"""Simulated frames have the keys and types of the recorded ones."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exchanges.simulator.dialects import DIALECTS
from exchanges.simulator.record import Line, record

SHARED = Path(__file__).resolve().parents[5] / "shared" / "exchanges" / "messages"
OWN = Path(__file__).resolve().parents[3] / "recordings"

# Keys that real frames have or lack according to their age, or to what the client sent.
_COMES_AND_GOES = {
    "coinbase": {"client_id"},
    "gemini": {"result"},
    "kraken": {"req_id"},
    "gateio": {"etf_net_value", "etf_pre_net_value", "etf_pre_timestamp", "etf_leverage", "range", "time_ms"},
    "bybit": {"req_id", "conn_id"},
    "okx": {"count", "connId"},
}
# Maps whose keys are data.
_DATA_KEYED = {"volume", "subscriptions", "result.*"}


def shape(value: Any, ignored: set[str], key: str = "") -> Any:  # Any: JSON
    """Reduce JSON to its keys and types; numbers are one type, a list is what its first element is."""
    if isinstance(value, dict):
        if key in _DATA_KEYED:
            return {"*": shape(next(iter(value.values())), ignored)} if value else {}
        return {k: shape(v, ignored, k) for k, v in value.items() if k not in ignored}
    if isinstance(value, list):
        return [shape(value[0], ignored)] if value else []
    return "number" if type(value) in (int, float) else type(value).__name__


def shape_of(text: str, name: str) -> Any:  # Any: JSON
    if text == "pong":
        return text
    document = json.loads(text)
    if name == "kraken" and isinstance(document.get("result"), dict) and "error" in document:
        document["result"] = {"*": next(iter(document["result"].values()))}
    return shape(document, _COMES_AND_GOES.get(name, set()))


def shared_shapes(name: str, kind: str) -> list[Any]:  # Any: JSON
    lines = [json.loads(line) for line in (SHARED / f"{name}.jsonl").read_text().splitlines()]
    return [
        shape_of(line["text"], name) for line in lines if (line["kind"], line["direction"]) == (kind, "in")
    ]


# Answers for which there is no recording: the shape is taken from the exchange's documentation.
_UNRECORDED = {
    ("gemini", "error", '{"id":null'),
    ("kraken", "error", '{"error":"Unsupported event"'),
    ("kraken", "ticker_rest", '{"error":["EQuery'),
    ("coinbase", "ticker_rest", '{"error":"NOT_FOUND"'),
    ("gateio", "ticker_rest", '{"label"'),
}


def simulated() -> Iterator[tuple[str, Line]]:
    for name in DIALECTS:
        for line in record(name):
            known = any((n, k) == (name, line.kind) and line.text.startswith(t) for n, k, t in _UNRECORDED)
            if line.direction == "in" and not known:
                yield name, line


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recorded frames at {SHARED}")
@pytest.mark.parametrize(
    ("name", "line"),
    [pytest.param(name, line, id=f"{name}-{line.kind}") for name, line in simulated() if name != "binance"],
)
def test_frame_has_the_shape_of_a_recorded_one(name: str, line: Line) -> None:
    assert shape_of(line.text, name) in shared_shapes(name, line.kind)


@pytest.mark.parametrize("name", list(DIALECTS))
def test_own_recordings_are_what_the_simulator_says_now(name: str) -> None:
    """`manage.py runsimulator --record tests/recordings` was run after the last change of a dialect."""
    recorded = [json.loads(line) for line in (OWN / f"{name}.jsonl").read_text().splitlines()]
    assert [line["text"] for line in recorded] == [line.text for line in record(name)]
    assert [line["expect"] for line in recorded] == [
        [{"symbol": e.symbol, "price": e.price, "time_ns": e.time_ns} for e in line.expect]
        for line in record(name)
    ]


@pytest.mark.parametrize("name", list(DIALECTS))
def test_recording_covers_every_kind(name: str) -> None:
    kinds = {(line.kind, line.direction) for line in record(name)}
    wanted = {("subscribe", "out"), ("ack", "in"), ("error", "in"), ("trade", "in"), ("ticker_rest", "in")}
    assert wanted <= kinds
    assert ("snapshot", "in") in kinds or name not in ("coinbase", "kraken", "okx")
    assert ("pong", "in") in kinds or name in ("coinbase", "binance")


def test_kraken_prices_are_numbers_with_their_zeros() -> None:
    trade = next(line for line in record("kraken") if line.kind == "trade")
    assert f'"price":{trade.expect[0].price},' in trade.text
    prices = [trade.price for line in record("kraken") for trade in line.expect if line.kind == "snapshot"]
    assert any(price.endswith("0") for price in prices)


def test_coinbase_trades_are_newest_first() -> None:
    snapshot = next(line for line in record("coinbase") if line.kind == "snapshot")
    for event in json.loads(snapshot.text)["events"]:
        times = [trade["time"] for trade in event["trades"]]
        assert times == sorted(times, reverse=True) and len(times) > 1


def test_bybit_trades_are_oldest_first_and_always_called_snapshot() -> None:
    frames = [json.loads(line.text) for line in record("bybit") if line.kind == "trade"]
    assert {frame["type"] for frame in frames} == {"snapshot"}
    assert any(len(frame["data"]) > 1 for frame in frames)
    assert all([row["i"] for row in f["data"]] == sorted(row["i"] for row in f["data"]) for f in frames)
