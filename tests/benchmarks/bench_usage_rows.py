"""Measure how fast usage logs get into PostgreSQL, and print JSON: against a bare COPY of the same rows.

    python -m tests.benchmarks.bench_usage_rows [--records 200000] [--rounds 10]

*bare* is a COPY BINARY of rows that were made beforehand into a table like usage_logs, with its key and a
partition, in transactions of as many rows. *ours* is `write_envelopes`: envelopes are opened and checked,
rows are made and copied, sums and ledger written. *share* is the median of each round's ours to bare, which
take turns in going first. What answers have in common decides how many sums there are
(*sums_per_transaction*); *fold_s* is what it takes to fold those of all records, which is done once a minute.
No commit waits for a disk: the server is the tests'.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tests.services import start_services

DAY = "2026-11-23"
START_NS = 1_795_392_000_000_000_000  # of that day
ENVELOPE = 5_000  # records, as a shipper packs them


class Load(NamedTuple):
    keys: int
    assets: int
    envelopes: int
    """In one transaction."""


LOADS = (Load(100, 25, 1), Load(100, 25, 10), Load(10_000, 150, 1), Load(10_000, 150, 10))
BARE = (
    "DROP TABLE IF EXISTS bare",
    "CREATE TABLE bare (LIKE usage_logs INCLUDING ALL) PARTITION BY RANGE (at)",
    "CREATE TABLE bare_default PARTITION OF bare DEFAULT",
    f"CREATE TABLE bare_day PARTITION OF bare FOR VALUES FROM ('{DAY} 00:00+00') TO ('{DAY} 24:00+00')",
)
CLEAR = (
    "TRUNCATE bare, usage_logs, usage_segments, usage_ledger",
    "TRUNCATE usage_parts, usage_folded_hours, usage_folded_months",
    "CHECKPOINT",
)


def open_database() -> None:
    start_services()
    os.environ["DJANGO_SETTINGS_MODULE"] = "trinity_site.settings.test"
    import django  # what it is set up with has been started only now

    django.setup()
    from django.core.management import call_command

    call_command("migrate", "telemetry", verbosity=0)


class Bench:
    """One load; everything of Django and the models is imported once there is a database."""

    def __init__(self, load: Load, records: int) -> None:
        from telemetry.envelope import read_records

        self.records = records
        envelopes = make_envelopes(load, records)
        self.calls = [envelopes[at : at + load.envelopes] for at in range(0, len(envelopes), load.envelopes)]
        self.opened = [[read_records(envelope) for envelope in call] for call in self.calls]

    def sums(self) -> int:
        from telemetry._rows import Groups

        groups = Groups()
        for records in self.opened[0]:
            groups.add(records)
        return len(groups.rows(""))

    def bare(self) -> float:
        """Give rows a second."""
        from django.db import connection, transaction

        from telemetry._rows import COLUMNS, COPY_HEADER, COPY_TRAILER, copy_rows

        made = [
            b"".join([COPY_HEADER, *(copy_rows(records, 1) for records in call), COPY_TRAILER])
            for call in self.opened
        ]
        statement = f"COPY bare ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
        began = time.perf_counter()
        for rows in made:
            with transaction.atomic(), connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(rows)
        return self.records / (time.perf_counter() - began)

    def ours(self) -> float:
        from telemetry.folding import fold_when_due
        from telemetry.ledger import write_envelopes

        fold_when_due()  # so that it is not due for a minute
        began = time.perf_counter()
        for call in self.calls:
            write_envelopes(call)
        return self.records / (time.perf_counter() - began)

    def fold_s(self) -> float:
        from telemetry.folding import fold

        began = time.perf_counter()
        fold()
        return time.perf_counter() - began

    def clear(self) -> None:
        execute(CLEAR)


def execute(statements: Sequence[str]) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def make_envelopes(load: Load, records: int) -> list[Any]:  # Any: of a module that needs Django
    """Answers to keys and for assets of which the first are by far the most frequent."""
    from telemetry._spool import HEADER_BYTES, RECORD_BYTES, Appender, Tally, make_header
    from telemetry.envelope import Envelope, compress

    size = (HEADER_BYTES + records * RECORD_BYTES) // 4096 * 4096 + 4096
    memory = bytearray(make_header("Bench", 1, START_NS, size, START_NS)).ljust(size, b"\0")
    appender = Appender()
    appender.publish(memory)
    for log in make_logs(load, records):
        appender.append(log)
    places = memoryview(memory)[HEADER_BYTES:]
    return [
        Envelope(
            node="Bench",
            segment=f"1-{START_NS}",
            boot_ns=START_NS,
            offset=offset,
            count=ENVELOPE,
            damaged=0,
            final=False,
            tally=Tally(0, 0, 0, 0, 0),
            payload=compress(places[offset * RECORD_BYTES : (offset + ENVELOPE) * RECORD_BYTES]),
        )
        for offset in range(0, records, ENVELOPE)
    ]


def make_logs(load: Load, records: int) -> list[Any]:
    from telemetry._spool import UsageLog

    choice = random.Random(1)
    keys = choice.choices(range(load.keys), [1 / (key + 1) for key in range(load.keys)], k=records)
    assets = choice.choices(range(load.assets), [1 / (asset + 1) for asset in range(load.assets)], k=records)
    return [
        UsageLog(
            time_ns=START_NS + number * 50_000,
            key_id=key + 1,
            account_id=key // 2 + 1,
            month=202611,
            latency_us=choice.randrange(300),
            status=200,
            assets=1,
            tier=1,
            source=1,
            protocol=number & 1,
            asset=f"A{asset}",
            exchange="coinbase",
            price=f"{60_000 + number % 977}.{number % 100:02}",
            quote="USD",
        )
        for number, (key, asset) in enumerate(zip(keys, assets, strict=True))
    ]


def measure_load(load: Load, records: int, rounds: int) -> dict[str, Any]:
    bench = Bench(load, records)
    figures: dict[str, list[float]] = {"bare": [], "ours": [], "fold_s": []}
    steps: dict[str, Callable[[], float]] = {"bare": bench.bare, "ours": bench.ours, "fold_s": bench.fold_s}
    for turn in range(rounds):
        bench.clear()
        for name in ("ours", "bare", "fold_s") if turn % 2 else ("bare", "ours", "fold_s"):
            figures[name].append(steps[name]())
    rounds_of = list(zip(figures["ours"], figures["bare"], figures["fold_s"], strict=True))
    shares = [ours / bare for ours, bare, _ in rounds_of]
    folded = [records / (records / ours + fold_s) / bare for ours, bare, fold_s in rounds_of]
    return load._asdict() | {
        "records_per_transaction": load.envelopes * ENVELOPE,
        "sums_per_transaction": bench.sums(),
        "bare_rows_per_s": round(statistics.median(figures["bare"])),
        "rows_per_s": round(statistics.median(figures["ours"])),
        "share": round(statistics.median(shares), 3),
        "share_folded": round(statistics.median(folded), 3),
        "shares": [round(share, 3) for share in shares],
        "fold_s": round(statistics.median(figures["fold_s"]), 3),
        "payload_bytes_per_record": round(len(bench.calls[0][0].payload) / ENVELOPE, 1),
    }


def measure(records: int, rounds: int) -> dict[str, Any]:
    open_database()
    execute(BARE)
    from datetime import UTC, datetime

    from django.db import connection

    from telemetry.partitions import make_day

    make_day(connection, datetime.fromtimestamp(START_NS / 1e9, UTC).date())
    return {"records": records, "loads": [measure_load(load, records, rounds) for load in LOADS]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=10)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
