"""One connection's conversation with an exchange, driven wholly by its row. Sans-I/O: both clocks come in.

A frame goes in; ticks, frames to send and the next deadline come out. What the connection must do is read
from `outgoing()`, `hangup` and `next_deadline()` after each call. No frame makes it raise.
"""

import json
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from exchanges.feed.decode import Fault, Faults, TradeReader, resolve
from exchanges.feed.decoders import TooManyTrades
from exchanges.feed.matching import Test, compile_match, cut_symbol
from exchanges.feed.paths import MISSING, Number, Path, load
from exchanges.feed.quirks import AckRule, RefusalRule, Reply
from exchanges.feed.spec import FeedSpec
from exchanges.feed.subscriptions import Subscriptions, SymbolState
from exchanges.feed.templates import REPLY_VALUE, Frame, Moment, fill, render
from pricing.tick import Tick

PING: Final = object()
SECOND: Final = 10**9
MAX_FRAME_BYTES: Final = 2**20
LARGE_FRAME: Final = 65_536  # characters: smaller frames hold little enough in any case
MAX_COMMAS: Final = 65_536  # 16 for each of MAX_TRADES; but for nesting, one fewer than values
MAX_MESSAGE: Final = 500  # of a refusal's text, which is shown
MAX_INSERTED: Final = 256  # characters of a frame's value in a reply
RECONNECT_AFTER_NOTICE_S: Final = 1.0  # beside the row's own min_gap_s; back within 5 s is promised

R = TypeVar("R")
Control = tuple[str, Test, Callable[[object, int, int], None]]  # kind, condition, action


class Hangup(NamedTuple):
    """What the connection must do: close, and dial again no sooner than after ``retry_after_s``."""

    reason: str
    retry_after_s: float = 0.0


