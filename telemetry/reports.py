"""What a report is: its question, its columns and rows, and the cursor of its next page. Pure."""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import msgspec

from telemetry._spool import ENDPOINTS, INDEX, NO_SOURCE, PROTOCOLS, REPORT_USAGE, REST, SOURCES, WS

Value: TypeAlias = datetime | date | int | str | None
Row: TypeAlias = tuple[Value, ...]
Read: TypeAlias = Sequence[Any]  # Any: values of columns, in the order of `fields_of`

CURSOR_LIFE_S = 3_600
"""The pages of a report cost nothing more: so long after it was made they can be asked for."""
MOST_GROUPS = 3
_MAC_BYTES = 16
_SOURCE = re.compile(r"(?:index|([a-z0-9][a-z0-9_-]{0,31})-(ws|rest))(-sim)?", re.ASCII)


class Kind(enum.Enum):
    """The four reports: each record, or figures; of prices, or of reports themselves."""

    USAGE = "usage"
    SUMMARY = "summary"
    REPORT_USAGE = "report-usage"
    REPORT_SUMMARY = "report-summary"

    @property
    def is_summary(self) -> bool:
        return self.value.endswith("summary")

    @property
    def is_of_reports(self) -> bool:
        return self.value.startswith("report-")

    @property
    def endpoint(self) -> int:
        """As the usage record of such a report has it."""
        return ENDPOINTS.index(f"reports/{self.value}")

    @property
    def endpoints(self) -> dict[str, int]:
        """What the report can tell of, by name."""
        return {
            name: number
            for number, name in enumerate(ENDPOINTS)
            if (number >= REPORT_USAGE) is self.is_of_reports
        }


class Source(msgspec.Struct, frozen=True, array_like=True):
    number: int
    exchange: str | None
    simulated: bool


class Question(msgspec.Struct, frozen=True, array_like=True):
    """Which records a report is of; None is any. The end is not in the period."""

    kind: Kind
    account_id: int | None
    """None for operators alone: no report of a customer's goes beyond the account."""
    start: datetime
    end: datetime
    asset: str | None = None
    exchange: str | None = None
    source: Source | None = None
    status: int | None = None
    protocol: int | None = None
    endpoint: int | None = None
    key_id: int | None = None
    group_by: tuple[str, ...] = ()

    def filters(self) -> dict[str, int | str]:
        """Return what was chosen, in the words in which it was asked for."""
        source = self.source
        tag = None if source is None else source_tag(source.number, source.exchange, source.simulated)
        chosen = {
            "asset": self.asset,
            "exchange": self.exchange,
            "source": tag,
            "status": self.status,
            "protocol": None if self.protocol is None else PROTOCOLS[self.protocol],
            "endpoint": None if self.endpoint is None else ENDPOINTS[self.endpoint],
            "key_id": self.key_id,
        }
        return {name: one for name, one in chosen.items() if one is not None}

    def heading(self) -> dict[str, str]:
        """Return what a person must know of the question, as one reads it."""
        period = {"From": render_hour(self.start), "To": render_hour(self.end)}
        chosen = {name: str(one) for name, one in self.filters().items()}
        return {**period, **chosen, **({"By": ", ".join(self.group_by)} if self.group_by else {})}


@lru_cache(maxsize=4_096)
def source_tag(number: int, exchange: str | None, simulated: bool) -> str | None:  # a column
    """Return the tag of a price's source, as the answer had it; None without a price."""
    if number == NO_SOURCE:
        return None
    tag = "index" if number == INDEX else f"{exchange}-{SOURCES[number]}"
    return f"{tag}-sim" if simulated else tag


def parse_source(tag: str) -> Source:
    """Read a source's tag. Raises ValueError."""
    found = _SOURCE.fullmatch(tag)
    if found is None:
        raise ValueError(tag)
    exchange, way, simulated = found.groups()
    number = {"ws": WS, "rest": REST, None: INDEX}[way]
    return Source(number, exchange, simulated is not None)


