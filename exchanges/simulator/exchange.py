"""One simulated exchange: its connections, its trades as time passes, the faults it has now. Sans-I/O.

Sockets are behind ``Line``; ``step()`` is called about twenty times a second and writes what is due to each.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from exchanges.simulator import faults as f
from exchanges.simulator.dialects.base import SECOND_NS, Ack, Answer, Limits, Out, Session, Window
from exchanges.simulator.replay import Replay
from exchanges.simulator.tape import Tape, Trade
from exchanges.simulator.walk import Walk
from exchanges.simulator.wire import text_frame

F = TypeVar("F", bound=f.Fault)
QUIETEST_S = 2.5  # whatever the rate, a subscribed symbol trades about so often
_REMEMBERED_FRAMES = 10_000


class Line(Protocol):
    """A client's connection, as the exchange uses it."""

    session: Session
    fragments: f.EndlessFragments | None  # the message without end that is being sent, if any

    def send(self, outs: Iterable[Out]) -> None: ...
    def write(self, data: bytes) -> None: ...
    def hang_up(self, code: int, reason: str = "") -> None: ...
    def obey(self) -> None:
        """Look at the exchange's faults again: freeze, thaw, drip."""


class Blast(msgspec.Struct, frozen=True):
    """What a blast did: frames and bytes that the sockets took, and how long that took."""

    frames: int
    size_bytes: int
    seconds: float


class UnknownAnnouncement(ValueError):
    """The exchange has no frame that announces a maintenance."""


