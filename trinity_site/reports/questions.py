"""Questions for reports as HTTP has them: read strictly, into what telemetry makes reports of. Sans-I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pricing.exceptions import BadRequest
from pricing.problems import Problem
from pricing.protocol import bad, read_asset, read_exchange, read_number, read_parameters, shorten, within
from telemetry._spool import PROTOCOLS
from telemetry.renderers import FORMATS
from telemetry.reports import (
    GROUPS,
    MOST_GROUPS,
    Cursor,
    Kind,
    Question,
    Source,
    Wanted,
    parse_source,
    unseal,
)

T = TypeVar("T")

DEFAULT_LIMIT = 1_000
MOST_ROWS = 10_000
"""Of one JSON page."""
MOST_LINES = 999_999_999
MOST_DAYS = {False: 93, True: 400}
"""By whether it is a summary: records are kept for 93 days."""

PARAMETERS = (
    *("format", "from", "to", "asset", "exchange", "source", "status", "protocol", "endpoint", "key_id"),
    *("limit", "cursor"),
)
BESIDE_CURSOR = frozenset({"cursor", "limit", "format"})

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_HOUR = timedelta(hours=1)
_YEARS = range(1970, 9_999)
"""Around any time in them there is room to reckon: a calendar ends with year 9999."""


def parameters_of(kind: Kind) -> tuple[str, ...]:
    return (*PARAMETERS, "group_by") if kind.is_summary else PARAMETERS


def parse_report(
    query: bytes, accept: bytes, kind: Kind, *, account_id: int, now: datetime, secret: bytes
) -> Wanted:
    """Read the query string of a report. Raises BadRequest."""
    given = read_parameters(query, parameters_of(kind))
    name = _format(given, accept)
    limit = _limit(given, name)
    if "cursor" in given:
        cursor = _cursor(given, name, kind, account_id, now, secret)
        limit = limit if "limit" in given else cursor.limit
        return Wanted(cursor.question, name, limit, cursor.made_s, cursor.place)
    start, end = _period(given, kind, now)
    question = Question(
        kind,
        account_id,
        start,
        end,
        asset=_read(given, "asset", read_asset),
        exchange=_read(given, "exchange", read_exchange),
        source=_read(given, "source", _source),
        status=within(read_number(given, "status"), "status", 100, 599),
        protocol=_one_of(given, "protocol", {name: number for number, name in enumerate(PROTOCOLS)}),
        endpoint=_one_of(given, "endpoint", kind.endpoints),
        key_id=within(read_number(given, "key_id"), "key_id", 1, MOST_LINES),
        group_by=_groups(given),
    )
    return Wanted(question, name, limit, int(now.timestamp()))


def _read(given: Mapping[str, str], name: str, read: Callable[[str], T]) -> T | None:
    return read(given[name]) if name in given else None


def _source(text: str) -> Source:
    try:
        return parse_source(text)
    except ValueError:
        raise bad(f"{shorten(text)!r} cannot be a source, such as coinbase-ws.", "source") from None


def _one_of(given: Mapping[str, str], name: str, known: Mapping[str, T]) -> T | None:
    text = given.get(name)
    if text is None:
        return None
    if text not in known:
        raise bad(f"{name} must be one of {', '.join(known)}, not {shorten(text)!r}.", name)
    return known[text]


def _limit(given: Mapping[str, str], name: str) -> int | None:
    limit = read_number(given, "limit")
    if name == "json":
        return within(DEFAULT_LIMIT if limit is None else limit, "limit", 1, MOST_ROWS)
    return within(limit, "limit", 1, MOST_LINES)


def _groups(given: Mapping[str, str]) -> tuple[str, ...]:
    if "group_by" not in given:
        return ()
    names = tuple(given["group_by"].split(","))
    for name in names:
        if name not in GROUPS:
            raise bad(f"group_by names {', '.join(GROUPS)}, not {shorten(name)!r}.", "group_by")
    if len(set(names)) < len(names) or len(names) > MOST_GROUPS:
        raise bad(f"group_by names up to {MOST_GROUPS}, each of them once.", "group_by")
    return names


# Periods


def _period(given: Mapping[str, str], kind: Kind, now: datetime) -> tuple[datetime, datetime]:
    """Read the period; without one it is this month until now. Summaries are of whole hours."""
    end = _read(given, "to", lambda text: _moment(text, "to")) or now
    start = _read(given, "from", lambda text: _moment(text, "from"))
    if start is None:
        last = end - timedelta(microseconds=1)
        start = last.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if start >= end:
        raise bad("from must be before to.", "from")
    if kind.is_summary:
        start = start.replace(minute=0, second=0, microsecond=0)
        whole = end.replace(minute=0, second=0, microsecond=0)
        end = whole if whole == end else whole + _HOUR
    days = MOST_DAYS[kind.is_summary]
    if end - start > timedelta(days=days):
        raise bad(f"A report of this kind may be of {days} days.", "from")
    return start, end


def _moment(text: str, name: str) -> datetime:
    moment = None
    with suppress(ValueError, OverflowError):  # a day that is in no calendar
        if _DAY.fullmatch(text):
            moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
        elif _MOMENT.fullmatch(text):
            moment = datetime.fromisoformat(text).astimezone(UTC)
    if moment is None:
        detail = f"{name} must be a day or a time as RFC 3339 has them, such as 2026-11-01T00:00:00Z"
        raise bad(f"{detail}, not {shorten(text)!r}.", name)
    if moment.year not in _YEARS:
        raise bad(f"{name} must be in the years {_YEARS[0]} to {_YEARS[-1]}.", name)
    return moment


# Cursors and formats


def _cursor(
    given: Mapping[str, str], name: str, kind: Kind, account_id: int, now: datetime, secret: bytes
) -> Cursor:
    for other in given:
        if other not in BESIDE_CURSOR:
            raise bad("A cursor has the whole question in it: beside it there may be a limit.", other)
    if name != "json":
        raise bad("Cursors are for pages of JSON; the other formats come whole.", "cursor")
    try:
        cursor = unseal(given["cursor"], secret, account_id=account_id, now_s=now.timestamp())
    except ValueError as error:
        raise bad(f"This cursor cannot be used. {error} Ask for the report again.", "cursor") from error
    if cursor.question.kind is not kind:
        raise bad(f"This cursor is one of /reports/{cursor.question.kind.value}.", "cursor")
    return cursor


def _format(given: Mapping[str, str], accept: bytes) -> str:
    name = given.get("format")
    if name is not None:
        if name not in FORMATS:
            raise bad(f"format must be one of {', '.join(FORMATS)}, not {shorten(name)!r}.", "format")
        return name
    ranges = (
        dict(map(_range, accept.decode("latin-1").lower().split(","))) if accept.strip() else {"*/*": 1.0}
    )
    weights = {name: _weight(row.content_type.partition(";")[0], ranges) for name, row in FORMATS.items()}
    best = max(weights, key=lambda name: weights[name])  # the first of several
    if not weights[best]:
        kinds = ", ".join(row.content_type.partition(";")[0] for row in FORMATS.values())
        raise BadRequest(Problem("not_acceptable", f"A report can be {kinds}."))
    return best


def _range(part: str) -> tuple[str, float]:
    """Read one media range of an Accept field; a weight that is none counts as nothing."""
    kind, *options = (one.strip() for one in part.split(";"))
    weight = next((one[2:] for one in options if one.startswith("q=")), "1")
    return kind, float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 0.0


def _weight(kind: str, ranges: Mapping[str, float]) -> float:
    """Return what the most specific range says of a type (RFC 9110, 12.5.1)."""
    for one in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        if one in ranges:
            return ranges[one]
    return 0.0