# Columns


class Column(NamedTuple):
    name: str
    kind: str
    """`moment` (to the microsecond), `hour`, `day`, `number`, `text`, or `word`: a text of our own."""
    width: int
    """Characters in which its values usually fit."""


DETAILS = (
    Column("at", "moment", 27),
    Column("key_id", "number", 8),
    Column("asset", "text", 8),
    Column("exchange", "text", 10),
    Column("source", "text", 18),
    Column("protocol", "word", 8),
    Column("endpoint", "word", 22),
    Column("status", "number", 6),
    Column("assets", "number", 6),
    Column("tier", "number", 4),
    Column("latency_us", "number", 10),
    Column("price", "text", 16),
    Column("quote", "text", 5),
    Column("month", "word", 7),
)
"""Of one record; `month` is that in which the answer counts against the plan, if it does."""
FIGURES = (
    Column("answers", "number", 12),
    Column("counted", "number", 12),
    Column("ok", "number", 12),
    Column("refused", "number", 12),
    Column("failed", "number", 12),
    Column("assets", "number", 12),
    Column("latency_mean_us", "number", 15),
    Column("latency_max_us", "number", 14),
)
"""`counted` against the plan; by status `ok` below 300, `refused` below 500, `failed` from there on."""

GROUPS = {
    "hour": Column("hour", "hour", 20),
    "day": Column("day", "day", 10),
    **{
        name: next(column for column in DETAILS if column.name == name)
        for name in ("asset", "exchange", "source", "protocol", "endpoint", "status", "tier", "key_id")
    },
}

_DETAIL_FIELDS = (
    *("at", "key_id", "asset", "exchange", "source", "simulated", "protocol", "endpoint", "status"),
    *("assets", "tier", "latency_us", "price", "quote", "month", "segment_id", "sequence"),
)
FIGURE_FIELDS = (
    *("answers_", "counted_", "ok_", "refused_", "failed_", "assets_", "latency_us_sum_", "latency_us_max_"),
)
_GROUP_FIELDS = {"source": ("source", "exchange", "simulated")}
DETAIL_PLACE = ("at", "segment_id", "sequence")
"""The place of a record among all of an account: they are told in this order."""


def columns_of(question: Question) -> tuple[Column, ...]:
    if question.kind.is_summary:
        return (*(GROUPS[name] for name in question.group_by), *FIGURES)
    return DETAILS


def place_of(question: Question) -> tuple[str, ...]:
    """Return the fields by which rows are ordered, and continued on the next page."""
    if question.kind.is_summary:
        return group_fields(question.group_by)
    return DETAIL_PLACE


def group_fields(group_by: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(field for name in group_by for field in _GROUP_FIELDS.get(name, (name,))))


def fields_of(question: Question) -> tuple[str, ...]:
    """Return what must be read of the database for one row, in this order."""
    if question.kind.is_summary:
        return (*group_fields(question.group_by), *FIGURE_FIELDS)
    return _DETAIL_FIELDS


def row_maker(question: Question) -> Callable[[Read], Row]:
    """Return what makes a report's row of the fields that were read."""
    return group_maker(question.group_by) if question.kind.is_summary else _detail


def group_maker(group_by: Sequence[str]) -> Callable[[Read], Row]:
    """Return what makes a row of `group_fields(group_by)` and FIGURE_FIELDS."""
    fields = group_fields(group_by)
    size = len(fields)
    makers = [_group_maker(name, fields) for name in group_by]
    return lambda read: (*(make(read) for make in makers), *figures(read[size:]))


def figures(read: Read) -> tuple[int, ...]:
    """Return the figures as every format shows them, of FIGURE_FIELDS as they were read."""
    answers, counted, ok, refused, failed, assets, latency_us, most_us = (int(one or 0) for one in read)
    mean_us = round(latency_us / answers) if answers else 0
    return answers, counted, ok, refused, failed, assets, mean_us, most_us