class FeedProtocol:
    """The conversation. ``any_symbol`` lets every trade through (to prove a row on recorded frames)."""

    def __init__(
        self, spec: FeedSpec, symbols: Sequence[str], *, uuid: Callable[[], str], any_symbol: bool = False
    ) -> None:
        self.spec = spec
        self.hangup: Hangup | None = None
        self.paused = ""
        self.trades = 0  # frames with trades
        self.faults = Faults()
        self.last_tick_mono_ns = 0  # of those that were worth keeping, see harvested()
        self.first_tick_mono_ns = 0
        self._uuid = uuid
        self._any_symbol = any_symbol
        self._quirks = quirks = spec.quirks
        self._subscriptions = Subscriptions(symbols, quirks)
        self._channels: dict[str, str] = {}
        self._readers = [TradeReader(rule, quirks, self.faults, self._channels) for rule in resolve(spec)]
        self._is_gzip = quirks.encoding == "gzip"
        self._read = [reader.read for reader in self._readers]
        self._controls = self._compile_controls()
        self._others: Counter[str] = Counter()  # frames of other kinds, and unknown_symbol
        self._outgoing: list[str | object] = []
        self._queue: deque[Frame] = deque()
        self._ids = 0
        self._is_open = False
        self._opened_mono_ns = 0
        self._listening_mono_ns = 0  # since then trades are to be expected
        self._last_frame_mono_ns = 0
        self._next_send_mono_ns = 0
        self._next_ping_mono_ns = 0
        self._ready = not quirks.connect.wait_for
        self._wait_for = compile_match(quirks.connect.wait_for)

    # What the connection calls

    def opened(self, wall_ns: int, mono_ns: int) -> None:
        """The socket is open: subscribe, now or when the row allows."""
        self._is_open = True
        self._opened_mono_ns = self._listening_mono_ns = self._last_frame_mono_ns = mono_ns
        self._next_send_mono_ns = mono_ns + int(self._quirks.connect.delay_s * SECOND)
        if self.spec.ping_interval_s:
            self._next_ping_mono_ns = mono_ns + int(self.spec.ping_interval_s * SECOND)
        if self._subscriptions.states:
            self._ask([list(self._subscriptions.states)], wall_ns)
        self._send_queued(mono_ns)

    def receive(self, frame: str | bytes, wall_ns: int, mono_ns: int) -> list[Tick]:
        """Return the trades in the frame, in its order; never raise.

        ``faults`` grows by those that cannot be read. Say `harvested` of those that were of use.
        """
        self._last_frame_mono_ns = mono_ns
        if isinstance(frame, bytes):
            try:
                frame = str(_inflate(frame) if self._is_gzip else frame, "utf-8")
            except ValueError:
                return self._spoilt("bad_json", frame)
        if len(frame) > LARGE_FRAME and frame.count(",") > MAX_COMMAS:  # before any of it becomes an object
            return self._spoilt("too_many_trades", frame)
        try:
            for read in self._read:
                ticks = read(frame)
                if ticks is not None:
                    return self._accept(ticks, mono_ns)
            return self._receive_other(frame, wall_ns, mono_ns)
        except TooManyTrades:
            return self._spoilt("too_many_trades", frame)

    def harvested(self, mono_ns: int) -> None:
        """Take note that a trade was of use. Only that is a sign of life: repeats and old trades are none."""
        self.last_tick_mono_ns = mono_ns
        self.first_tick_mono_ns = self.first_tick_mono_ns or mono_ns
        self.paused = ""

    def tick_due(self, wall_ns: int, mono_ns: int) -> None:
        """Do what was to be done by now: send what waits, ping, ask again, or hang up on silence."""
        self._send_queued(mono_ns)
        if self._next_ping_mono_ns and mono_ns >= self._next_ping_mono_ns:
            payload = self.spec.ping_payload
            self._outgoing.append(fill(payload, self._moment(wall_ns)) if payload else PING)
            self._next_ping_mono_ns = mono_ns + int(self.spec.ping_interval_s * SECOND)
        if due := self._subscriptions.due(mono_ns):
            self._ask(due, wall_ns)
            self._send_queued(mono_ns)
        for deadline, reason in self._limits():
            if mono_ns >= deadline and self.hangup is None:
                self.hangup = Hangup(reason)

    def next_deadline(self) -> int | None:
        """Return the monotonic time of the next thing to do, None when there is none."""
        deadlines = [deadline for deadline, _ in self._limits()]
        if self._next_ping_mono_ns:
            deadlines.append(self._next_ping_mono_ns)
        if self._queue and self._ready:
            deadlines.append(self._next_send_mono_ns)
        if (retry := self._subscriptions.next_retry()) is not None:
            deadlines.append(retry)
        return min(deadlines, default=None)

    def outgoing(self) -> list[str | object]:
        """Return the frames to send now (texts and PING), and forget them."""
        frames, self._outgoing = self._outgoing, []
        return frames

    def subscribe(self, symbols: Iterable[str], wall_ns: int, mono_ns: int) -> None:
        """Ask for more symbols: now on an open connection, else with the others once it opens."""
        if (new := self._subscriptions.add(symbols)) and self._is_open:
            self._ask([new], wall_ns)
            self._send_queued(mono_ns)

    def unsubscribe(self, symbols: Iterable[str], wall_ns: int, mono_ns: int) -> bool:
        """Forget symbols; return False where the row knows no way to tell the exchange (its trades are then
        ignored).
        """
        gone = self._subscriptions.drop(symbols)
        if not gone or not self._is_open:
            return True
        if not self._quirks.unsubscribe_template:
            return False
        for frame in self._render(self._quirks.unsubscribe_template, gone, wall_ns):
            self._queue.append(Frame(frame.text))
        self._send_queued(mono_ns)
        return True

    def symbol_states(self) -> Mapping[str, SymbolState]:
        """Return the state of every symbol asked for, by symbol."""
        return self._subscriptions.states

    @property
    def counts(self) -> Counter[str]:
        """Return the number of frames by kind."""
        return self._others + Counter(trade=self.trades)

    @property
    def connected_for_data(self) -> bool:
        """Whether a trade of use has come: only that proves a connection."""
        return self.last_tick_mono_ns > 0

    def take_faults(self) -> Faults:
        """Return what could not be read since the last call."""
        return self.faults.take()

    # Trades

    def _accept(self, ticks: list[Tick], mono_ns: int) -> list[Tick]:
        self.trades += 1
        if self._any_symbol:
            return ticks
        states = self._subscriptions.states
        unknown = 0
        for tick in ticks:
            if (state := states.get(tick.symbol) or self._subscriptions.find(tick.symbol)) is None:
                unknown += 1
                continue
            state.last_tick_mono_ns = mono_ns
            state.state = "live"
        if unknown:
            self._others["unknown_symbol"] += unknown
            ticks = [tick for tick in ticks if self._subscriptions.find(tick.symbol)]
        return ticks

    # Everything else

    def _receive_other(self, frame: str, wall_ns: int, mono_ns: int) -> list[Tick]:
        if frame and frame == self._quirks.pong_text:
            self._others["pong"] += 1
            return []
        try:
            document = load(frame)
        except (ValueError, RecursionError):
            return self._spoilt("bad_json", frame)
        for reader in self._readers:
            ticks = reader.read_document(document)
            if ticks is not None:
                return self._accept(ticks, mono_ns)
        self._control(document, wall_ns, mono_ns)
        return []

    def _spoilt(self, reason: str, frame: str | bytes) -> list[Tick]:
        self._others[reason] += 1
        self.faults.add(Fault(reason, "", _excerpt(frame)))
        return []

    def _compile_controls(self) -> list[Control]:
        """Return the kinds of frames in the order of the tests: errors look like acks at some exchanges."""
        quirks = self._quirks
        controls: list[Control] = []
        for refusal in quirks.refusals:
            controls.append(("refusal", compile_match(refusal.match), _bind(self._on_refusal, refusal)))
        for match in quirks.reconnect:
            controls.append(("reconnect", compile_match(match), self._on_reconnect))
        for match in quirks.pause:
            controls.append(("pause", compile_match(match), self._on_pause))
        for match in quirks.resume:
            controls.append(("resume", compile_match(match), self._on_resume))
        for reply in quirks.replies:
            controls.append(("reply", compile_match(reply.match), _bind(self._on_reply, reply)))
        for match in quirks.pong:
            controls.append(("pong", compile_match(match), _nothing))
        if quirks.channel:
            controls.append(("ack", compile_match(quirks.channel.match), self._on_channel))
        for ack in quirks.acks:
            controls.append(("ack", compile_match(ack.match), _bind(self._on_ack, ack)))
        return controls

    def _control(self, document: object, wall_ns: int, mono_ns: int) -> None:
        if not self._ready and self._wait_for(document):
            self._ready = True
            self._next_send_mono_ns = max(self._next_send_mono_ns, mono_ns)
            self._send_queued(mono_ns)
        for kind, holds, act in self._controls:
            if holds(document):
                self._others[kind] += 1
                act(document, wall_ns, mono_ns)
                return
        self._others["other"] += 1

    def _on_refusal(self, rule: RefusalRule, document: object, wall_ns: int, mono_ns: int) -> None:
        message = (_text_at(rule.message_path, document) or _written(document))[:MAX_MESSAGE]
        symbol = _text_at(rule.symbol_path, document) or cut_symbol(
            message, after=rule.symbol_after, before=rule.symbol_before
        )
        again = self._subscriptions.refused(
            symbol, message, whole=rule.scope == "frame", already=rule.already, mono_ns=mono_ns
        )
        if not rule.already:
            self.faults.add(Fault("refused", symbol, message[:200]))
        self._ask(again, wall_ns)
        self._send_queued(mono_ns)

    def _on_ack(self, rule: AckRule, document: object, wall_ns: int, mono_ns: int) -> None:
        if not rule.symbol_path:
            self._subscriptions.acknowledged(None)
            return
        named = Path(rule.symbol_path).every(document)
        self._subscriptions.acknowledged([str(name) for name in named if isinstance(name, str)])

    def _on_channel(self, document: object, wall_ns: int, mono_ns: int) -> None:
        assert self._quirks.channel is not None
        number = Path(self._quirks.channel.id_path).first(document)
        symbol = _text_at(self._quirks.channel.symbol_path, document)
        if isinstance(number, str) and symbol and len(self._channels) < 10_000:
            self._channels[str(number)] = symbol
            self._subscriptions.acknowledged([symbol])

    def _on_reconnect(self, document: object, wall_ns: int, mono_ns: int) -> None:
        self.hangup = Hangup("the exchange asked to reconnect", RECONNECT_AFTER_NOTICE_S)

    def _on_pause(self, document: object, wall_ns: int, mono_ns: int) -> None:
        self.paused = _written(document)[:200]

    def _on_resume(self, document: object, wall_ns: int, mono_ns: int) -> None:
        if self.paused:
            self.paused = ""
            self._listening_mono_ns = mono_ns  # silence counts from now on

    def _on_reply(self, reply: Reply, document: object, wall_ns: int, mono_ns: int) -> None:
        frame = REPLY_VALUE.sub(lambda found: _json_at(found[1], document), reply.frame)
        self._outgoing.append(fill(frame, self._moment(wall_ns)))

    # Asking

    def _ask(self, groups: Iterable[Sequence[str]], wall_ns: int) -> None:
        size = self.spec.symbols_per_frame
        for group in groups:
            self._subscriptions.queued(group)
            chunks = [group[at : at + size] for at in range(0, len(group), size)] if size else [group]
            for number, chunk in enumerate(chunks):
                frames = self._render(self.spec.subscribe_template, chunk, wall_ns)
                once = number == 0 and group == list(self._subscriptions.states)
                self._queue.extend(frame for frame in frames if frame.symbols or once)

    def _render(self, template: str, symbols: Sequence[str], wall_ns: int) -> list[Frame]:
        return render(
            template,
            self.spec.symbol_template,
            symbols,
            join=self._quirks.symbol_join,
            moment=lambda: self._moment(wall_ns),
        )

    def _moment(self, wall_ns: int) -> Moment:
        self._ids += 1
        return Moment(wall_ns, self._ids, self._uuid())

    def _send_queued(self, mono_ns: int) -> None:
        """Move what may be sent now from the queue to outgoing, keeping the row's gap between frames."""
        gap_ns = self._quirks.frame_gap_ms * 1_000_000
        while self._queue and self._ready and mono_ns >= self._next_send_mono_ns:
            frame = self._queue.popleft()
            self._outgoing.append(frame.text)
            self._subscriptions.asked(frame, mono_ns)
            if gap_ns:
                self._next_send_mono_ns = mono_ns + gap_ns

    # Deadlines

    def _limits(self) -> list[tuple[int, str]]:
        quirks = self._quirks
        limits: list[tuple[int, str]] = []
        if not self.paused:
            heard = max(self.last_tick_mono_ns, self._listening_mono_ns)
            limits.append(
                (heard + int(quirks.silence_limit_s * SECOND), f"no trade for {quirks.silence_limit_s:g} s")
            )
        if quirks.frame_limit_s:
            limits.append(
                (
                    self._last_frame_mono_ns + int(quirks.frame_limit_s * SECOND),
                    f"no frame for {quirks.frame_limit_s:g} s",
                )
            )
        if quirks.connect.max_age_s:
            limits.append(
                (self._opened_mono_ns + int(quirks.connect.max_age_s * SECOND), "largest age of a connection")
            )
        return limits


