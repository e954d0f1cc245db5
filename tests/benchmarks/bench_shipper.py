"""Measure the way from the spool to the database and print JSON: what SQS costs, how a big backlog begins.

    python -m tests.benchmarks.bench_shipper [--segments 512] [--seconds 20] [--folder DIR]

*queue*: usage logs like those of a busy node are packed and published to an SQS on loopback, and each
message's body is measured. SQS bills 64 KiB of a message as one request: it is sent, received and deleted.
*backlog*: full segments of 16 MiB (512 are 8 GiB), each sixteenth left by a dead writer, await `runshipper`.
*first_s* is from its start to the first rows in PostgreSQL, *rows_per_s* what it then writes by itself.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from telemetry._spool import HEADER_BYTES, HTTP, RECORD_BYTES, UDP, WS, UsageLog
from telemetry.backlog import Backlog
from telemetry.carriers import Queued
from telemetry.documents import encode
from telemetry.envelope import pack
from telemetry.packing import Packing
from telemetry.parameters import ShipperParameters, SpoolParameters
from telemetry.spool import Spool
from tests.benchmarks.bench_board import compile_beside
from tests.benchmarks.segments import fill_segment
from tests.fakes.sqs_proxy import SqsProxy
from tests.ministack import Ministack, install

DOLLARS = 0.40 / 1_000_000  # of one request
BILLED_BYTES = 64 * 1024
BILLION = 1_000_000_000
SEGMENT_BYTES = 16 * 1024 * 1024
CAPACITY = (SEGMENT_BYTES - HEADER_BYTES) // RECORD_BYTES


def busy_logs(count: int, seed: int = 5) -> Iterator[UsageLog]:
    """Usage logs as they come: some keys ask much more than others, prices move, latencies differ."""
    draw = random.Random(seed)
    keys = [draw.randrange(1, 100_000) for _ in range(1_000)]
    assets = [(f"AS{number}", draw.choice(EXCHANGES), draw.uniform(0.001, 90_000)) for number in range(150)]
    now_ns = time.time_ns()
    for _ in range(count):
        now_ns += int(draw.expovariate(1 / 50_000))
        key = keys[min(int(draw.paretovariate(0.8)), len(keys)) - 1]
        asset, (exchange, quote), price = assets[min(int(draw.paretovariate(0.7)), len(assets)) - 1]
        yield UsageLog(
            time_ns=now_ns,
            key_id=key,
            account_id=key * 7 % 90_001,
            month=202611,
            latency_us=int(draw.lognormvariate(3, 0.8)),
            status=200,
            assets=1,
            tier=1,
            source=WS,
            protocol=draw.choice((HTTP, UDP)),
            asset=asset,
            exchange=exchange,
            price=f"{price * draw.gauss(1, 0.0005):.{2 if price > 1 else 6}f}",
            quote=quote,
        )


EXCHANGES = (
    *(("coinbase", "USD"), ("kraken", "USD"), ("gemini", "USD")),
    *(("okx", "USDT"), ("bybit", "USDT"), ("cryptocom", "USDT")),
)


def write_logs(root: Path, logs: Iterator[UsageLog]) -> None:
    spool = Spool(root, node="Bench", row=1, parameters=SpoolParameters())
    for log in logs:
        while not spool.appender.append(log):
            spool.prepare()
    spool.close()


def measure_queue(folder: Path, *, records: int, batch: int) -> dict[str, Any]:
    """Publish so many logs, *batch* to an envelope, and count what SQS would bill for a billion of them."""
    if problem := install():
        return {"skipped": problem}
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trinity_site.settings.test")
    from trinity_site.celery import make_app, publish_to  # which asks for the settings

    root = folder / f"queue-{batch}"
    write_logs(root, busy_logs(records))
    packing = Packing(ShipperParameters(sqs_batch_size=batch, sqs_buffer_size=10_000_000))
    backlog = Backlog(root, packing)
    backlog.scan()
    for identity in packing.to_ask():
        packing.note_ledger(identity, [], None, 0)
    began_s = time.process_time()
    documents = [
        encode(pack(one))
        for part in packing.plan(0, flush=True)
        for one in backlog.read(part, Queued.payload_bytes)
    ]
    packing_s = time.process_time() - began_s
    server = Ministack(folder / "ministack.log")
    proxy = SqsProxy(server.port)
    app = make_app(proxy.url)
    try:
        publish_to(app, documents[0])
        proxy.bytes_sent.clear()
        began_s = time.process_time()
        for document in documents:
            publish_to(app, document)
        publishing_s = time.process_time() - began_s
    finally:
        proxy.close()
        server.close()
    return bill(records, proxy.bytes_sent) | {
        "batch": batch,
        "payload_bytes_per_record": round(sum(map(len, documents)) / records, 1),
        "pack_us_per_record": round(packing_s / records * 1e6, 3),
        "publish_cpu_ms_per_message": round(publishing_s / len(documents) * 1e3, 2),
    }


def bill(records: int, sizes: list[int]) -> dict[str, Any]:
    chunks = sum(math.ceil(size / BILLED_BYTES) for size in sizes)
    requests = 2 * chunks + len(sizes)  # sent and received by the piece, deleted by the message
    share = BILLION / records
    return {
        "messages": len(sizes),
        "longest_bytes": max(sizes),
        "messages_per_billion": round(len(sizes) * share),
        "requests_per_billion": round(requests * share),
        "dollars_per_billion": round(requests * share * DOLLARS, 2),
        "dollars_one_each": round(3 * BILLION * DOLLARS, 2),
        "dollars_in_tens": round(0.3 * BILLION * DOLLARS, 2),
    }


def make_backlog(appends: ModuleType, root: Path, segments: int) -> None:
    for number in range(1, segments + 1):
        records = CAPACITY - (number % 16 == 0)  # the last record of a dead writer is missing
        fill_segment(root, number, SEGMENT_BYTES, partial(appends.append_all, count=records)).close()


@contextmanager
def postgresql() -> Iterator[None]:
    from tests.services import start_services

    start_services()
    yield


def measure_backlog(folder: Path, *, segments: int, seconds: float) -> dict[str, Any]:
    from tests.system.usage import Installation

    installation, total = Installation(folder), segments * CAPACITY - segments // 16
    try:
        make_backlog(compile_beside("spool_appends", folder), installation.spool, segments)
        os.sync()
        began_s = time.monotonic()
        shipper = installation.start("runshipper")
        ready_s = time.monotonic() - began_s
        while not (rows := installation.rows()):
            time.sleep(0.01)
        first_s = time.monotonic() - began_s
        first_mib = peak_mib(shipper.pid)
        written = took_s = 0.0
        while took_s < seconds and rows + written < total:
            time.sleep(0.2)
            written, took_s = installation.rows() - rows, time.monotonic() - began_s - first_s
        peak = peak_mib(shipper.pid)
        shipper.stop(signal.SIGKILL)
    finally:
        installation.close()
    return {
        "bytes": segments * SEGMENT_BYTES,
        "records": total,
        "ready_s": round(ready_s, 2),
        "first_s": round(first_s, 2),
        "rss_at_first_mib": first_mib,
        "peak_rss_mib": peak,
        "rows_per_s": round(written / took_s),
    }


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmHWM"))


def measure(*, segments: int, seconds: float, records: int, folder: Path | None = None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as name, postgresql():
        return {
            "queue": [
                measure_queue(Path(name), records=records, batch=5_000),
                measure_queue(Path(name), records=records // 10, batch=100),
            ],
            "backlog": measure_backlog(Path(name), segments=segments, seconds=seconds),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--segments", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="a folder on the disk that is to be measured")
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
