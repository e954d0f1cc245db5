"""The words of the UDP interface: replies rendered; for clients requests built and replies parsed. Sans-I/O.

`udp_engine._batch` reads requests, and writes prices of tier 1 and refusals of its own: the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from pricing.parameters import MS
from pricing.problems import Problem
from pricing.protocol import PriceAnswer
from udp_engine.exceptions import BadReply, RequestTooLarge

PORT = 2679
REPORTS_PORT = 2680
MAX_DATAGRAM_BYTES = 1_200
MAX_ASSETS = 30
MAX_ID_CHARACTERS = 64
MAX_DEPTH = 4
LABEL = '","quote":"{quote}","source":"{source}","ts":'
"""What the batch writes between a price and its time."""

CODES: dict[str, str] = {
    "bad_request": "The fields are not as they must be. Correct the request.",
    "unauthorized": "The key is missing, not known, not for this network, or not for prices. Check it.",
    "revoked": "The key has been revoked or has expired. Make another one.",
    "unknown_asset": "The asset is not listed, or not on the exchange asked for. Ask for what /assets names.",
    "stale": "No price is as fresh as asked; age_ms is the newest one's age. Accept it, or ask later.",
    "rate_limited": "Requests come faster than the plan allows. Wait for retry_ms.",
    "quota_exceeded": "The month's requests are used up. Wait for the next month, or take a larger plan.",
    "unavailable": "No fresh price is known, or keys or usage cannot be seen to. Ask again in a second.",
}

_CODES_OF_PROBLEMS = {
    "unknown_asset": "unknown_asset",
    "unknown_exchange": "unknown_asset",
    "stale": "stale",
    "too_few_sources": "stale",
}

_encode = msgspec.json.Encoder().encode


class Price(msgspec.Struct, frozen=True, omit_defaults=True):
    """One price, in the order of its members on the wire."""

    asset: str
    price: str
    """The exchange's own digits."""
    quote: str
    source: str
    traded_ms: int = msgspec.field(name="ts")
    """When it traded, since the epoch; when the exchange answered, where `time_is` says so."""
    age_ms: int
    tier: int
    time_is: str | None = None
    """"answer" where the exchange does not tell when it traded."""

    @property
    def decimal(self) -> Decimal:
        return Decimal(self.price)


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one of several assets got instead of a price."""

    asset: str
    error: str
    age_ms: int | None = None


class Prices(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a question for several assets; *omitted* are those that had no room in it."""

    prices: Sequence[Price | Failure]
    omitted: Sequence[str] = ()


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    error: str
    age_ms: int | None = None
    retry_ms: int | None = None


class Summary(msgspec.Struct, frozen=True):
    """What a key has asked for in a month, in the order of its members on the wire."""

    month: str
    key: int
    used: int
    """Of the month's requests, by all keys that share them."""
    limit: int | None
    answers: int
    """Given to this key, refusals too; of the figures below each adds up to it."""
    by_status: Mapping[str, int]
    by_day: Mapping[str, int]
    by_asset: Mapping[str, int]
    """Those with the most answers, as many as had room."""
    other_assets: int
    """Answers about the rest, or about none."""
    reports_used: int
    reports_limit: int | None


# -- replies, as the server writes them


def code_of(problem: Problem) -> str:
    """Say in one of UDP's eight words why a price service refuses."""
    return _CODES_OF_PROBLEMS.get(problem.code, "unavailable")


def render_price(answer: PriceAnswer, id: str | None) -> bytes:
    return _identified(_price(answer), id)


def render_prices(answers: Iterable[tuple[str, PriceAnswer | Problem]], id: str | None) -> bytes:
    """Render what was found for each asset, as many of the first ones as have room; the rest is named."""
    found = [
        (name, _encode(_failure(name, one) if isinstance(one, Problem) else _price(one)))
        for name, one in answers
    ]
    start = b"{" if id is None else b'{"id":%b,' % _encode(id)
    names = [_encode(name) for name, _ in found]
    room = MAX_DATAGRAM_BYTES - len(start) - len(b'"prices":[]}')
    for shown in range(len(found), -1, -1):
        parts = b",".join(part for _, part in found[:shown])
        omitted = b',"omitted":[%b]' % b",".join(names[shown:]) if shown < len(found) else b""
        if len(parts) + len(omitted) <= room:
            return b'%b"prices":[%b]%b}' % (start, parts, omitted)
    raise ValueError("names that came in one datagram fit into one")


