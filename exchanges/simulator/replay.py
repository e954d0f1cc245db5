"""Recorded frames instead of a walk: a folder of ``<exchange>.jsonl`` files, one JSON object a line.

Of each line ``direction``, ``kind``, ``text`` and ``expect`` are used; see ``tests/recordings/README.md``.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import msgspec

from exchanges.simulator.dialects.base import Session
from exchanges.simulator.tape import Trade

_PLAYED = frozenset({"trade", "snapshot", "heartbeat", "other"})


class Expected(msgspec.Struct, frozen=True):
    """A trade that a frame holds."""

    symbol: str
    price: str
    time_ns: int | None = None


class RecordedFrame(msgspec.Struct, frozen=True):
    """One line of a recording."""

    kind: str
    direction: str
    text: str
    expect: tuple[Expected, ...] = ()


class Played(msgspec.Struct, frozen=True):
    """A recorded frame as it is sent: as it was, or its trades framed again as if they happened now."""

    frame: RecordedFrame
    retimed: bool
    number: int

    def texts(self, session: Session, now_ns: int) -> Sequence[str]:
        if not (self.retimed and self.frame.expect):
            return [self.frame.text]
        trades = [
            Trade(trade.symbol, trade.price, "0.01", "buy", now_ns + n, self.number * 1_000 + n)
            for n, trade in enumerate(self.frame.expect)
        ]
        return session.trades(trades, now_ns)


class Replay:
    """The data frames of one exchange's recording, over and over. What clients ask is answered as ever."""

    def __init__(self, frames: Sequence[RecordedFrame], *, retimed: bool = False) -> None:
        played = [frame for frame in frames if frame.direction == "in" and frame.kind in _PLAYED]
        if retimed:
            played = [frame for frame in played if frame.expect]
        self._frames: Iterator[Played] = (
            Played(frame, retimed, number) for number, frame in enumerate(cycle(played), start=1)
        )

    def next(self, count: int) -> Iterator[Played]:
        return islice(self._frames, count)


class RecordingError(ValueError):
    """A recording cannot be read; says which file and line."""


def read_recording(path: Path) -> list[RecordedFrame]:
    """Read one file of recorded frames; raises RecordingError."""
    decoder = msgspec.json.Decoder(RecordedFrame)
    frames = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            try:
                frames.append(decoder.decode(line))
            except msgspec.DecodeError as error:
                raise RecordingError(f"{path}, line {number}: {error}") from error
    return frames


def read_folder(folder: Path, *, retimed: bool = False) -> dict[str, Replay]:
    """Read every ``<exchange>.jsonl`` of *folder*; raises RecordingError when there is none."""
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if not files:
        raise RecordingError(f"no recordings (*.jsonl) in {folder}")
    return {path.stem: Replay(read_recording(path), retimed=retimed) for path in files}
