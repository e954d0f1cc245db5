"""Usage logs and segments to try the spool with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from telemetry._spool import (
    HEADER_BYTES,
    INDEX,
    MIN_SEGMENT_BYTES,
    RECORD_BYTES,
    SIMULATED,
    UDP,
    Appender,
    UsageLog,
    decode,
    make_header,
)
from telemetry.parameters import SpoolParameters
from telemetry.segments import Segment, find_segments, segment_name
from telemetry.spool import Spool

NODE, ROW, BOOT_NS = "BeastMain", 3, 1_763_816_400_000_000_000
SIZE = MIN_SEGMENT_BYTES
CAPACITY = (SIZE - HEADER_BYTES) // RECORD_BYTES
SMALL = SpoolParameters(segment_bytes=SIZE, spool_bytes=1000 * SIZE)


def make_log(number: int, **changes: Any) -> UsageLog:
    log = UsageLog(
        time_ns=1_763_816_400_000_000_000 + number,
        key_id=number,
        account_id=number % 10,
        month=202611,
        latency_us=number % 1000,
        status=200,
        assets=1,
        tier=1,
        source=INDEX,
        flags=SIMULATED,
        protocol=UDP,
        endpoint=number % 7,
        asset=f"A{number}",
        exchange="coinbase",
        price=f"{number}.25",
        quote="USDT",
    )
    return log._replace(**changes)


def make_memory(created_ns: int = 1, size: int = SIZE) -> bytearray:
    return bytearray(make_header(NODE, ROW, created_ns, size, BOOT_NS)).ljust(size, b"\0")


def make_spool(root: Path, **options: Any) -> Spool:
    return Spool(root, **({"node": NODE, "row": ROW, "parameters": SMALL} | options))


def write_segment(root: Path, records: int, *, sealed: bool = True) -> Path:
    """Write a segment with the records numbered from 0, as a worker that ended or was killed leaves it."""
    memory, appender = make_memory(), Appender()
    appender.publish(memory)
    for number in range(records):
        assert appender.append(make_log(number))
    content = bytes(memory)
    if sealed:
        appender.close()
        content = bytes(memory)
    folder = root / str(ROW)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / segment_name(1)
    path.write_bytes(content)
    return path


def read_numbers(path: Path) -> tuple[list[int], int]:
    """Read a whole segment: the numbers of its records, each looked at closely, and how many were damaged."""
    numbers: list[int] = []
    damaged = place = 0
    with Segment(path) as segment:
        while (reading := segment.read(place, 100)).end > place:
            logs = decode(reading.records)
            assert all(log == make_log(log.key_id, sequence=log.sequence) for log in logs)
            assert all(place < log.sequence <= reading.end for log in logs)
            numbers += [log.key_id for log in logs]
            damaged += reading.damaged
            place = reading.end
    return numbers, damaged


def read_spool(root: Path) -> list[int]:
    """Read every segment of a spool in which nothing is damaged: the numbers of its records."""
    numbers: list[int] = []
    for path in find_segments(root):
        found, damaged = read_numbers(path)
        assert damaged == 0
        numbers += found
    return numbers


def append_all(spool: Spool, numbers: range) -> None:
    """Append, and prepare the next segment whenever there is none."""
    for number in numbers:
        if not spool.appender.append(make_log(number)):
            spool.prepare()
            assert spool.appender.append(make_log(number))
