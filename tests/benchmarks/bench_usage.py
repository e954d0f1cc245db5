"""What a usage record adds to an answer over HTTP and over UDP, two nodes in turns in one run; prints JSON.

    python -m tests.benchmarks.bench_usage [--seconds 1] [--rounds 31]

One node records; the other one's spool can make no segment, and it sheds. CPU is that of a worker on a core
of its own, its threads that prepare and sync segments included, over answers. What counts is the median of
the rounds' ratios: the machine is a faster or a slower one for seconds at a time, so the two of a round
follow each other at once, and take turns in going first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
from typing import Any

from tests.benchmarks.bench_http import fresh_price
from tests.benchmarks.node import BenchNode, bench_node
from tests.benchmarks.yardsticks import bench
from udp_engine._load import HTTP, UDP, Load
from udp_engine.stress import ID
from udp_engine.wire import build_request

SERVER_CPU, CLIENT_CPU = 0, 1
SOCKETS, WINDOW = 64, 8  # requests in flight on each socket over UDP; over HTTP one


class Site:
    """A node with a worker of each kind, which records or has nowhere to."""

    def __init__(self, node: BenchNode, stack: contextlib.ExitStack, *, records: bool) -> None:
        if not records:
            (node.folder / "spool").touch()  # a file where the folder should be
            node.environment["TRINITY_SPOOL_FULL"] = "shed"
        stack.enter_context(fresh_price(node))
        key = node.make_key()
        node.start("runkeyring")
        self._workers = {"http": node.start("runhttp"), "udp": node.start("runudp", "--workers", "1")}
        node.wait_for_http()
        node.wait_for_udp(key)
        self._loads = {
            "http": load(HTTP, node.http_port, http_request(key), 1, stack),
            "udp": load(UDP, node.udp_port, build_request("BTC", key, id=ID), WINDOW, stack),
        }

    def ask(self, way: str, seconds: int) -> float:
        """Return µs of CPU per answer."""
        pids, asking = bench.process_tree(self._workers[way]), self._loads[way]
        bench.pin(pids, SERVER_CPU)
        os.sched_setaffinity(0, {CLIENT_CPU})  # of this thread alone
        before_s = bench.cpu_seconds(pids)
        asking.grow(SOCKETS)  # not before: connections that say nothing are closed
        asking.run(seconds)
        spent_s, reading = bench.cpu_seconds(pids) - before_s, asking.reading()
        if reading.answered != reading.sent:
            raise RuntimeError(f"of {reading.sent} {reading.lost} were lost, refused {reading.errors}")
        return float(spent_s * 1e6 / reading.answered)


def http_request(key: str) -> bytes:
    return b"GET /price?asset=BTC HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %b\r\n\r\n" % key.encode()


def load(protocol: int, port: int, request: bytes, window: int, stack: contextlib.ExitStack) -> Load:
    made = Load(protocol, ("127.0.0.1", port), [request], most=SOCKETS, window=window)
    stack.enter_context(contextlib.closing(made))
    return made


def measure(*, seconds: int, rounds: int) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        sites = {
            kind: Site(stack.enter_context(bench_node()), stack, records=kind == "with")
            for kind in ("with", "without")
        }
        found: dict[str, dict[str, list[float]]] = {
            way: {kind: [] for kind in sites} for way in ("http", "udp")
        }
        for turn in range(rounds):
            for way, kinds in found.items():
                for kind in list(sites)[:: -1 if turn % 2 else 1]:
                    kinds[kind].append(sites[kind].ask(way, seconds))
    return {"seconds": seconds, "rounds": rounds} | {way: summary(kinds) for way, kinds in found.items()}


def summary(kinds: dict[str, list[float]]) -> dict[str, Any]:
    medians = {kind: statistics.median(costs) for kind, costs in kinds.items()}
    ratios = [one / other for one, other in zip(kinds["with"], kinds["without"], strict=True)]
    return {f"{kind}_us": round(median, 3) for kind, median in medians.items()} | {
        "ratio": round(statistics.median(ratios), 3),
        "quartiles": [round(ratio, 3) for ratio in statistics.quantiles(ratios)[::2]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=31)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
