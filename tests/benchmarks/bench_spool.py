"""Measure the usage spool and print JSON: an append, records per second, reading, and a backlog of 8 GiB.

    python -m tests.benchmarks.bench_spool [--records 2000000] [--segments 128] [--folder DIR]

*append_ns* fills a record in and appends it from C to memory that is there already, *fill_ns* is the filling
alone. *worker* is a spool as a worker has it, files, threads and syncs included, on the disk of --folder, and
*append_ns* there the time inside appends; who finds it full tries again after 1 ms, and *waits* counts that.
*backlog* is made of sparse files, each with 4,096 records and else holes; every second one was left by a dead
writer, so that its end has to be looked for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from telemetry._spool import HEADER_BYTES, RECORD_BYTES, Appender, UsageLog, make_header
from telemetry.parameters import SpoolParameters
from telemetry.segments import MOST, Segment, find_segments
from telemetry.spool import Spool
from tests.benchmarks.bench_board import compile_beside
from tests.benchmarks.segments import fill_segment

SEGMENT_BYTES = 64 * 1024 * 1024
CAPACITY = (SEGMENT_BYTES - HEADER_BYTES) // RECORD_BYTES
ROUNDS = 5
READER = """
import json, sys, time
from pathlib import Path
from telemetry.segments import Segment, find_segments
def memory_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmHWM"))
before, began, records = memory_mib(), time.perf_counter(), 0
for path in find_segments(Path(sys.argv[1])):
    with Segment(path) as segment:
        segment.look()
opened = time.perf_counter()
for path in find_segments(Path(sys.argv[1])):
    with Segment(path) as segment:
        place = 0
        while (reading := segment.read(place)).end > place:
            records += len(reading.records) // 160
            place = reading.end
print(json.dumps({
    "records": records,
    "open_s": round(opened - began, 3),
    "read_s": round(time.perf_counter() - opened, 3),
    "rss_before_mib": before,
    "peak_rss_mib": memory_mib(),
}))
"""
LOG = UsageLog(1, 2, 3, 202611, 42, 200, 1, 1, 1, 0, 0, 0, "BTC", "coinbase", "67123.45", "USD")


@contextmanager
def timed(times: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    times.append(time.perf_counter() - began)


def make_segment(created_ns: int) -> mmap.mmap:
    memory = mmap.mmap(-1, SEGMENT_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    memory[:HEADER_BYTES] = make_header("Bench", 1, created_ns, SEGMENT_BYTES, 1)
    return memory


def measure_append(appends: ModuleType) -> dict[str, float]:
    fill_s: list[float] = []
    append_s: list[float] = []
    for turn in range(ROUNDS):
        appender = Appender()
        appender.publish(make_segment(turn))
        with timed(fill_s):
            appends.fill_all(CAPACITY)
        with timed(append_s):
            assert appends.append_all(appender, CAPACITY) == CAPACITY
        appender.close()
    appender = Appender()
    appender.publish(make_segment(ROUNDS))
    python_s: list[float] = []
    with timed(python_s):
        for _ in range(CAPACITY // 4):
            appender.append(LOG)
    appender.close()
    return {
        "fill_ns": round(min(fill_s) / CAPACITY * 1e9, 1),
        "append_ns": round(sorted(append_s)[ROUNDS // 2] / CAPACITY * 1e9, 1),
        "append_ns_best": round(min(append_s) / CAPACITY * 1e9, 1),
        "python_append_ns": round(python_s[0] / (CAPACITY // 4) * 1e9),
    }


async def measure_worker(appends: ModuleType, root: Path, records: int) -> dict[str, float]:
    spool = Spool(root, node="Bench", row=1, parameters=SpoolParameters(segment_bytes=SEGMENT_BYTES))
    spool.prepare()
    task = asyncio.create_task(spool.run())
    times: list[float] = []
    inside: list[float] = []
    waits = done = 0
    with timed(times):
        while done < records:
            with timed(inside):
                appended = appends.append_all(spool.appender, min(10_000, records - done))
            done += appended
            waits += appended == 0
            await asyncio.sleep(0 if appended else 0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    closing: list[float] = []
    with timed(closing):
        spool.close()
    assert spool.state().failures == 0
    return {
        "records": records,
        "records_per_s": round(records / times[0]),
        "append_ns": round(sum(inside) / records * 1e9, 1),
        "slowest_10000_ms": round(max(inside) * 1e3, 1),
        "waits": waits,
        "close_s": round(closing[0], 2),
    }


def measure_reading(root: Path) -> dict[str, float]:
    read, times = 0, []
    with timed(times):
        for path in find_segments(root):
            read += read_all(path)
    return {"records": read, "records_per_s": round(read / times[0])}


def read_all(path: Path) -> int:
    with Segment(path) as segment:
        place = found = 0
        while (reading := segment.read(place, MOST // 8)).end > place:
            assert reading.damaged == 0
            found += len(reading.records) // RECORD_BYTES
            place = reading.end
    return found


def make_backlog(appends: ModuleType, root: Path, segments: int) -> None:
    def fill(appender: Appender) -> None:
        appends.append_all(appender, 4_096)
        if number % 2:
            appender.close()  # seals; the others are let go of as a killed writer does

    for number in range(1, segments + 1):
        fill_segment(root, number, SEGMENT_BYTES, fill).flush()


def measure_backlog(appends: ModuleType, root: Path, segments: int) -> dict[str, float]:
    """Have a process of its own open and read it: what this one needs otherwise is not counted."""
    make_backlog(appends, root, segments)
    command = [sys.executable, "-c", READER, str(root)]
    read: dict[str, float] = json.loads(subprocess.check_output(command, text=True))
    assert read["records"] == 4_096 * segments
    return {"bytes": segments * SEGMENT_BYTES} | read


def measure(records: int, segments: int, folder: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        appends = compile_beside("spool_appends", Path(name))
        return {
            "record_bytes": RECORD_BYTES,
            "backlog": measure_backlog(appends, Path(name) / "backlog", segments),
            "append": measure_append(appends),
            "worker": asyncio.run(measure_worker(appends, Path(name) / "node", records)),
            "reading": measure_reading(Path(name) / "node"),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--segments", type=int, default=128)
    parser.add_argument("--folder", type=Path, help="a folder on the disk that is to be measured")
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
