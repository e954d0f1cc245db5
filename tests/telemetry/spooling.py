"""Usage logs and segments to try the spool with."""

from __future__ import annotations

import time
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
    read_counts,
    read_header,
    sift,
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


class SpoolInMemory:
    """An appender with room for 100,000 records between two readings, and what was appended."""

    def __init__(self, *, has_room: bool = True) -> None:
        self.appender = Appender()
        self._memories: list[bytearray] = []
        self._places: list[int] = []
        if has_room:
            self.give_room()

    def give_room(self) -> None:
        memory = bytearray(16 * 1024 * 1024)
        memory[:HEADER_BYTES] = make_header(NODE, ROW, len(self._memories) + 1, len(memory), BOOT_NS)
        self._memories.append(memory)
        self._places.append(0)
        self.appender.publish(memory)

    def take(self) -> list[UsageLog]:
        """Give what was appended since this was last called."""
        logs: list[UsageLog] = []
        for number, memory in enumerate(self._memories):
            header = read_header(memory[:HEADER_BYTES])
            _, written = read_counts(memory[:HEADER_BYTES], header)
            assert written is not None
            begin, end = (HEADER_BYTES + RECORD_BYTES * place for place in (self._places[number], written))
            records = memory[begin:end]
            assert sift(records, self._places[number], header.seed)[0] == written - self._places[number]
            logs += decode(records)
            self._places[number] = written
        if self._memories and self.appender.wanting:
            self.give_room()
        return logs


def make_spool(root: Path, **options: Any) -> Spool:
    return Spool(root, **({"node": NODE, "row": ROW, "parameters": SMALL} | options))


def keep_ready(spool: Spool) -> None:
    """See to the files of *spool* for ever, for a thread beside the one that appends."""
    turn = 0
    while True:
        spool.prepare()
        turn += 1
        if turn % 4 == 0:
            spool.sync()
        time.sleep(0.0005)


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
