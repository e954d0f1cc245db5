"""CPU per UDP answer of one worker, beside the machine's limit and Go in one run, and what many rows cost.

    python -m tests.benchmarks.bench_udp [--seconds 3] [--rounds 3] [--keys 1000000] [--assets 10000]

The first part is yardsticks/bench.py udp with a keyed request, for clients with 8, 32 and 1 requests in
flight. The second measures two workers in turns: one with ten keys and 150 assets, one with very many of
both; each request has another key and another asset. Needs gcc and taskset; Go is left out where it is not
installed. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from billing import keys
from billing._gate import GateKey
from tests.benchmarks.bench_http import fresh_price
from tests.benchmarks.node import BenchNode, bench_node
from tests.benchmarks.yardsticks import bench
from udp_engine._load import UDP, Load
from udp_engine.stress import ID
from udp_engine.wire import build_request

BENCH = Path(__file__).parent / "yardsticks" / "bench.py"
CLIENTS = {"8": (64, 8), "32": (64, 32), "1": (512, 1)}  # in flight on each socket: sockets, window
ASKED = 50_000  # different requests that are sent in turn
SERVER_CPU, CLIENT_CPU = 0, 1
FEW_KEYS, FEW_ASSETS = 10, 150
LIST_ASSETS = """
from exchanges.models import ExchangeAsset
ExchangeAsset.objects.all().delete()
names = [f"A{number}" for number in range(%d)]
row = {"exchange_id": "coinbase", "category": "Infrastructure", "home": True}
ExchangeAsset.objects.bulk_create(ExchangeAsset(asset=name, symbol=f"{name}-USD", **row) for name in names)
"""


def measure(*, seconds: int, rounds: int, key_count: int, asset_count: int) -> dict[str, Any]:
    """Return both parts, or say what is missing."""
    if missing := [tool for tool in ("gcc", "taskset") if shutil.which(tool) is None]:
        return {"skipped": f"not installed: {', '.join(missing)}"}
    return {
        "clients": measure_clients(seconds=seconds, rounds=rounds),
        "rows": measure_rows(
            seconds=seconds, rounds=rounds + 2, sizes=[(FEW_KEYS, FEW_ASSETS), (key_count, asset_count)]
        ),
    }


def measure_clients(*, seconds: int, rounds: int) -> dict[str, Any]:
    """Return what bench.py reports, by requests in flight on a socket."""
    with bench_node() as node, fresh_price(node):
        key = node.make_key()
        node.start("runkeyring")
        pid = node.start("runudp", "--workers", "1")
        node.wait_for_udp(key)
        request = json.dumps({"asset": "BTC", "api_key": key}, separators=(",", ":"))
        command = [sys.executable, str(BENCH), "udp", "--pid", str(pid), "--port", str(node.udp_port)]
        command += ["--request", request, "--seconds", str(seconds), "--rounds", str(rounds)]
        reports = {}
        for name, (sockets, window) in CLIENTS.items():
            client = ["--sockets", str(sockets), "--window", str(window)]
            done = subprocess.run([*command, *client], check=True, capture_output=True, text=True)
            reports[name] = json.loads(done.stdout)
        return reports


class Site:
    """A worker whose gate has so many keys, and its board so many assets."""

    def __init__(self, node: BenchNode, size: tuple[int, int], stack: contextlib.ExitStack) -> None:
        self.size = size
        key_count, asset_count = size
        node.environment["TRINITY_GATE_ROWS"] = str(max(key_count, 1_024))
        node.environment["TRINITY_BOARD_SLOTS"] = str(max(2 * asset_count, 4_096))
        node.manage("shell", "-v0", "-c", LIST_ASSETS % asset_count)
        assets = [f"A{number}" for number in range(asset_count)]
        texts = fill_gate(node, key_count, stack)
        stack.enter_context(fresh_price(node, assets))
        self._pid = node.start("runudp", "--workers", "1")
        node.wait_for_udp(texts[0], assets[-1])
        asked = zip(random.choices(assets, k=ASKED), random.choices(texts, k=ASKED), strict=True)
        requests = [build_request(asset, key, id=ID) for asset, key in asked]
        sockets, window = CLIENTS["8"]
        address = ("127.0.0.1", node.udp_port)
        self._load = stack.enter_context(
            contextlib.closing(Load(UDP, address, requests, most=sockets, window=window))
        )
        self._load.grow(sockets)

    def ask(self, seconds: int) -> tuple[float, float]:
        """Return µs of CPU per answer, and answers per second."""
        pids = bench.process_tree(self._pid)
        bench.pin(pids, SERVER_CPU)
        os.sched_setaffinity(0, {CLIENT_CPU})  # of this thread alone
        before_s = bench.cpu_seconds(pids)
        self._load.run(seconds)
        spent_s = bench.cpu_seconds(pids) - before_s
        reading = self._load.reading()
        if reading.answered != reading.sent:
            raise RuntimeError(
                f"of {reading.sent} requests {reading.lost} were lost, refused {reading.errors}"
            )
        return spent_s * 1e6 / reading.answered, reading.timely * 1e9 / reading.sending_ns


def fill_gate(node: BenchNode, count: int, stack: contextlib.ExitStack) -> list[str]:
    """Put *count* keys that admit all into the node's gate; return them."""
    from trinity_site.shared_memory import open_gate_writer

    rows = int(node.environment["TRINITY_GATE_ROWS"])
    gate = stack.enter_context(open_gate_writer("Bench", node.folder, rows=rows))
    gate.set_month(int(time.strftime("%Y%m", time.gmtime())), 0)
    texts = [keys.generate(os.urandom) for _ in range(count)]
    limits = {"emission_ns": 1, "burst": 1_000_000, "cap": 1_000_000_000_000}
    for number, text in enumerate(texts, 1):
        gate.put(GateKey(keys.digest(text), number, **limits))
    gate.beat(time.monotonic_ns())
    return texts


def measure_rows(*, seconds: int, rounds: int, sizes: list[tuple[int, int]]) -> dict[str, Any]:
    """Return the cost for each number of keys and assets, medians of rounds in turns."""
    with contextlib.ExitStack() as stack:
        sites = [Site(stack.enter_context(bench_node()), size, stack) for size in sizes]
        runs: dict[tuple[int, int], list[tuple[float, float]]] = {size: [] for size in sizes}
        for _ in range(rounds):
            for site in sites:
                runs[site.size].append(site.ask(seconds))
    rows = [
        {
            "keys": key_count,
            "assets": asset_count,
            "cpu_us_per_answer": round(statistics.median(cost for cost, _ in asked), 2),
            "answers_per_s": round(statistics.median(rate for _, rate in asked)),
        }
        for (key_count, asset_count), asked in runs.items()
    ]
    ratio = rows[-1]["cpu_us_per_answer"] / rows[0]["cpu_us_per_answer"]
    return {"sizes": rows, "ratio": round(ratio, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keys", type=int, default=1_000_000, dest="key_count")
    parser.add_argument("--assets", type=int, default=10_000, dest="asset_count")
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
