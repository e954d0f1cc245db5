"""A row of `exchange_feeds` as typed values, and what makes a row valid. Sans-I/O.

`parse_feed` is the one place that judges a row: the admin, the JSON API, the command and the feed process
all use it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import jsonschema
import msgspec
from jsonschema.exceptions import ValidationError, best_match

from exchanges.documents import unstorable
from exchanges.feed.matching import MatchError, compile_match
from exchanges.feed.paths import Path, PathError
from exchanges.feed.quirks import Quirks, quirks_schema, unusable
from exchanges.feed.templates import TemplateError, check_ping, check_subscribe
from exchanges.feed.timestamps import FORMATS

FEED_COLUMNS: tuple[str, ...] = (
    "name",
    "display_name",
    "enabled",
    "quote_currency",
    "ws_url",
    "subscribe_template",
    "symbol_template",
    "symbols_per_frame",
    "trade_match",
    "trades_path",
    "symbol_path",
    "price_path",
    "timestamp_path",
    "timestamp_format",
    "ping_interval_s",
    "ping_payload",
    "rest_url",
    "rest_price_path",
    "quirks",
)
CATEGORIES: tuple[str, ...] = (
    "Major Currencies",
    "DeFi",
    "Layer 2",
    "AI & Data",
    "Gaming & NFTs",
    "Meme Coins",
    "Infrastructure",
)
SLUG = re.compile(r"[a-z][a-z0-9_-]{1,23}")
ASSET = re.compile(r"[A-Z0-9]{1,20}")
SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,39}")
MAX_COLUMN_CHARACTERS = 20_000

_QUIRKS_VALIDATOR = jsonschema.Draft202012Validator(quirks_schema())


class SpecError(ValueError):
    """A row that cannot be used: ``errors`` maps each column to its messages."""

    def __init__(self, errors: Mapping[str, Sequence[str]]) -> None:
        super().__init__(errors)
        self.errors = {column: list(messages) for column, messages in errors.items()}

    def __str__(self) -> str:
        return "; ".join(
            f"{column}: {message}" for column, messages in self.errors.items() for message in messages
        )


class FeedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange, ready to run. Equal specs need no reconnection."""

    name: str
    display_name: str
    enabled: bool
    quote_currency: str
    ws_url: str
    subscribe_template: str
    symbol_template: str
    symbols_per_frame: int
    trade_match: dict[str, Any]
    trades_path: str
    symbol_path: str
    price_path: str
    timestamp_path: str
    timestamp_format: str
    ping_interval_s: float
    ping_payload: str
    rest_url: str
    rest_price_path: str
    quirks: Quirks
    tag_suffix: str = ""  # "-sim" when the exchange is simulated

    @property
    def source(self) -> str:
        return f"{self.name}-ws{self.tag_suffix}"

    @property
    def rest_source(self) -> str:
        return f"{self.name}-rest{self.tag_suffix}"

    def simulated(self, base_url: str) -> "FeedSpec":
        """Return the same row pointed at the simulator, its answers tagged as simulated.

        An address on this machine stays: somebody runs an exchange of their own there.
        """
        base = urlsplit(base_url).netloc
        ws_url, rest_url = self.ws_url, self.rest_url
        if not _is_loopback(ws_url):
            ws_url = f"ws://{base}/ws/{self.name}"
        if rest_url and not _is_loopback(rest_url):
            rest_url = f"http://{base}/rest/{self.name}" + urlunsplit(("", "", *urlsplit(rest_url)[2:]))
        return msgspec.structs.replace(self, ws_url=ws_url, rest_url=rest_url, tag_suffix="-sim")


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `exchange_asset_map`."""

    asset: str
    exchange: str
    symbol: str
    rest_symbol: str = ""
    category: str = "Infrastructure"
    enabled: bool = True
    prewarm: bool = True
    home: bool = False

    @property
    def asked_by_rest(self) -> str:
        return self.rest_symbol or self.symbol


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def parse_feed(
    columns: Mapping[str, Any],
) -> FeedSpec:  # Any: JSON values from a form, a file or the database
    """Judge one row and return it typed; raise SpecError with a message per column."""
    errors: dict[str, list[str]] = {}
    for unknown in sorted(set(columns) - set(FEED_COLUMNS)):
        errors[unknown] = ["there is no such column"]
    values: dict[str, Any] = {}
    for rule in _RULES:
        if rule.column not in columns:
            errors[rule.column] = ["is missing"]
            continue
        try:
            values[rule.column] = rule.read(columns[rule.column])
        except _Refused as refused:
            errors[rule.column] = refused.messages
    if not errors:
        errors = _check_together(values)
    if errors:
        raise SpecError(errors)
    return FeedSpec(**values)


class _Refused(Exception):
    def __init__(self, *messages: str) -> None:
        self.messages = list(messages)


class _ColumnRule(NamedTuple):
    column: str
    read: Callable[[Any], Any]


def _text(value: Any, *, limit: int = MAX_COLUMN_CHARACTERS, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise _Refused("must be text")
    if not value.strip() and not empty:
        raise _Refused("must not be empty")
    if len(value) > limit:
        raise _Refused(f"is longer than {limit} characters")
    if reason := unstorable(value):
        raise _Refused(reason)
    return value.strip()


def _name(value: Any) -> str:
    name = _text(value)
    if not SLUG.fullmatch(name):
        raise _Refused("must be a slug: 2 to 24 lower-case letters, digits, - or _, a letter first")
    return name


def _quote(value: Any) -> str:
    if value not in ("USD", "USDT"):
        raise _Refused("must be USD or USDT")
    return str(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Refused("must be true or false")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 10_000:
        raise _Refused("must be a whole number from 0 to 10,000; 0 stands for all in one frame")
    return value


def _interval(value: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (value == 0 or 1 <= value <= 3_600)
    ):
        raise _Refused("must be 0 (no ping) or from 1 to 3,600 seconds")
    return value


def _url(schemes: tuple[str, ...], *, empty: bool = False) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        url = _text(value, limit=2_000, empty=empty)
        if not url:
            return ""
        if url.startswith("{ENDPOINT}") and "wss" in schemes:
            return url  # a quirk says where to ask for it
        if any(character.isspace() or ord(character) < 32 for character in url):
            raise _Refused("must not contain spaces or control characters")
        try:
            parts = urlsplit(url.replace("{", "").replace("}", ""))
            port = parts.port
        except ValueError:
            raise _Refused("is not a URL") from None
        if parts.scheme not in schemes or not parts.hostname:
            raise _Refused(
                f"must begin with {' or '.join(scheme + '://' for scheme in schemes)} and name a host"
            )
        if parts.username or parts.password or port == 0:
            raise _Refused("must not contain a user name, a password or port 0")
        return url

    return read


def _json(value: Any) -> Any:
    """Return JSON that may come as a value or as text."""
    try:
        document = value if not isinstance(value, str) else json.loads(value) if value.strip() else {}
        json.dumps(document, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise _Refused(f"is not JSON: {error}") from None
    if reason := unstorable(document):
        raise _Refused(reason)
    return document


def _match(value: Any) -> dict[str, Any]:
    match = _json(value)
    if not isinstance(match, dict) or not match:
        raise _Refused("must be a JSON object of path → condition, with at least one condition")
    try:
        compile_match(match)
    except MatchError as error:
        raise _Refused(str(error)) from None
    return match


def _path(value: Any, *, empty: bool = False) -> str:
    text = _text(value, limit=500, empty=empty)
    if text:
        try:
            Path(text)
        except PathError as error:
            raise _Refused(str(error)) from None
    return text


def _timestamp_format(value: Any) -> str:
    if value not in FORMATS:
        raise _Refused(f"must be one of {', '.join(FORMATS)}")
    return str(value)


def _template(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":")) if value else ""
    return _text(text)


def _described(fault: ValidationError) -> str:
    """Name the field: of alternatives (a rule, or none) the fault inside the one that was meant."""
    fault = best_match([fault]) or fault
    return f"{fault.json_path.removeprefix('$').lstrip('.') or 'quirks'}: {fault.message[:300]}"


def _quirks(value: Any) -> Quirks:
    document = {} if value is None else _json(value)
    faults = sorted(_QUIRKS_VALIDATOR.iter_errors(document), key=lambda fault: fault.json_path)
    if faults:
        raise _Refused(*(_described(fault) for fault in faults[:20]))
    quirks = msgspec.convert(document, Quirks, strict=False)
    if messages := unusable(quirks):
        raise _Refused(*messages)
    return quirks


_RULES: tuple[_ColumnRule, ...] = (
    _ColumnRule("name", _name),
    _ColumnRule("display_name", lambda value: _text(value, limit=60)),
    _ColumnRule("enabled", _flag),
    _ColumnRule("quote_currency", _quote),
    _ColumnRule("ws_url", _url(("wss", "ws"))),
    _ColumnRule("subscribe_template", _template),
    _ColumnRule("symbol_template", lambda value: _text(value, limit=500)),
    _ColumnRule("symbols_per_frame", _count),
    _ColumnRule("trade_match", _match),
    _ColumnRule("trades_path", _path),
    _ColumnRule("symbol_path", _path),
    _ColumnRule("price_path", _path),
    _ColumnRule("timestamp_path", _path),
    _ColumnRule("timestamp_format", _timestamp_format),
    _ColumnRule("ping_interval_s", _interval),
    _ColumnRule("ping_payload", lambda value: _text(value, limit=2_000, empty=True)),
    _ColumnRule("rest_url", _url(("https", "http"), empty=True)),
    _ColumnRule("rest_price_path", lambda value: _path(value, empty=True)),
    _ColumnRule("quirks", _quirks),
)


def _check_together(values: dict[str, Any]) -> dict[str, list[str]]:
    errors: dict[str, list[str]] = {}
    try:
        check_subscribe(
            values["subscribe_template"], values["symbol_template"], in_url="{SYMBOL" in values["ws_url"]
        )
    except TemplateError as error:
        errors[error.column] = [str(error)]
    try:
        check_ping(values["ping_payload"])
    except TemplateError as error:
        errors["ping_payload"] = [str(error)]
    quirks: Quirks = values["quirks"]
    if quirks.unsubscribe_template:
        try:
            check_subscribe(quirks.unsubscribe_template, values["symbol_template"], in_url=False)
        except TemplateError as error:
            if error.column == "subscribe_template":
                errors["quirks"] = [f"unsubscribe_template: {error}"]
    if "{ENDPOINT}" in values["ws_url"] and quirks.connect.token is None:
        errors["ws_url"] = [
            "contains {ENDPOINT}, but quirks has no connect.token that says where to ask for it"
        ]
    if values["rest_url"]:
        if "{SYMBOL}" not in values["rest_url"]:
            errors["rest_url"] = ["must contain {SYMBOL}"]
        if not values["rest_price_path"]:
            errors["rest_price_path"] = ["must say where the price is, since there is a rest_url"]
    return errors
