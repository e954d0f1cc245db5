"""Measure reports out of PostgreSQL through a real report worker over HTTP, and print JSON.

    python -m tests.benchmarks.bench_reports [--rows 10000000]

*csv* streams every record of one key; *most_mb* is the largest that the worker's memory became meanwhile.
*summary* are reports of a month of a busy key: 720 hours × 150 assets × what else differs in them. No commit
waits for a disk: the server is the tests'.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from tests.benchmarks.node import BenchNode
from tests.services import start_services

PIECE_BYTES = 1 << 20
MONTH = "from=2026-11-01&to=2026-12-01"
SUMMARIES = ("", "group_by=day", "group_by=asset", "group_by=day,source,status", "asset=A7&group_by=hour")
FULL_ASSETS = "group_by=hour,asset&limit=10000"
DAYS = """
    SELECT format('CREATE TABLE usage_logs_%s PARTITION OF usage_logs FOR VALUES FROM (%L) TO (%L)',
        to_char(day, 'YYYYMMDD'), day, day + interval '1 day')
    FROM generate_series(timestamptz '2026-11-01 00:00+00', timestamptz '2026-11-30 00:00+00', '1 day') AS day
"""
LOGS = """
    INSERT INTO usage_logs (at, account_id, key_id, segment_id, sequence, month, latency_us, status, assets,
        tier, source, protocol, endpoint, simulated, asset, exchange, price, quote)
    SELECT timestamptz '2026-11-01 00:00+00' + n * (interval '30 days' / %(rows)s),
        %(account)s, %(key)s, 1, n, 202611, n %% 500, 200, 1,
        1, 1, n %% 2, 0, false, 'A' || n %% 150, 'coinbase', '67123.' || n %% 1000, 'USD'
    FROM generate_series(0, %(rows)s - 1) AS n
"""
HOURS = """
    INSERT INTO usage_folded_hours (hour, account_id, key_id, month, asset, exchange, source, simulated,
        protocol, endpoint, status, tier, answers, assets, latency_us, latency_us_max)
    SELECT timestamptz '2026-11-01 00:00+00' + h * interval '1 hour',
        %(account)s, %(key)s, 202611, 'A' || a, 'coinbase', 1, false, p, 0, s, 1, 50, 50, 2000, 400
    FROM generate_series(0, 719) AS h, generate_series(0, 149) AS a, generate_series(0, 1) AS p,
        unnest(ARRAY[200, 503]) AS s
"""


@contextlib.contextmanager
def report_node(rows: int, database: str, *, hours: bool = True) -> Iterator[tuple[BenchNode, int, str]]:
    """Yield a node with a report worker, its process id and a key that has so many records there."""
    folder = Path(tempfile.mkdtemp(prefix="trinity-bench-"))
    node = BenchNode(folder)
    node.environment["DATABASE_URL"] = database
    node.environment["SERVER_TYPE"] = "REPORT_SERVER"
    node.environment["TRINITY_REPORTS_PORT"] = str(node.http_port)
    node.environment["TRINITY_REPORTS_HEALTH_PORT"] = str(node.health_port)
    try:
        node.manage("migrate", "--verbosity", "0")
        node.manage("seed")
        key = node.make_key()
        fill(rows, database, hours=hours)
        node.start("runkeyring")
        pid = node.start("runreports")
        node.wait_for_http("/health/ready")
        yield node, pid, key
    finally:
        node.close()
        shutil.rmtree(folder, ignore_errors=True)


def fill(rows: int, database: str, *, hours: bool) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        found = connection.execute("SELECT id, account_id FROM billing_api_key").fetchone()
        assert found is not None
        names = {"rows": rows, "key": found[0], "account": found[1]}
        for (statement,) in connection.execute(DAYS).fetchall():
            connection.execute(statement)
        connection.execute(LOGS, names)
        if hours:
            connection.execute(HOURS, names)
        connection.execute("VACUUM ANALYZE")


def ask(node: BenchNode, key: str, path: str) -> tuple[float, float, int, int]:
    """Return the seconds to the first byte and to the last, the bytes and the lines."""
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=600)
    begun_s = time.perf_counter()
    connection.request("GET", path, headers={"X-API-Key": key})
    answer = connection.getresponse()
    first_s = time.perf_counter() - begun_s
    if answer.status != 200:
        raise RuntimeError(answer.read().decode())
    size = lines = 0
    while piece := answer.read(PIECE_BYTES):
        size += len(piece)
        lines += piece.count(b"\n")
    connection.close()
    return first_s, time.perf_counter() - begun_s, size, lines


def most_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(rows: int, database: str) -> dict[str, Any]:
    with report_node(rows, database) as (node, pid, key):
        idle_mb = most_mb(pid)
        summaries = {}
        for question in (*SUMMARIES, FULL_ASSETS):
            address = "/reports/summary?" + "&".join(filter(None, (MONTH, question)))
            times_ms = [ask(node, key, address)[1] * 1_000 for _ in range(5)]
            summaries[question or "totals"] = round(statistics.median(times_ms))
        first_s, whole_s, size, lines = ask(node, key, f"/reports/usage?{MONTH}&format=csv")
        if lines != rows + 1:
            raise RuntimeError(f"{lines - 1} rows came, not {rows}")
        return {
            "csv": {
                "rows": rows,
                "first_ms": round(first_s * 1_000),
                "seconds": round(whole_s, 1),
                "rows_per_s": round(rows / whole_s),
                "mb": round(size / 1e6),
                "idle_mb": round(idle_mb),
                "most_mb": round(most_mb(pid)),
            },
            "summary_ms": summaries,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = parser.parse_args().rows
    start_services()
    print(json.dumps(measure(rows, os.environ["DATABASE_URL"]), indent=2))


if __name__ == "__main__":
    main()