def render_summary(summary: Summary, id: str | None) -> bytes:
    """Render a summary with as many of its assets as have room; the others are added up."""
    shown = dict(summary.by_asset)
    while len(reply := _identified(_with_assets(summary, shown), id)) > MAX_DATAGRAM_BYTES and shown:
        shown.popitem()
    return reply


def _with_assets(summary: Summary, shown: Mapping[str, int]) -> Summary:
    others = summary.answers - sum(shown.values())
    return msgspec.structs.replace(summary, by_asset=shown, other_assets=others)


def render_problem(problem: Problem, id: str | None) -> bytes:
    return render_refusal(code_of(problem), id, age_ms=_age_ms(problem))


def render_refusal(
    code: str, id: str | None, *, age_ms: int | None = None, retry_ms: int | None = None
) -> bytes:
    return _identified(Refusal(code, age_ms, retry_ms), id)


def _identified(reply: Price | Prices | Summary | Refusal, id: str | None) -> bytes:
    """Put the id, where there is one, before the other members."""
    body = _encode(reply)
    return body if id is None else b'{"id":%b,%b' % (_encode(id), body[1:])


def _price(answer: PriceAnswer) -> Price:
    price, timeless = answer.price, answer.price.traded_ns is None
    wall_ns = price.received_ns if price.traded_ns is None else price.traded_ns
    return Price(
        price.asset,
        price.price,
        price.quote,
        price.source,
        wall_ns // MS,
        answer.age_ns // MS,
        answer.tier,
        "answer" if timeless else None,
    )


def _failure(asset: str, problem: Problem) -> Failure:
    return Failure(asset, code_of(problem), _age_ms(problem))


def _age_ms(problem: Problem) -> int | None:
    age_ms = problem.figures.get("age_ms")
    return age_ms if isinstance(age_ms, int) else None


# -- requests and replies, as a client sees them


class _Request(msgspec.Struct, omit_defaults=True):
    """Without an asset it asks for a summary."""

    api_key: str
    id: str
    asset: str | None = None
    assets: Sequence[str] | None = None
    exchange: str | None = None
    max_age_ms: int | None = None


class _Member(msgspec.Struct):
    """A price, or what there is instead of one."""

    asset: str | None = None
    price: str | None = None
    quote: str | None = None
    source: str | None = None
    ts: int | None = None
    age_ms: int | None = None
    tier: int | None = None
    time_is: str | None = None
    error: str | None = None


class _Reply(_Member):
    id: str | None = None
    answers: int | None = None
    retry_ms: int | None = None
    prices: list[_Member] | None = None
    omitted: list[str] = []


_decoder = msgspec.json.Decoder(_Reply)
_summary_decoder = msgspec.json.Decoder(Summary)


def build_request(
    wanted: str | Sequence[str] | None,
    key: str,
    *,
    id: str,
    exchange: str | None = None,
    max_age_ms: int | None = None,
) -> bytes:
    """Ask for one asset, for several, or for the key's summary. Raises RequestTooLarge."""
    asset, assets = (wanted, None) if isinstance(wanted, str) else (None, wanted)
    request = _encode(_Request(key, id, asset, assets, exchange, max_age_ms))
    if len(request) > MAX_DATAGRAM_BYTES:
        raise RequestTooLarge(len(request), MAX_DATAGRAM_BYTES)
    return request


def parse_reply(data: bytes) -> tuple[str | None, Price | Prices | Summary | Refusal]:
    """Read a reply and whose it is; members that are not known here are left alone. Raises BadReply."""
    try:
        reply = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadReply(data) from error
    if reply.prices is not None:
        return reply.id, Prices([_member(data, one) for one in reply.prices], reply.omitted)
    if reply.error is not None:
        return reply.id, Refusal(reply.error, reply.age_ms, reply.retry_ms)
    if reply.answers is not None:
        return reply.id, _summary(data)
    return reply.id, _told(data, reply)


def _summary(data: bytes) -> Summary:
    try:
        return _summary_decoder.decode(data)
    except msgspec.DecodeError as error:
        raise BadReply(data) from error


def _member(data: bytes, member: _Member) -> Price | Failure:
    if member.error is None:
        return _told(data, member)
    if member.asset is None:
        raise BadReply(data)
    return Failure(member.asset, member.error, member.age_ms)


def _told(data: bytes, member: _Member) -> Price:
    try:
        return msgspec.convert(member, Price, from_attributes=True)
    except msgspec.ValidationError as error:
        raise BadReply(data) from error