class SimulatedExchange:
    """What all connections to one exchange share."""

    def __init__(
        self,
        name: str,
        dialect: type[Session],
        walk: Walk,
        *,
        seed: int,
        rate: float,
        limits: Limits | None = None,
        replay: Replay | None = None,
    ) -> None:
        self.name = name
        self.dialect = dialect
        self.limits = limits or dialect.LIMITS
        self.tape = Tape(name, dialect.NOTATION, walk, seed=seed, first_id=dialect.FIRST_ID)
        self.lines: set[Line] = set()
        self.knocking: set[Line] = set()  # clients whose handshake waits for a silence to end
        self.received: deque[str] = deque(maxlen=_REMEMBERED_FRAMES)
        self.counts: Counter[str] = Counter()
        self.faults: list[f.Fault] = []
        self._walk = walk
        self._rate = rate
        self._replay = replay
        self.blasts: list[Blast] = []
        self._left: dict[f.Fault, int] = {}  # how often a counted fault will still strike
        self._owed = 0.0  # trades (or replayed frames) that time has earned
        self._stepped_ns: int | None = None
        self._held: list[tuple[int, Line, Ack]] = []
        self._closing_ns: int | None = None
        self._connects = Window(self.limits.connections, self.limits.connections_window_s)
        self._requests = Window(self.limits.rest, self.limits.rest_window_s)

    # Faults.

    def start(self, fault: f.Fault, now_ns: int) -> None:
        """Begin a fault; one of a kind at a time. Raises UnknownAnnouncement."""
        self.clear(fault.kind, now_ns)
        match fault:
            case f.Disconnect():
                for line in tuple(self.lines):
                    line.hang_up(fault.code, fault.reason)
                return
            case f.Crash():
                self._walk.move(int(fault.factor * 1_000_000), now_ns, fault.assets)
                return
            case f.Maintenance():
                self._announce(fault, now_ns)
            case f.RefusedSymbol():
                self.tape.refused.update(fault.symbols)
        self.faults.append(fault)
        if count := getattr(fault, "count", 0):
            self._left[fault] = count
        self._obey()

    def clear(self, kind: str, now_ns: int) -> None:
        """End the fault of this kind, or all for an empty kind."""
        for fault in [fault for fault in self.faults if kind in ("", fault.kind)]:
            self.faults.remove(fault)
            self._left.pop(fault, None)
            if isinstance(fault, f.RefusedSymbol):
                self.tape.refused.difference_update(fault.symbols)
            if isinstance(fault, f.Maintenance):
                self._closing_ns = None
                for line in tuple(self.lines):
                    line.send(line.session.maintenance_over(now_ns))
        self._obey()

    def active(self, kind: type[F]) -> F | None:
        return next((fault for fault in self.faults if isinstance(fault, kind)), None)

    def strike(self, kind: type[F]) -> F | None:
        """Return the active fault of *kind* and count it; a counted one ends after its last strike."""
        fault = self.active(kind)
        if fault is not None:
            self._spend(fault)
        return fault

    def _spend(self, fault: f.Fault) -> None:
        if fault in self._left:
            self._left[fault] -= 1
            if not self._left[fault]:
                self.faults.remove(fault)
                del self._left[fault]

    @property
    def announces(self) -> bool:
        """Whether this exchange has a frame that announces a maintenance."""
        return self.dialect.maintenance is not Session.maintenance

    def frozen(self) -> bool:
        silence = self.active(f.Silence)
        return silence is not None and not silence.pongs

    # Connections.

    def admits(self, now_ns: int) -> bool:
        return self._connects.admits(now_ns)

    def open(self, line: Line, now_ns: int) -> None:
        self.counts["accepted"] += 1
        self.lines.add(line)
        self._say(line, line.session.opened(now_ns), now_ns)
        if self.active(f.Maintenance) and self.dialect.MAINTENANCE_IS_A_STATE:
            line.send(line.session.maintenance(now_ns))

    def hear(self, line: Line, frame: str, now_ns: int) -> None:
        """Answer one frame of a client."""
        self.counts["received"] += 1
        self.received.append(frame)
        self._say(line, line.session.receive(frame, now_ns), now_ns)

    def rest(self, path: str, query: Mapping[str, str], now_ns: int) -> Answer:
        self.counts["requests"] += 1
        if not self._requests.admits(now_ns):
            return Answer(429, '{"message":"Too Many Requests"}')
        try:
            return self.dialect.rest(self.tape, path, query, now_ns)
        except ValueError:  # a limit that is no number
            return Answer(400, '{"message":"Bad Request"}')

    # Time.

    def step(self, now_ns: int) -> None:
        """Do what the time since the last step has made due."""
        due = self._earned(now_ns)
        self._release(now_ns)
        if self._closing_ns is not None and now_ns >= self._closing_ns:
            self._closing_ns = None
            for line in tuple(self.lines):
                line.hang_up(1012, "service restart")
        silence = self.active(f.Silence)
        if self.frozen():
            return
        if silence is None or silence.heartbeats:
            for line in tuple(self.lines):
                self._say(line, line.session.due(now_ns), now_ns)
        if self._replay is not None:
            self._play(self._replay, due, now_ns)
        else:
            self._trade(due, now_ns)

    def _earned(self, now_ns: int) -> int:
        elapsed_s = (now_ns - self._stepped_ns) / SECOND_NS if self._stepped_ns is not None else 0.0
        self._stepped_ns = now_ns
        rate = max(self._rate, len(self._wanted()) / QUIETEST_S)
        self._owed += rate * min(max(elapsed_s, 0.0), 1.0)  # what a suspended process missed stays missed
        due = int(self._owed)
        self._owed -= due
        return due

    def _wanted(self) -> set[str]:
        return {symbol for line in self.lines for symbol in line.session.subscribed}

    def _trade(self, due: int, now_ns: int) -> None:
        quiet = self.active(f.QuietSymbols)
        symbols = self.tape.draw(self._wanted(), due)
        trades = [trade for symbol in symbols for trade in self.tape.trade(symbol, now_ns)]
        trades = [t for t in trades if quiet is None or t.symbol not in quiet.symbols]
        for fault in [fault for fault in self.faults if isinstance(fault, f.TradeFault)]:
            trades = self._spoil(fault, trades)
        strangers = self._strangers(trades)
        if self.active(f.Silence) is None:
            for line in tuple(self.lines):
                wanted = [t for t in trades if t.symbol in line.session.subscribed]
                self.deliver(line, line.session.trades(wanted + strangers, now_ns), now_ns)

    def _spoil(self, fault: f.TradeFault, trades: Iterable[Trade]) -> list[Trade]:
        spoiled: list[Trade] = []
        for trade in trades:
            if fault in self.faults and fault.hits(trade):
                self._spend(fault)
                spoiled += fault.change(trade)
            else:
                spoiled.append(trade)
        return spoiled

    def _strangers(self, trades: Sequence[Trade]) -> list[Trade]:
        fault = self.active(f.UnknownSymbols)
        if fault is None or not trades:
            return []
        return [trades[-1]._replace(symbol=symbol) for symbol in fault.symbols]

    def _play(self, replay: Replay, due: int, now_ns: int) -> None:
        if self.active(f.Silence) is None and self._wanted():
            for frame in replay.next(due):
                for line in tuple(self.lines):
                    self.deliver(line, frame.texts(line.session, now_ns), now_ns)

    def deliver(self, line: Line, frames: Sequence[str], now_ns: int) -> None:
        """Send trade frames, spoilt as the faults want it, in one write."""
        if line.fragments is not None:
            return
        parts: list[bytes] = []
        for text in frames:
            fault = self.strike(f.FrameFault)
            parts.append(fault.wire(text) if fault else text_frame(text))
            if isinstance(fault, f.EndlessFragments):
                line.fragments = fault
                break
        if parts:
            self.counts["frames"] += len(parts)
            line.session.sent_ns = now_ns
            line.write(b"".join(parts))

    def _say(self, line: Line, outs: Iterable[Out], now_ns: int) -> None:
        """Send what a session answers; hold its acknowledgements back when a fault says so."""
        late = self.active(f.LateAck)
        kept: list[Out] = []
        for out in outs:
            if late is None or not isinstance(out, Ack):
                kept.append(out)
            elif late.seconds:
                ack = line.session.emptied(out, now_ns) if late.empty else out
                self._held.append((now_ns + int(late.seconds * SECOND_NS), line, ack))
        if kept:
            line.session.sent_ns = now_ns
            line.send(kept)

    def _release(self, now_ns: int) -> None:
        ready = [held for held in self._held if held[0] <= now_ns]
        self._held = [held for held in self._held if held[0] > now_ns]
        for _, line, ack in ready:
            if line in self.lines:
                line.send([ack])

    def _announce(self, fault: f.Maintenance, now_ns: int) -> None:
        if not self.announces:
            raise UnknownAnnouncement(f"{self.name} announces no maintenance on this socket")
        for line in tuple(self.lines):
            line.send(line.session.maintenance(now_ns))
        if fault.close_after_s:
            self._closing_ns = now_ns + int(fault.close_after_s * SECOND_NS)

    def _obey(self) -> None:
        for line in (*self.lines, *self.knocking):
            line.obey()
