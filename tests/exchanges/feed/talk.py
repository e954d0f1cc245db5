"""A conversation with one exchange, on a clock that the test moves."""

import json
from typing import Any

from exchanges.feed.protocol import PING, FeedProtocol
from exchanges.feed.spec import FeedSpec
from pricing.tick import Tick
from tests.exchanges.feed.replay import shipped_row

SECOND = 10**9
WALL = 1_790_000_000 * SECOND
START = 5_000 * SECOND
ID = "00000000-0000-4000-8000-000000000000"


class Talk:
    """A conversation on a clock that the test moves."""

    def __init__(self, spec: FeedSpec | str, *symbols: str, opened: bool = True) -> None:
        self.spec = shipped_row(spec) if isinstance(spec, str) else spec
        self.now = START
        self.protocol = FeedProtocol(self.spec, symbols, uuid=lambda: ID)
        self.sent: list[Any] = []  # Any: decoded frames, texts and PING
        if opened:
            self.protocol.opened(self.wall, self.now)
            self.listen()

    @property
    def wall(self) -> int:
        return WALL + self.now - START

    def listen(self) -> list[Any]:
        """Return what the protocol sends now, decoded where it is JSON."""
        frames = [_decoded(frame) for frame in self.protocol.outgoing()]
        self.sent += frames
        return frames

    def hear(self, frame: str | bytes | dict[str, Any], *, useful: bool = True) -> list[Tick]:
        """Let the protocol hear a frame, and that its trades were *useful*: no repeats, and not too old."""
        text = json.dumps(frame) if isinstance(frame, dict) else frame
        if (ticks := self.protocol.receive(text, self.wall, self.now)) and useful:
            self.protocol.harvested(self.now)
        return ticks

    def reasons(self) -> list[str]:
        """Return why frames and trades could not be read since the last call."""
        return [fault.reason for fault in self.protocol.take_faults().samples]

    def wait(self, seconds: float) -> list[Any]:
        """Move the clock from deadline to deadline and return what was sent meanwhile."""
        end, sent = self.now + int(seconds * SECOND), len(self.sent)
        while (at := self.protocol.next_deadline()) is not None and at <= end and not self.protocol.hangup:
            self.now = max(self.now, at)
            self.protocol.tick_due(self.wall, self.now)
            self.listen()
            following = self.protocol.next_deadline()
            assert self.protocol.hangup or following is None or following > self.now, "would spin"
        self.now = end
        return self.sent[sent:]

    @property
    def states(self) -> dict[str, str]:
        return {symbol: state.state for symbol, state in self.protocol.symbol_states().items()}

    def kinds(self) -> dict[str, int]:
        return dict(self.protocol.counts)


def _decoded(frame: str | object) -> Any:  # Any: JSON
    try:
        return json.loads(str(frame)) if frame is not PING else PING
    except ValueError:
        return frame
