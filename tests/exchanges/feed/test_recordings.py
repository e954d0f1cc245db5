"""Every recorded frame yields exactly what the file says, through the rows that the project ships."""

import pytest

from pricing.tick import Tick
from tests.exchanges.feed.replay import (
    OWN,
    SHARED,
    Recorded,
    as_expected,
    expectation,
    latest,
    protocol_for,
    recorded,
    shipped_row,
    ticks_of,
    walking_protocol,
)

LINES = [*recorded(SHARED), *recorded(OWN)]


def tick_fields(tick: Tick) -> tuple[str, str, int | None, str]:
    """Return a tick's fields with its trade id as text: the walk keeps its digits, the decoder its value."""
    return tick.symbol, tick.price, tick.traded_ns, str(tick.trade_id)


def _name(line: Recorded) -> str:
    return f"{line.name}:{line.number}:{line.line['kind']}"


@pytest.mark.parametrize("line", LINES, ids=_name)
def test_frame_yields_exactly_its_trades(line: Recorded) -> None:
    spec = shipped_row(line.name)
    ticks = ticks_of(spec, protocol_for(spec), line.line)
    assert as_expected(ticks) == expectation(line.line)
    assert latest(spec, ticks) == line.line.get("latest", latest(spec, ticks))


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recorded frames at {SHARED}")
def test_shared_recordings_are_all_there() -> None:
    counts = {
        name: sum(line.name == name for line in recorded(SHARED))
        for name in {line.name for line in recorded(SHARED)}
    }
    assert {"coinbase", "gemini", "kraken", "gateio", "bybit", "okx", "gemini_v2"} <= set(counts)
    assert all(count >= 10 for count in counts.values()), counts


@pytest.mark.parametrize("line", [line for line in LINES if line.line["kind"] != "ticker_rest"], ids=_name)
def test_decoder_and_walk_agree(line: Recorded) -> None:
    spec = shipped_row(line.name)
    fast, walking = protocol_for(spec), walking_protocol(spec)
    frame = line.line["text"]
    fields = [[tick_fields(tick) for tick in protocol.receive(frame, 0, 0)] for protocol in (fast, walking)]
    assert fields[0] == fields[1]
    assert fast.counts == walking.counts
