"""A datagram read, in plain Python: the specification of `udp_engine._datagram`.

The text is read from the left, and the first fault in byte order is the one that counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

MAX_BYTES, MAX_DEPTH, MAX_ASSETS, MAX_AGE_MS = 1_200, 4, 30, 86_400_000
FIELDS = frozenset(("asset", "assets", "api_key", "id", "exchange", "max_age_ms"))
OF_REPLIES = frozenset(("error", "price", "prices", "answers"))
OF_PRICES = frozenset(("asset", "assets", "exchange", "max_age_ms"))

_blank = re.compile(r"[ \t\n\r]*").match
_plain = re.compile(r'[^"\\\x00-\x1f]*').match
_digits = re.compile(r"[0-9]*").match
_asset = re.compile(r"[A-Za-z0-9]{1,32}").fullmatch
_exchange = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}").fullmatch
_id = re.compile(r"[ -~]{1,64}").fullmatch
_age = re.compile(r"0|[1-9][0-9]{0,7}").fullmatch


class Drop(NamedTuple):
    reason: str


class Refusal(NamedTuple):
    code: str
    id: str | None
    retry_ms: int | None = None


class Query(NamedTuple):
    """What is asked for; without an asset it is the summary of the key."""

    asset: str | None
    assets: tuple[str, ...]
    exchange: str | None
    max_age_ms: int | None
    key: bytes | None
    id: str | None


# -- reading


class Fault(Exception):
    """The first thing that is wrong; the reason is its argument."""


class Number(str):
    """A number, as it is written."""


OTHER = object()  # an object, true, false or null: no field is one
ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def parse(datagram: bytes) -> Drop | Refusal | Query:
    if not datagram:
        return Drop("empty")
    if len(datagram) > MAX_BYTES:
        return Drop("oversized")
    try:
        text = datagram.decode()
    except UnicodeDecodeError:
        return Drop("not_utf8")
    try:
        return judge(read(text))
    except Fault as fault:
        return Drop(fault.args[0])


def read(text: str) -> dict[str, object]:
    """Read the object that *text* must be."""
    at = skip(text, 0)
    if char_at(text, at) != "{":
        raise Fault("malformed")
    fields, at = read_object(text, at + 1, 1)
    if skip(text, at) != len(text):
        raise Fault("malformed")
    return fields


def skip(text: str, at: int) -> int:
    return _blank(text, at).end()  # type: ignore[union-attr]  # it matches anywhere


def char_at(text: str, at: int) -> str:
    try:
        return text[at]
    except IndexError:
        raise Fault("truncated") from None


def read_object(text: str, at: int, depth: int) -> tuple[dict[str, object], int]:
    """Read what is behind the brace. At depth 1 names are looked at as soon as they end."""
    fields: dict[str, object] = {}
    at = skip(text, at)
    char = char_at(text, at)
    if char == "}":
        return fields, at + 1
    while True:
        if char != '"':
            raise Fault("malformed")
        name, at = read_string(text, at + 1)
        if depth == 1 and name in fields and name in FIELDS:
            raise Fault("duplicate_field")
        if depth == 1 and name in OF_REPLIES:
            raise Fault("reply_shaped")
        at = skip(text, at)
        if char_at(text, at) != ":":
            raise Fault("malformed")
        fields[name], at = read_value(text, skip(text, at + 1), depth)
        at = skip(text, at)
        char = char_at(text, at)
        if char == "}":
            return fields, at + 1
        if char != ",":
            raise Fault("malformed")
        at = skip(text, at + 1)
        char = char_at(text, at)


def read_list(text: str, at: int, depth: int) -> tuple[list[object], int]:
    found: list[object] = []
    at = skip(text, at)
    if char_at(text, at) == "]":
        return found, at + 1
    while True:
        value, at = read_value(text, at, depth)
        found.append(value)
        at = skip(text, at)
        char = char_at(text, at)
        if char == "]":
            return found, at + 1
        if char != ",":
            raise Fault("malformed")
        at = skip(text, at + 1)


def read_value(text: str, at: int, depth: int) -> tuple[object, int]:
    """Read a value within *depth* levels."""
    char = char_at(text, at)
    if char == '"':
        return read_string(text, at + 1)
    if char in "{[":
        if depth == MAX_DEPTH:
            raise Fault("too_deep")
        if char == "[":
            return read_list(text, at + 1, depth + 1)
        return OTHER, read_object(text, at + 1, depth + 1)[1]
    if char in "-0123456789":
        return read_number(text, at)
    for word in ("true", "false", "null"):
        if char == word[0]:
            return OTHER, read_word(text, at, word)
    raise Fault("malformed")


def read_word(text: str, at: int, word: str) -> int:
    for char in word:
        if char_at(text, at) != char:
            raise Fault("malformed")
        at += 1
    return at


def read_number(text: str, at: int) -> tuple[Number, int]:
    start = at
    if text[at] == "-":
        at += 1
    at = at + 1 if char_at(text, at) == "0" else read_digits(text, at)
    if text.startswith(".", at):
        at = read_digits(text, at + 1)
    if text.startswith(("e", "E"), at):
        at += 1
        at = read_digits(text, at + 1 if char_at(text, at) in "+-" else at)
    return Number(text[start:at]), at


def read_digits(text: str, at: int) -> int:
    end = _digits(text, at).end()  # type: ignore[union-attr]  # it matches anywhere
    if end == at:
        char_at(text, at)
        raise Fault("malformed")
    return end


def read_string(text: str, at: int) -> tuple[str, int]:
    """Read what is behind the quote, escapes undone."""
    parts = []
    while True:
        end = _plain(text, at).end()  # type: ignore[union-attr]  # it matches anywhere
        parts.append(text[at:end])
        char = char_at(text, end)
        if char == '"':
            return parts[0] if len(parts) == 1 else "".join(parts), end + 1
        if char != "\\":
            raise Fault("malformed")
        part, at = read_escape(text, end + 1)
        parts.append(part)


def read_escape(text: str, at: int) -> tuple[str, int]:
    """Read what is behind the backslash: a high surrogate's partner, too."""
    char = char_at(text, at)
    if char != "u":
        if char not in ESCAPES:
            raise Fault("bad_escape")
        return ESCAPES[char], at + 1
    unit, at = read_hex(text, at + 1)
    if 0xDC00 <= unit <= 0xDFFF:
        raise Fault("bad_escape")
    if not 0xD800 <= unit <= 0xDBFF:
        return chr(unit), at
    for expected in "\\u":
        if char_at(text, at) != expected:
            raise Fault("bad_escape")
        at += 1
    low, at = read_hex(text, at)
    if not 0xDC00 <= low <= 0xDFFF:
        raise Fault("bad_escape")
    return chr(0x10000 + (unit - 0xD800 << 10) + (low - 0xDC00)), at


