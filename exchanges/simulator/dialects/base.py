"""What all simulated protocols share: one connection's conversation, limits, ways to end. Sans-I/O."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple

import msgspec

from exchanges.simulator.markets import price_text
from exchanges.simulator.tape import Notation, Tape, Trade

SECOND_NS = 1_000_000_000


class Ack(str):
    """A frame that confirms a subscription, so that a fault can hold it back."""

    __slots__ = ()


class TradeFrame(str):
    """A frame with trades, which it remembers in its own order."""

    shown: tuple[Trade, ...]

    def __new__(cls, text: str, trades: Iterable[Trade]) -> "TradeFrame":
        frame = super().__new__(cls, text)
        frame.shown = tuple(trades)
        return frame


class Close(NamedTuple):
    """End the connection; code 0 cuts it without a closing handshake."""

    code: int
    reason: str = ""


class Ping(NamedTuple):
    """Send a protocol ping."""


Out = str | Ping | Close
Message = dict[str, Any]  # a client's JSON: anything at all until a dialect has looked at it


class Answer(NamedTuple):
    """What a REST request gets."""

    status: int
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an exchange tolerates; 0 means that there is no such limit."""

    connections: int = 0
    connections_window_s: float = 1.0
    messages: int = 0
    messages_window_s: float = 1.0
    rest: int = 0
    rest_window_s: float = 1.0
    first_subscribe_s: float = 0.0
    idle_s: float = 0.0  # without a client frame (and, where the exchange says so, without a push)
    ping_s: float = 0.0  # how often the exchange sends a protocol ping
    symbols_per_frame: int = 0
    frame_bytes: int = 0
    refuses_frame: bool = False  # where it is not documented: a bad symbol takes the whole frame along