def _bind(method: Callable[[R, object, int, int], None], rule: R) -> Callable[[object, int, int], None]:
    return lambda document, wall_ns, mono_ns: method(rule, document, wall_ns, mono_ns)


def _nothing(document: object, wall_ns: int, mono_ns: int) -> None:
    """A pong says that the line is alive, which its arrival has said already."""


def _excerpt(frame: str | bytes) -> str:
    start = frame[:80].encode("utf-8", "replace") if isinstance(frame, str) else frame[:80]
    return start.decode("utf-8", "replace")


def _written(value: object) -> str:
    """Return a value as JSON; null for one that is nested too deeply to be written."""
    try:
        return json.dumps(value)
    except RecursionError:
        return "null"


def _text_at(path: str, document: object) -> str:
    value = Path(path).first(document) if path else MISSING
    return str(value) if isinstance(value, str) else ""


def _json_at(path: str, document: object) -> str:
    value = Path(path).first(document)
    text = str(value) if isinstance(value, Number) else "null" if value is MISSING else _written(value)
    return text if len(text) <= MAX_INSERTED else "null"


def _inflate(frame: bytes) -> bytes:
    """Inflate a gzip frame; raise ValueError when it is broken, too long, or cut: the checksum ends it."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        text = inflater.decompress(frame, MAX_FRAME_BYTES)
    except zlib.error as error:
        raise ValueError("broken gzip") from error
    if not inflater.eof:
        raise ValueError("cut or too long")
    return text
