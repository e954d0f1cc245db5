"""From a frame to its trades. Sans-I/O.

A rule of a row is read in one of two ways with the same result: by a msgspec decoder built from the row's
paths (most rows, about 0.6 µs a frame), or by walking the decoded document (any path; also what the decoder
refuses).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final, NamedTuple

from msgspec import Raw

from exchanges.feed.decoders import Decoder, Fields, Row, at_most, build_decoder
from exchanges.feed.matching import compile_match
from exchanges.feed.paths import MISSING, Path, load
from exchanges.feed.quirks import Quirks, TradeRule
from exchanges.feed.spec import FeedSpec
from exchanges.feed.timestamps import FIRST_PLAUSIBLE_NS, LAST_PLAUSIBLE_NS, is_plausible, reader
from pricing.tick import Tick

MAX_PRICE_CHARACTERS = 40
MAX_SAMPLES: Final = 100
_LARGEST = Decimal("1e15")
_SMALLEST = Decimal("1e-24")
_is_plain = re.compile(r"[1-9][0-9]{0,14}+(?:\.[0-9]{1,24}+)?+|0\.0{0,17}[1-9][0-9]{0,20}+").fullmatch
_is_number = re.compile(
    r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?"
).fullmatch  # as in JSON, no sign


class Fault(NamedTuple):
    """A trade that could not be read, and why."""

    reason: str
    symbol: str
    detail: str


class Faults:
    """Every fault counted by its reason, and the first MAX_SAMPLES of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.samples: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self.counts[fault.reason] += 1
        if len(self.samples) < MAX_SAMPLES:
            self.samples.append(fault)

    def take(self) -> "Faults":
        """Return what there was, and begin anew."""
        taken = Faults()
        taken.counts, self.counts = self.counts, taken.counts
        taken.samples, self.samples = self.samples, taken.samples
        return taken


def price_text(literal: str) -> str | None:
    """Return a price's digits as they are, an exponent written out; None unless it is a plausible price."""
    if _is_plain(literal):
        return literal
    if len(literal) > 2 * MAX_PRICE_CHARACTERS or not _is_number(literal):
        return None
    price = Decimal(literal)
    if not _SMALLEST <= price <= _LARGEST:
        return None
    written = format(price, "f")
    return written if len(written) <= MAX_PRICE_CHARACTERS else None


class ResolvedRule(NamedTuple):
    """One trade rule with nothing left to inherit."""

    trade_match: dict[str, object]
    trades_path: str
    fields: Fields
    timestamp_format: str


def resolve(spec: FeedSpec) -> list[ResolvedRule]:
    """Return the row's rules: the columns, then the further ones of the quirks."""
    columns = TradeRule(
        trade_match=spec.trade_match,
        trades_path=spec.trades_path,
        symbol_path=spec.symbol_path,
        price_path=spec.price_path,
        timestamp_path=spec.timestamp_path,
        timestamp_format=spec.timestamp_format,
        trade_id_path=spec.quirks.trade_id_path,
    )
    return [_inherit(rule, columns) for rule in (columns, *spec.quirks.trade_rules)]


def _inherit(rule: TradeRule, columns: TradeRule) -> ResolvedRule:
    return ResolvedRule(
        rule.trade_match,
        rule.trades_path or columns.trades_path,
        Fields(
            symbol=rule.symbol_path or columns.symbol_path,
            price=rule.price_path or columns.price_path,
            time=rule.timestamp_path or columns.timestamp_path,
            trade_id=rule.trade_id_path or columns.trade_id_path,
        ),
        str(rule.timestamp_format or columns.timestamp_format),
    )