class Window:
    """Counts what happened in the last so many seconds."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._span_ns = int(seconds * SECOND_NS)
        self._times: deque[int] = deque()

    def admits(self, now_ns: int) -> bool:
        if not self._most:
            return True
        while self._times and self._times[0] <= now_ns - self._span_ns:
            self._times.popleft()
        if len(self._times) >= self._most:
            return False
        self._times.append(now_ns)
        return True


class Session:
    """One client's connection, as its exchange sees it. Subclasses are the exchanges."""

    NOTATION: ClassVar[Notation]
    LIMITS: ClassVar[Limits] = Limits()
    FIRST_ID: ClassVar[int] = 1_000_000
    RESOLUTION_NS: ClassVar[int] = 1_000_000  # what is left of a trade's time on the wire
    MAINTENANCE_IS_A_STATE: ClassVar[bool] = False  # told to new connections too

    def __init__(self, tape: Tape, number: int, limits: Limits, now_ns: int) -> None:
        self.tape = tape
        self.limits = limits
        self.number = number  # of the connection, from 1; ids are made from it
        self.subscribed: dict[str, None] = {}  # a set that keeps its order
        self.asked = False  # for anything at all
        self.opened_ns = self.heard_ns = self.pinged_ns = self.sent_ns = now_ns
        self._messages = Window(limits.messages, limits.messages_window_s)

    # What a client says.

    @classmethod
    def request(cls, symbols: Sequence[str], now_ns: int) -> list[str]:
        """Return the frames with which a client subscribes to *symbols*."""
        raise NotImplementedError

    @classmethod
    def client_ping(cls, now_ns: int) -> str:
        """Return the client's ping; empty where the exchange has none of its own."""
        return ""

    # What a dialect says.

    @classmethod
    def price(cls, trade: Trade) -> str:
        """Return a price with the digits that the feed shows."""
        return trade.price

    def opened(self, now_ns: int) -> list[Out]:
        """Return what the exchange says first."""
        return []

    def handle(self, message: Message, now_ns: int) -> list[Out]:
        raise NotImplementedError

    def malformed(self, text: str, now_ns: int) -> list[Out]:
        """Answer a frame that is no JSON object, or nothing this exchange understands."""
        return []

    def too_many(self, now_ns: int) -> list[Out]:
        """Answer a client that sends too often."""
        return [Close(1008, "too many messages")]

    def trades(self, trades: Sequence[Trade], now_ns: int) -> list[TradeFrame]:
        """Frame *trades*, which are all of subscribed symbols, oldest first."""
        raise NotImplementedError

    def beat(self, now_ns: int) -> list[Out]:
        """Return the heartbeats that are due."""
        return []

    def maintenance(self, now_ns: int) -> list[Out]:
        """Announce a maintenance; empty where the exchange has no such frame."""
        return []

    def maintenance_over(self, now_ns: int) -> list[Out]:
        return []

    def emptied(self, ack: Ack, now_ns: int) -> Ack:
        """Return *ack* without what it confirms, where an exchange is known to do that."""
        return ack

    @classmethod
    def rest(cls, tape: Tape, path: str, query: Mapping[str, str], now_ns: int) -> Answer:
        """Answer a REST request; *path* is the exchange's own."""
        raise NotImplementedError

    @classmethod
    def rest_error(cls) -> Answer:
        """Return the body this exchange sends for a symbol it does not know."""
        raise NotImplementedError

    # What all have in common.

    def receive(self, frame: str, now_ns: int) -> list[Out]:
        """Answer one frame of the client."""
        self.heard_ns = now_ns
        self.asked = True
        if not self._messages.admits(now_ns):
            return self.too_many(now_ns)
        if self.limits.frame_bytes and len(frame) > self.limits.frame_bytes:
            return [Close(1009, "message too big")]
        return self.understand(frame, now_ns)

    def understand(self, frame: str, now_ns: int) -> list[Out]:
        try:
            message = msgspec.json.decode(frame)
        except (msgspec.DecodeError, RecursionError):  # the latter for a thousand open brackets
            return self.malformed(frame, now_ns)
        if not isinstance(message, dict):
            return self.malformed(frame, now_ns)
        try:
            return self.handle(message, now_ns)
        except (KeyError, TypeError, AttributeError, ValueError):
            # JSON of another shape than the protocol's: every exchange has one answer for all of these.
            return self.malformed(frame, now_ns)

    def due(self, now_ns: int) -> list[Out]:
        """Return what time alone brings: pings, heartbeats, the end of a connection that says nothing."""
        limits = self.limits
        waited_ns = now_ns - self.opened_ns
        if not self.asked and limits.first_subscribe_s and waited_ns > limits.first_subscribe_s * SECOND_NS:
            return [Close(1008, "no subscription received")]
        if limits.idle_s and now_ns - self.alive_ns() > limits.idle_s * SECOND_NS:
            return [self.idle_close()]
        out = self.beat(now_ns)
        if limits.ping_s and now_ns - self.pinged_ns >= limits.ping_s * SECOND_NS:
            self.pinged_ns = now_ns
            out.append(Ping())
        return out

    def alive_ns(self) -> int:
        """Return when there was last what this exchange counts as life."""
        return max(self.heard_ns, self.sent_ns)

    def idle_close(self) -> Close:
        return Close(1000, "idle")

    def split(self, symbols: Iterable[str]) -> tuple[list[str], list[str]]:
        """Sort *symbols* into those that are listed and those that are not."""
        asked = list(symbols)
        good = [symbol for symbol in asked if self.tape.lists(symbol)]
        return good, [symbol for symbol in asked if not self.tape.lists(symbol)]

    def unsubscribe(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            self.subscribed.pop(symbol, None)


def encode(document: object) -> str:
    return msgspec.json.encode(document).decode()


def by_symbol(trades: Sequence[Trade]) -> dict[str, list[Trade]]:
    groups: dict[str, list[Trade]] = {}
    for trade in trades:
        groups.setdefault(trade.symbol, []).append(trade)
    return groups


def strings(value: object) -> list[str]:
    """Return *value* if it is a list of strings."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise TypeError("not a list of strings")


def rfc3339(time_ns: int, digits: int = 6, *, trim: bool = False) -> str:
    """Write a time with *digits* of a second's fraction; *trim* drops trailing zeros."""
    seconds, nanos = divmod(time_ns, SECOND_NS)
    # A time in the wrong unit may lie beyond what a date can say.
    seconds = min(max(seconds, -62_135_596_800), 253_402_300_799)
    whole = datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
    fraction = f"{nanos:09d}"[:digits]
    if trim:
        fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}Z" if fraction else f"{whole}Z"


def ms(time_ns: int) -> int:
    return time_ns // 1_000_000


def spread(price: str) -> tuple[str, str]:
    """Return a bid and an ask one tick around *price*."""
    whole, _, fraction = price.partition(".")
    units = int(whole + fraction)
    return price_text(max(units - 1, 0), len(fraction)), price_text(units + 1, len(fraction))


UNKNOWN_PATH = Answer(HTTPStatus.NOT_FOUND, '{"message":"Not Found"}')
