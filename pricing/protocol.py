"""The words of the HTTP interface: questions parsed strictly, answers and problems rendered. Sans-I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import msgspec

from pricing.board import PriceLike
from pricing.exceptions import BadRequest
from pricing.problems import Problem, problem_members

MAX_QUERY_BYTES = 2_048
MAX_BODY_BYTES = 16_384
MAX_ASSETS = 30
MAX_NAMES = 300
MAX_AGE_LIMIT_MS = 86_400_000
MAX_SOURCES = 64
SECRET_PARAMETERS = frozenset(
    {"key", "api_key", "apikey", "api-key", "x-api-key", "token", "access_token", "auth", "authorization"}
)

_ASSET = re.compile(r"[A-Z0-9]{1,32}", re.ASCII)
_EXCHANGE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)


class PriceQuery(msgspec.Struct, frozen=True):
    asset: str
    exchange: str | None = None
    max_age_ms: int | None = None
    min_sources: int | None = None


class PriceAnswer(msgspec.Struct, frozen=True):
    price: PriceLike
    age_ns: int
    tier: int
    cached: bool
    """False only for the very question that fetched the price."""


def bad(detail: str, parameter: str | None = None) -> BadRequest:
    return BadRequest(Problem("bad_request", detail, {} if parameter is None else {"parameter": parameter}))


def parse_price(query: bytes) -> PriceQuery:
    """Read the query string of /price. Raises BadRequest."""
    given = read_parameters(query, ("asset", "exchange", "max_age_ms", "min_sources"))
    return PriceQuery(read_asset(_required(given, "asset")), *_demands(given))


def parse_prices(query: bytes) -> list[PriceQuery]:
    """Read the query string of GET /prices, duplicates removed. Raises BadRequest."""
    given = read_parameters(query, ("assets", "exchange", "max_age_ms", "min_sources"))
    return _queries(_required(given, "assets").split(","), _demands(given))


def parse_prices_body(body: bytes) -> list[PriceQuery]:
    """Read the body of POST /prices, duplicates removed. Raises BadRequest."""
    try:
        asked = _body_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad(f"The body is not as it must be: {error}.") from error
    exchange = None if asked.exchange is None else read_exchange(asked.exchange)
    max_age_ms = within(_whole(asked.max_age_ms, "max_age_ms"), "max_age_ms", 0, MAX_AGE_LIMIT_MS)
    min_sources = within(_whole(asked.min_sources, "min_sources"), "min_sources", 1, MAX_SOURCES)
    return _queries(asked.assets, (exchange, max_age_ms, min_sources))


def parse_assets(query: bytes) -> tuple[str | None, str | None]:
    """Read the query string of /assets into (exchange, category). Raises BadRequest."""
    given = read_parameters(query, ("exchange", "category"))
    exchange = given.get("exchange")
    return None if exchange is None else read_exchange(exchange), given.get("category")


def parse_nothing(query: bytes) -> None:
    """Refuse any parameter. Raises BadRequest."""
    read_parameters(query, ())


def refuse_secret(query: bytes) -> None:
    """Refuse a query string that names a key, whatever else is wrong with the request. Raises BadRequest."""
    if b"=" in query and len(query) <= MAX_QUERY_BYTES:
        for pair in query.split(b"&"):
            name = _text(pair.partition(b"=")[0])
            if name.lower() in SECRET_PARAMETERS:
                raise _unknown(name, ())


class _PricesBody(msgspec.Struct, forbid_unknown_fields=True):
    assets: list[str]
    exchange: str | None = None
    max_age_ms: int | float | None = None  # in JSON 5.0 is a whole number, too
    min_sources: int | float | None = None


_body_decoder = msgspec.json.Decoder(_PricesBody)


def read_parameters(query: bytes, known: Sequence[str]) -> dict[str, str]:
    """Split a query string; each known name at most once, nothing else, nothing empty."""
    if len(query) > MAX_QUERY_BYTES:
        raise bad(f"A query string may have {MAX_QUERY_BYTES} bytes.")
    given: dict[str, str] = {}
    for pair in query.split(b"&") if query else ():
        raw_name, _, raw_value = pair.partition(b"=")
        name, value = _text(raw_name), _text(raw_value)
        if name not in known:
            raise _unknown(name, known)
        if name in given:
            raise bad(f"{name} is given more than once.", name)
        if not value:
            raise bad(f"{name} is empty.", name)
        given[name] = value
    return given


def _text(raw: bytes) -> str:
    if b"%" in raw or b"+" in raw:
        raw = unquote_to_bytes(raw.replace(b"+", b" "))
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise bad("The query string is not UTF-8.") from error


def _unknown(name: str, known: Sequence[str]) -> BadRequest:
    if name.lower() in SECRET_PARAMETERS:
        detail = (
            "Addresses end up in logs and histories, so a key is never read from one. Send it as "
            "'Authorization: Bearer …' or 'X-API-Key: …', and replace the key you have just sent."
        )
        return BadRequest(Problem("secret_in_query", detail, {"parameter": name}))
    if not known:
        return bad("This address takes no parameters.", shorten(name))
    return bad(f"{shorten(name)!r} is not a parameter here; known are {', '.join(known)}.", shorten(name))


def shorten(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _required(given: Mapping[str, str], name: str) -> str:
    try:
        return given[name]
    except KeyError:
        raise bad(f"{name} is missing.", name) from None


def read_asset(text: str) -> str:
    asset = text.upper() if text.isascii() else text
    if not _ASSET.fullmatch(asset):
        raise bad(f"{shorten(text)!r} cannot be an asset: 1 to 32 letters and digits.", "asset")
    return asset


def read_exchange(text: str) -> str:
    exchange = text.lower() if text.isascii() else text
    if not _EXCHANGE.fullmatch(exchange):
        raise bad(f"{shorten(text)!r} cannot be an exchange's name.", "exchange")
    return exchange


def _demands(given: Mapping[str, str]) -> tuple[str | None, int | None, int | None]:
    exchange = given.get("exchange")
    return (
        None if exchange is None else read_exchange(exchange),
        within(read_number(given, "max_age_ms"), "max_age_ms", 0, MAX_AGE_LIMIT_MS),
        within(read_number(given, "min_sources"), "min_sources", 1, MAX_SOURCES),
    )


def read_number(given: Mapping[str, str], name: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise bad(f"{name} must be a whole number, not {shorten(text)!r}.", name)
    return int(text)


def _whole(value: float | None, name: str) -> int | None:
    if isinstance(value, float) and not value.is_integer():
        raise bad(f"{name} must be a whole number.", name)
    return None if value is None else int(value)


def within(value: int | None, name: str, low: int, high: int) -> int | None:
    if value is not None and not low <= value <= high:
        raise bad(f"{name} must be from {low} to {high}.", name)
    return value


def _queries(names: Sequence[str], demands: tuple[str | None, int | None, int | None]) -> list[PriceQuery]:
    if not names:
        raise bad("assets is empty.", "assets")
    if len(names) > MAX_NAMES:
        raise bad(f"assets may name {MAX_NAMES}, repetitions included, not {len(names)}.", "assets")
    assets = dict.fromkeys(map(read_asset, names))
    if len(assets) > MAX_ASSETS:
        raise bad(f"At most {MAX_ASSETS} assets can be asked for at once, not {len(assets)}.", "assets")
    return [PriceQuery(asset, *demands) for asset in assets]


class _PriceBody(msgspec.Struct):
    asset: str
    price: str
    quote: str
    source: str
    exchange: str
    timestamp: str
    received_at: str
    age_ms: int
    tier: int
    cached: bool
    time_is: str | msgspec.UnsetType = msgspec.UNSET


_encode = msgspec.json.Encoder().encode


def render_price(price: PriceLike, *, age_ns: int, tier: int, cached: bool) -> bytes:
    """Render the body of one price. Every path that answers over HTTP uses this one."""
    return _encode(
        _PriceBody(
            price.asset,
            price.price,
            price.quote,
            price.source,
            price.exchange,
            render_time(price.received_ns if price.traded_ns is None else price.traded_ns),
            render_time(price.received_ns),
            age_ns // 1_000_000,
            tier,
            cached,
            msgspec.UNSET if price.traded_ns is not None else "answer",
        )
    )


def render_time(wall_ns: int) -> str:
    """Write RFC 3339 in UTC with six digits of fraction; what is finer is cut off, not rounded up."""
    second, rest_ns = divmod(wall_ns, 1_000_000_000)
    return f"{_second(second)}.{rest_ns // 1_000:06d}Z"


@lru_cache(maxsize=128)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def render_prices(answers: Iterable[tuple[str, PriceAnswer | Problem]]) -> bytes:
    """Render the body of /prices: for each asset its price or its own error."""
    parts = [
        _encode({"asset": asset, "error": problem_members(answer)})
        if isinstance(answer, Problem)
        else render_price(answer.price, age_ns=answer.age_ns, tier=answer.tier, cached=answer.cached)
        for asset, answer in answers
    ]
    return b'{"prices":[' + b",".join(parts) + b"]}"


def render_json(document: object) -> bytes:
    return _encode(document)
