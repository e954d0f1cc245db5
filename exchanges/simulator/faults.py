"""What can go wrong with an exchange, on command: a small struct per fault, from JSON or Python. Sans-I/O.

Faults that change trades have ``change()``, faults that change frames have ``wire()``; the others are orders.
``count`` ends a fault after so many frames or trades; 0 keeps it until it is cleared.
"""

from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta
from websockets.exceptions import ProtocolError
from websockets.frames import Close, Frame, Opcode

from exchanges.simulator.tape import Trade
from exchanges.simulator.wire import bomb, bytes_of, cut_price, text_frame

Positive = Annotated[int, Meta(gt=0)]
Seconds = Annotated[float, Meta(ge=0)]
_RSV1 = 0x40  # "this message is compressed"
_SECOND_NS = 1_000_000_000


def _kebab(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


class Fault(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag=_kebab
):
    """The root of all faults."""

    @property
    def kind(self) -> str:
        return str(self.__struct_config__.tag)


# Connecting.


class RefuseHandshake(Fault, frozen=True):
    """Answer the opening handshake with an HTTP error."""

    status: Annotated[int, Meta(ge=400, le=599)] = 503
    count: int = 0


class Redirect(Fault, frozen=True):
    """Answer the opening handshake with a redirect."""

    url: str
    count: int = 0


class SlowHandshake(Fault, frozen=True):
    """Let the opening handshake wait."""

    seconds: Seconds = 5.0


class AcceptThenClose(Fault, frozen=True):
    """Complete the handshake, then close at once; code 0 cuts the connection."""

    code: int = 1013
    count: int = 0

    def __post_init__(self) -> None:
        check_code(self.code)


# Living.


class Silence(Fault, frozen=True):
    """Send no more trades. Without *pongs*: read nothing, answer nothing, as if the cable were cut."""

    pongs: bool = True
    heartbeats: bool = True


class QuietSymbols(Fault, frozen=True):
    """Leave out the trades of some symbols while the others flow."""

    symbols: Annotated[tuple[str, ...], Meta(min_length=1)]


class Disconnect(Fault, frozen=True):
    """Close every connection now; code 0 cuts them."""

    code: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        check_code(self.code)


class RefusedSymbol(Fault, frozen=True):
    """Refuse these symbols as if they were unknown."""

    symbols: Annotated[tuple[str, ...], Meta(min_length=1)]


class Maintenance(Fault, frozen=True):
    """Announce a maintenance as this exchange does, and close after a while unless *close_after_s* is 0."""

    close_after_s: Seconds = 0.0


class LateAck(Fault, frozen=True):
    """Hold acknowledgements back (0: for ever) while data flows; *empty*: Coinbase's then name nothing."""

    seconds: Seconds = 0.0
    empty: bool = False


class SlowDrip(Fault, frozen=True):
    """Send everything byte by byte."""

    bytes_per_s: Positive = 20


# Trades.


class TradeFault(Fault, frozen=True):
    """A fault that changes trades before they are framed."""

    symbols: tuple[str, ...] = ()  # all when empty
    count: int = 0

    def hits(self, trade: Trade) -> bool:
        return not self.symbols or trade.symbol in self.symbols

    def change(self, trade: Trade) -> list[Trade]:
        raise NotImplementedError


class AbsurdPrice(TradeFault, frozen=True):
    """Send another price: ``x1000`` and ``/1000`` scale the real one, anything else is sent as it is.

    An order that is filled by several others makes so many trades of one instant.
    """

    price: str = "x1000"
    fills: Positive = 1

    def change(self, trade: Trade) -> list[Trade]:
        absurd = trade._replace(price=scaled(trade.price, self.price))
        return [absurd._replace(trade_id=trade.trade_id + fill * 10**9) for fill in range(self.fills)]


class Wick(AbsurdPrice, frozen=True):
    """One order far off, on this exchange only."""

    price: str = "x0.5"
    count: int = 1


class WrongUnit(TradeFault, frozen=True):
    """Send times in a unit that is 10 ** *shift* too large or too small."""

    shift: Literal[-9, -6, -3, 3, 6, 9] = -3

    def change(self, trade: Trade) -> list[Trade]:
        factor = 10 ** abs(self.shift)
        time_ns = trade.time_ns * factor if self.shift > 0 else trade.time_ns // factor
        return [trade._replace(time_ns=time_ns)]


class OldTrades(TradeFault, frozen=True):
    """Send trades that happened long ago."""

    age_s: Seconds = 3600.0

    def change(self, trade: Trade) -> list[Trade]:
        return [trade._replace(time_ns=trade.time_ns - int(self.age_s * _SECOND_NS))]


class FutureTimes(TradeFault, frozen=True):
    """Send trades that have not happened yet."""

    ahead_s: Seconds = 60.0

    def change(self, trade: Trade) -> list[Trade]:
        return [trade._replace(time_ns=trade.time_ns + int(self.ahead_s * _SECOND_NS))]


class Duplicates(TradeFault, frozen=True):
    """Send every trade several times."""

    times: Annotated[int, Meta(ge=2)] = 2

    def change(self, trade: Trade) -> list[Trade]:
        return [trade] * self.times


class OutOfOrder(TradeFault, frozen=True):
    """Follow every trade with one that is older, has the lower id, and another price."""

    behind_s: Seconds = 2.0

    def change(self, trade: Trade) -> list[Trade]:
        time_ns = trade.time_ns - int(self.behind_s * _SECOND_NS)
        price = scaled(trade.price, "x1.01")
        return [trade, trade._replace(time_ns=time_ns, trade_id=trade.trade_id - 1_000, price=price)]


class UnknownSymbols(Fault, frozen=True):
    """Send trades of symbols that nobody asked for, beside the others."""

    symbols: Annotated[tuple[str, ...], Meta(min_length=1)]


class Crash(Fault, frozen=True):
    """Let the price really move, on every exchange, and stay there."""

    factor: Annotated[float, Meta(gt=0, le=1000)] = 0.5
    assets: tuple[str, ...] = ()  # all when empty


# Frames.


class FrameFault(Fault, frozen=True):
    """A fault that changes a trade frame's way onto the wire."""

    count: int = 0

    def wire(self, text: str) -> bytes:
        raise NotImplementedError


class Garbage(FrameFault, frozen=True):
    """Send text that is no JSON."""

    text: str = '{"channel":"market_trades",,,[}\\u00 not json'

    def wire(self, text: str) -> bytes:
        return text_frame(self.text)


class Truncated(FrameFault, frozen=True):
    """Cut frames short; *closed* adds the missing brackets, so that they parse, as something else."""

    closed: bool = False

    def wire(self, text: str) -> bytes:
        return text_frame(cut_price(text) if self.closed else text[: len(text) * 2 // 3])


class Oversized(FrameFault, frozen=True):
    """Send one frame of so many bytes (valid JSON, mostly blanks)."""

    size_bytes: Positive = 8 * 2**20
    count: int = 1

    def wire(self, text: str) -> bytes:
        return text_frame(text[:-1] + " " * max(0, self.size_bytes - len(text.encode())) + text[-1])


class EndlessFragments(FrameFault, frozen=True):
    """Begin a message and go on with it for ever, so many bytes at a time."""

    size_bytes: Positive = 65_536

    def wire(self, text: str) -> bytes:
        return bytes_of(Frame(Opcode.TEXT, text[:1].encode(), fin=False))

    def more(self) -> bytes:
        return bytes_of(Frame(Opcode.CONT, b" " * self.size_bytes, fin=False))


class DeflateBomb(FrameFault, frozen=True):
    """Send a small compressed frame that unpacks to so many bytes."""

    size_bytes: Positive = 64 * 2**20

    def wire(self, text: str) -> bytes:
        frame = bytes_of(Frame(Opcode.TEXT, bomb(self.size_bytes)))
        return bytes([frame[0] | _RSV1]) + frame[1:]


class BadUtf8(FrameFault, frozen=True):
    """Send a text frame that is not UTF-8."""

    def wire(self, text: str) -> bytes:
        return bytes_of(Frame(Opcode.TEXT, text[:20].encode() + b"\xff\xfe" + text[20:].encode()))


class TinyFrames(FrameFault, frozen=True):
    """Send so many empty frames before each real one."""

    frames: Positive = 10_000
    count: int = 1

    def wire(self, text: str) -> bytes:
        return bytes_of(Frame(Opcode.TEXT, b"")) * self.frames + text_frame(text)


# REST.


class RestFault(Fault, frozen=True):
    """Spoil REST answers; *error-body* is the exchange's own error, with HTTP status 200."""

    mode: Literal["error-body", "500", "429", "slow", "oversized", "garbage"] = "error-body"
    seconds: Seconds = 10.0
    size_bytes: Positive = 16 * 2**20


AnyFault = (
    RefuseHandshake
    | Redirect
    | SlowHandshake
    | AcceptThenClose
    | Silence
    | QuietSymbols
    | Disconnect
    | RefusedSymbol
    | Maintenance
    | LateAck
    | SlowDrip
    | AbsurdPrice
    | Wick
    | WrongUnit
    | OldTrades
    | FutureTimes
    | Duplicates
    | OutOfOrder
    | UnknownSymbols
    | Crash
    | Garbage
    | Truncated
    | Oversized
    | EndlessFragments
    | DeflateBomb
    | BadUtf8
    | TinyFrames
    | RestFault
)
KINDS: tuple[str, ...] = tuple(_kebab(kind.__name__) for kind in get_args(AnyFault))
_decoder: msgspec.json.Decoder[Fault] = msgspec.json.Decoder(AnyFault)


def parse_fault(body: bytes) -> Fault:
    """Read a fault from JSON; raises ``msgspec.DecodeError`` with what is wrong with it."""
    return _decoder.decode(body)


def check_code(code: int) -> None:
    """Raise ValueError for a close code that may not be sent; 0 stands for cutting the connection."""
    if code == 0:
        return
    try:
        Close(code, "").check()
    except ProtocolError as error:
        raise ValueError(f"{code} is no close code that may be sent") from error


def scaled(price: str, rule: str) -> str:
    """Apply ``x<factor>`` or ``/<divisor>`` to *price*; any other rule is the price itself."""
    try:
        if rule.startswith("x"):
            return f"{Decimal(price) * Decimal(rule[1:]):f}"
        if rule.startswith("/"):
            return f"{Decimal(price) / Decimal(rule[1:]):f}"
    except (InvalidOperation, ZeroDivisionError):
        pass  # then it is meant literally
    return rule