def _detail(read: Read) -> Row:
    at, key_id, asset, exchange, source, simulated, protocol, endpoint, status = read[:9]
    assets, tier, latency_us, price, quote, month = read[9:15]
    tag = source_tag(source, exchange, simulated) if source else None
    return (
        at,
        key_id,
        asset or None,
        exchange or None,
        tag,
        PROTOCOLS[protocol],
        ENDPOINTS[endpoint],
        status,
        assets,
        tier or None,
        latency_us,
        price or None,
        quote or None,
        _month(month),
    )


@lru_cache
def _month(month: int) -> str | None:
    return f"{month // 100}-{month % 100:02d}" if month else None


def _group_maker(name: str, fields: Sequence[str]) -> Callable[[Read], Value]:
    if name == "source":
        number, exchange, simulated = (fields.index(field) for field in _GROUP_FIELDS["source"])
        return lambda read: source_tag(read[number], read[exchange], read[simulated])
    place = fields.index(name)
    names = {"protocol": PROTOCOLS, "endpoint": ENDPOINTS}.get(name)
    if names is not None:
        return lambda read: names[read[place]]
    return lambda read: read[place] or None if name in ("asset", "exchange", "tier") else read[place]


class Wanted(NamedTuple):
    """A report as it was asked for: *limit* rows at most, behind *place* when it is a later page."""

    question: Question
    format: str
    limit: int | None
    made_s: int
    place: tuple[Value, ...] = ()


# Times


def render_moment(moment: datetime) -> str:
    """Write RFC 3339 in UTC with six digits of fraction, as the rest of the interface does."""
    return moment.isoformat(timespec="microseconds")[:26] + "Z"


def render_hour(moment: datetime) -> str:
    """Write RFC 3339 without a fraction where there is none."""
    return moment.isoformat()[:19] + "Z" if not moment.microsecond else render_moment(moment)


# Cursors


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where the next page of a report begins: behind *place*, the values of `place_of(question)`."""

    question: Question
    limit: int
    made_s: int
    """When the report was made, since the epoch: the first page, not this one."""
    place: tuple[Any, ...]  # Any: values of columns, moments among them


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Cursor).decode


def seal(cursor: Cursor, secret: bytes) -> str:
    """Write a cursor such that nobody else can make one, or change it."""
    text = _encode(msgspec.structs.replace(cursor, place=_plain(cursor.place)))
    return base64.urlsafe_b64encode(_mac(text, secret) + text).rstrip(b"=").decode()


def unseal(text: str, secret: bytes, *, account_id: int, now_s: float) -> Cursor:
    """Read an account's cursor. Raises ValueError: it is spoilt, another account's, or too old."""
    try:
        raw = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("It is spoilt.") from error
    if not hmac.compare_digest(raw[:_MAC_BYTES], _mac(raw[_MAC_BYTES:], secret)):
        raise ValueError("It is spoilt.")
    try:
        cursor = _decode(raw[_MAC_BYTES:])
    except msgspec.DecodeError as error:  # another version's
        raise ValueError("It is spoilt.") from error
    if cursor.question.account_id != account_id:
        raise ValueError("It is another account's.")
    if now_s - cursor.made_s > CURSOR_LIFE_S:
        raise ValueError(f"It was good for {CURSOR_LIFE_S // 60} minutes.")
    return cursor


def _plain(place: Sequence[Value]) -> tuple[Value, ...]:
    """Turn days into texts, which they are compared as alike; msgpack has moments alone."""
    return tuple(
        one.isoformat() if isinstance(one, date) and not isinstance(one, datetime) else one for one in place
    )


def _mac(text: bytes, secret: bytes) -> bytes:
    return hashlib.blake2b(text, key=secret, digest_size=_MAC_BYTES, person=b"report cursor").digest()
