"""Usage logs on their way into PostgreSQL, in plain Python: the specification of telemetry._rows."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from telemetry._rows import COLUMNS, PART_COLUMNS
from telemetry._spool import SIMULATED, UsageLog, decode
from tests.twins.spool import RECORD, RECORD_BYTES

MOST_16, MOST_32, MOST_64 = 2**15 - 1, 2**31 - 1, 2**63 - 1
SINCE_2000_US = 946_684_800_000_000
HOUR_US = 3_600_000_000
_NUMBERS = {
    **dict.fromkeys(("at", "hour", "account_id", "key_id", "answers"), ">iq"),
    **dict.fromkeys(("segment_id", "sequence", "month", "latency_us_max"), ">ii"),
    **dict.fromkeys(("status", "tier", "source", "protocol", "endpoint"), ">ih"),
    "simulated": ">i?",
}
LOGS = {**_NUMBERS, "latency_us": ">ii", "assets": ">ih"}
PARTS = {**_NUMBERS, "latency_us": ">iq", "assets": ">iq"}


def clean_text(field: bytes) -> bytes:
    """Up to the first zero; ? for each byte that is no part of a character."""
    found, rest = b"", field.partition(b"\0")[0]
    while rest:
        length = next((length for length in (1, 2, 3, 4) if is_text(rest[:length])), 0)
        found += rest[:length] or b"?"
        rest = rest[length or 1 :]
    return found


def is_text(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def clean(record: bytes) -> bytes:
    time, key, account, month, latency, status, *small, asset, exchange, price, quote = RECORD.unpack(
        record[:-8]
    )
    numbers = min(key, MOST_64), min(account, MOST_64), min(month, MOST_32), min(latency, MOST_32)
    texts = map(clean_text, (asset, exchange, price, quote))
    return RECORD.pack(time, *numbers, min(status, MOST_16), *small, *texts) + record[-8:]


def fits(records: bytes, start: int, end: int) -> bool:
    """Whether the records are in order and of places from *start* up to *end*."""
    places = [log.sequence - 1 for log in decode(records)]
    return places == sorted(set(places)) and all(start <= place < end for place in places)


def copy_rows(records: bytes, segment_id: int) -> bytes:
    return b"".join(
        row(
            log._asdict()
            | {
                "at": log.time_ns // 1000 - SINCE_2000_US,
                "segment_id": segment_id,
                "simulated": bool(log.flags & SIMULATED),
            },
            COLUMNS,
            LOGS,
        )
        for log in decode(records)
    )


def parts(records: bytes, node: str) -> list[bytes]:
    """Rows of a COPY BINARY of PART_COLUMNS, in no order."""
    sums: dict[tuple[object, ...], list[int]] = {}
    for log in decode(records):
        total = sums.setdefault(key_of(log), [0, 0, 0, 0])
        for which, number in enumerate((1, log.assets, log.latency_us)):
            total[which] += number
        total[3] = max(total[3], log.latency_us)
    rows = [dict(zip(PART_COLUMNS, (*key, *total, node), strict=True)) for key, total in sums.items()]
    return [row(values, PART_COLUMNS, PARTS) for values in rows]


def key_of(log: UsageLog) -> tuple[object, ...]:
    hour = log.time_ns // 1000 // HOUR_US * HOUR_US - SINCE_2000_US
    named = (log.account_id, hour, log.key_id, log.month, log.asset, log.exchange, log.source)
    return *named, bool(log.flags & SIMULATED), log.protocol, log.endpoint, log.status, log.tier


def row(values: Mapping[str, object], columns: tuple[str, ...], formats: Mapping[str, str]) -> bytes:
    fields = [field(values[column], formats.get(column)) for column in columns]
    return struct.pack(">h", len(columns)) + b"".join(fields)


def field(value: object, form: str | None) -> bytes:
    if form is None:
        text = str(value).encode()
        return struct.pack(">i", len(text)) + text
    return struct.pack(form, struct.calcsize(form) - 4, value)


assert RECORD.size + 8 == RECORD_BYTES
