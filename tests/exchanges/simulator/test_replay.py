"""Recorded frames played instead of a walk."""

import json
from pathlib import Path

import pytest

from exchanges.simulator.dialects import DIALECTS
from exchanges.simulator.record import write_folder
from exchanges.simulator.replay import (
    Expected,
    RecordedFrame,
    RecordingError,
    Replay,
    read_folder,
    read_recording,
)
from exchanges.simulator.server import Simulator
from exchanges.simulator.tape import Tape
from exchanges.simulator.walk import Walk
from tests.exchanges.simulator.client import FAST, frames_until, subscribed

OWN = Path(__file__).resolve().parents[2] / "recordings"
NOW_NS = 1_800_000_000_000_000_000


def frame(kind: str, text: str, direction: str = "in", expect: tuple[Expected, ...] = ()) -> RecordedFrame:
    return RecordedFrame(kind, direction, text, expect)


def texts(replay: Replay, count: int, name: str = "okx") -> list[str]:
    dialect = DIALECTS[name]
    tape = Tape(name, dialect.NOTATION, Walk(1), seed=1, first_id=1)
    session = dialect(tape, 1, dialect.LIMITS, NOW_NS)
    return [text for played in replay.next(count) for text in played.texts(session, NOW_NS)]


def test_data_frames_are_played_as_they_are_over_and_over() -> None:
    replay = Replay(
        [
            frame("subscribe", "s", "out"),
            frame("ack", "a"),
            frame("trade", "1"),
            frame("error", "e"),
            frame("heartbeat", "2"),
        ]
    )
    assert texts(replay, 2) == ["1", "2"]
    assert texts(replay, 3) == ["1", "2", "1"]


def test_recording_without_data_plays_nothing() -> None:
    assert texts(Replay([frame("ack", "a")]), 3) == []


def test_retimed_trades_happen_now_with_rising_ids() -> None:
    trade = frame("trade", "old", expect=(Expected("BTC-USDT", "42219.9", 1),))
    played = texts(Replay([frame("heartbeat", "h"), trade], retimed=True), 2)
    rows = [json.loads(text)["data"][0] for text in played]
    assert [row["px"] for row in rows] == ["42219.9"] * 2
    assert [row["ts"] for row in rows] == [str(NOW_NS // 1_000_000)] * 2
    assert int(rows[0]["tradeId"]) < int(rows[1]["tradeId"])


def test_own_recordings_can_be_played() -> None:
    assert set(read_folder(OWN)) == set(DIALECTS)


async def test_subscriber_hears_the_recorded_frames() -> None:
    recorded = read_recording(OWN / "kraken.jsonl")
    async with Simulator(rate=FAST, replays=read_folder(OWN)) as sim, subscribed(sim, "kraken") as client:
        trade = next(frame.text for frame in recorded if frame.kind == "trade")
        assert (await frames_until(client, trade))[-1] == trade


def test_line_that_is_no_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "okx.jsonl").write_text('{"kind":"trade","direction":"in","text":"x"}\n\n{"kind":1}\n')
    with pytest.raises(RecordingError, match=r"okx\.jsonl, line 3: .*kind"):
        read_folder(tmp_path)


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_folder_without_recordings_is_an_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordingError, match="no recordings"):
        read_folder(tmp_path / folder)


def test_written_recordings_are_the_same_each_time(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_folder(tmp_path / "a")]
    second = [path.read_bytes() for path in write_folder(tmp_path / "b")]
    other = [path.read_bytes() for path in write_folder(tmp_path / "c", seed=2)]
    assert first == second != other
    assert all(len(content.splitlines()) >= 20 for content in first)
