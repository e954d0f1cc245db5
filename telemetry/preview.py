"""What can be told of a document that was set aside: as much of it as can be read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from reprlib import Repr
from typing import NamedTuple

from telemetry._spool import ENDPOINTS, PROTOCOLS, RECORD_BYTES, SOURCES, UsageLog
from telemetry._spool import decode as decode_records
from telemetry.documents import decode
from telemetry.envelope import read_records, unpack
from telemetry.exceptions import Poison

MOST_RECORDS = 20
MOST_FIELDS = 40
MOST_BYTES = 256

_short = Repr()
_short.maxstring = _short.maxother = 160


class Record(NamedTuple):
    """One usage log in words."""

    at: datetime
    key_id: int
    asset: str
    exchange: str
    source: str
    protocol: str
    endpoint: str
    status: int
    price: str


class Preview(NamedTuple):
    problem: str
    """Why it cannot be read further; empty when all of it can be."""
    fields: tuple[tuple[str, str], ...] = ()
    records: tuple[Record, ...] = ()
    total: int = 0
    """How many records there are; the first of them are in *records*."""
    beginning: str = ""
    """The first bytes, of a document that is none."""


def preview(document: bytes) -> Preview:
    """Read a document as far as it goes."""
    try:
        content = decode(document)
    except Poison as poison:
        return Preview(str(poison), beginning=document[:MOST_BYTES].hex(" ", -4))
    fields = _fields(content)
    try:
        records = read_records(unpack(content))
    except Poison as poison:
        return Preview(str(poison), fields)
    logs = decode_records(records[: MOST_RECORDS * RECORD_BYTES])
    return Preview("", fields, tuple(map(_record, logs)), len(records) // RECORD_BYTES)


def _fields(content: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(content, Mapping):
        return (("content", _text(content)),)
    shown = list(content.items())[:MOST_FIELDS]
    return tuple((_text(name).strip("'"), _text(value)) for name, value in shown)


def _text(value: object) -> str:
    return f"{len(value):,} bytes" if isinstance(value, bytes) else _short.repr(value)


def _record(log: UsageLog) -> Record:
    return Record(
        datetime.fromtimestamp(log.time_ns // 1_000_000_000, UTC),
        log.key_id,
        log.asset,
        log.exchange,
        _name(SOURCES, log.source),
        _name(PROTOCOLS, log.protocol),
        _name(ENDPOINTS, log.endpoint),
        log.status,
        log.price,
    )


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else str(number)