class TradeReader:
    """Reads the trades of frames by one rule.

    ``faults`` collects what could not be read until it is taken.
    """

    def __init__(self, rule: ResolvedRule, quirks: Quirks, faults: Faults, channels: dict[str, str]) -> None:
        self._rule = rule
        self._decoder = None if quirks.channel else self._build(str)
        self._holds = compile_match(rule.trade_match)
        self._trades = Path(rule.trades_path)
        self._paths = tuple(Path(text) if text else None for text in rule.fields)
        self._read_time = reader(rule.timestamp_format)
        self._prefix, self._suffix = quirks.symbol_prefix, quirks.symbol_suffix
        self._channels = channels if quirks.channel else None
        self._names_vary = bool(self._prefix or self._suffix or quirks.channel)
        self._faults = faults

    def _build(self, price: type[str] | type[Raw]) -> Decoder | None:
        self._price_type = price
        return build_decoder(self._rule.trade_match, self._rule.trades_path, self._rule.fields, price=price)

    def read(self, frame: str | bytes) -> list[Tick] | None:
        """Return the trades in the frame's order by the built decoder; None where that cannot read it."""
        if self._decoder is None or (rows := self._decoder(frame)) is None:
            return None
        return self._ticks(rows)

    def read_document(self, document: object) -> list[Tick] | None:
        """Return the trades of a decoded frame; None when the rule does not hold for it."""
        if not self._holds(document):
            return None
        ticks = self._ticks(self._walk(document))
        if ticks and self._decoder and self._price_type is str:
            self._decoder = self._build(Raw)  # this exchange's prices are numbers: text is the quicker one
        return ticks

    def _walk(self, document: object) -> Iterable[tuple[str, str, str, str]]:
        for row in at_most(self._trades.rows(document)):
            symbol, price, time, trade_id = (
                _literal(path.first(document if path.from_document else row)) if path else ""
                for path in self._paths
            )
            yield symbol, price, time, trade_id

    def _ticks(self, rows: Iterable[Row]) -> list[Tick]:
        ticks = []
        read_time = self._read_time
        for symbol, price, time, trade_id in rows:
            if self._names_vary:
                symbol = self._name(symbol)
            digits: str | None
            digits = literal = price if isinstance(price, str) else str(price, "utf-8", "replace")
            if not _is_plain(literal):
                literal = literal if isinstance(price, str) else _unquote(literal)
                digits = price_text(literal)
            traded_ns = read_time(time) if time else None
            if digits and symbol and traded_ns and FIRST_PLAUSIBLE_NS <= traded_ns <= LAST_PLAUSIBLE_NS:
                ticks.append(Tick(symbol, digits, traded_ns, trade_id))
            else:
                self._faults.add(_fault(symbol, literal, digits, time, traded_ns))
        return ticks

    def _name(self, symbol: str) -> str:
        """Return the symbol in what symbol_path found: a channel's name, or its number."""
        symbol = symbol.removeprefix(self._prefix).removesuffix(self._suffix) if symbol else ""
        return symbol if self._channels is None else self._channels.get(symbol, "")


def _unquote(literal: str) -> str:
    """Return a JSON string's content or a number's text; empty for any other JSON, and for none."""
    if not literal.startswith('"'):
        return literal if literal[:1].isdigit() else ""
    return literal[1:-1] if "\\" not in literal else _literal(load(literal))


def _literal(value: object) -> str:
    """Return the text of a JSON string or number; empty for what cannot be a price, a time or a name."""
    return str(value) if isinstance(value, str) else ""


def _fault(symbol: str, price: str, digits: str | None, time: str | int, traded_ns: int | None) -> Fault:
    if not symbol:
        return Fault("no_symbol", "", f"price {price[:60]!r}")
    if digits is None:
        return Fault("bad_price", symbol, price[:60])
    if traded_ns is None:
        return Fault("bad_time", symbol, str(time)[:60])
    return Fault("implausible_time", symbol, str(time)[:60])


class RestRule:
    """The row's REST fallback: where to ask, and how to read the answer."""

    def __init__(self, spec: FeedSpec) -> None:
        rest = spec.quirks.rest
        self._url = spec.rest_url
        self._price = Path(spec.rest_price_path) if spec.rest_price_path else None
        self._time = Path(rest.time_path) if rest.time_path else None
        self._read_time = reader(rest.time_format or spec.timestamp_format)
        self._symbol = Path(rest.symbol_path) if rest.symbol_path else None
        self._errors: tuple[Callable[[object], bool], ...] = tuple(
            compile_match(match) for match in rest.error_match
        )

    def url(self, symbol: str) -> str:
        """Return the address to ask for *symbol*, as REST calls it."""
        return self._url.replace("{SYMBOL}", symbol)

    def read(self, body: bytes, symbol: str = "") -> Tick | str:
        """Return the price in *body*, or the reason why there is none.

        The tick's symbol is the one in the answer where the row says where that is, and must then be
        *symbol* (case aside) when one was asked for.
        """
        try:
            document = load(body)
        except (ValueError, RecursionError):
            return "not JSON"
        if any(holds(document) for holds in self._errors):
            return "error answer"
        if self._price is None:
            return "no rest_price_path"
        price = price_text(_literal(self._price.first(document)))
        if price is None:
            return "no price"
        answered = _literal(self._symbol.first(document)) if self._symbol else ""
        if answered and symbol and answered.casefold() != symbol.casefold():
            return f"answered for {answered[:40]}"
        traded_ns = None
        if self._time is not None:
            stamp = self._time.first(document)
            traded_ns = None if stamp is MISSING else self._read_time(_literal(stamp))
            if traded_ns is None or not is_plausible(traded_ns):
                return "bad time"
        return Tick(answered or symbol, price, traded_ns)