def read_hex(text: str, at: int) -> tuple[int, int]:
    for place in range(at, at + 4):
        if char_at(text, place) not in "0123456789abcdefABCDEF":
            raise Fault("bad_escape")
    return int(text[at : at + 4], 16), at + 4


# -- the fields


class Unusable(Exception):
    """A field is not as it must be."""


def judge(fields: Mapping[str, object]) -> Refusal | Query:
    """Make a query of a JSON object; with anything wrong in it, a refusal with the id, if that is good."""
    id = fields.get("id")
    good_id = id if type(id) is str and _id(id) else None
    try:
        return query_of(fields, good_id)
    except Unusable:
        return Refusal("bad_request", good_id)


def query_of(fields: Mapping[str, object], id: str | None) -> Query:
    wanted = OF_PRICES.intersection(fields)
    if not FIELDS.issuperset(fields) or (wanted and ("asset" in wanted) == ("assets" in wanted)):
        raise Unusable
    if "id" in fields and id is None:
        raise Unusable
    return Query(
        asset_of(fields["asset"]) if "asset" in fields else None,
        assets_of(fields["assets"]) if "assets" in fields else (),
        exchange_of(fields["exchange"]) if "exchange" in fields else None,
        age_of(fields["max_age_ms"]) if "max_age_ms" in fields else None,
        text_of(fields["api_key"]).encode() if "api_key" in fields else None,
        id,
    )


def text_of(value: object) -> str:
    if type(value) is not str:
        raise Unusable
    return value


def asset_of(value: object) -> str:
    text = text_of(value)
    if not _asset(text):
        raise Unusable
    return text.upper()


def assets_of(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise Unusable
    assets = tuple(dict.fromkeys(map(asset_of, value)))
    if not 1 <= len(assets) <= MAX_ASSETS:
        raise Unusable
    return assets


def exchange_of(value: object) -> str:
    text = text_of(value)
    if not _exchange(text):
        raise Unusable
    return text.lower()


def age_of(value: object) -> int:
    if not isinstance(value, Number) or not _age(value) or int(value) > MAX_AGE_MS:
        raise Unusable
    return int(value)


def flat(outcome: Drop | Refusal | Query) -> tuple[object, ...]:
    """Write an outcome as `udp_engine._datagram.parse` does, a reason by its name."""
    if isinstance(outcome, Drop):
        return "drop", outcome.reason
    if isinstance(outcome, Refusal):
        return outcome.code, outcome.id
    if outcome.asset is None:
        return ("prices", *outcome[1:]) if outcome.assets else ("summary", outcome.key, outcome.id)
    return "price", outcome.asset, *outcome[2:]
