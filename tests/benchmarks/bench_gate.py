"""Measure the gate and print JSON: nanoseconds per admitted request from C and from Python, and per hash.

``python -m tests.benchmarks.bench_gate [KEYS ...]``. Every key has a rate and a cap that admit all. *hot*
asks for one key again and again, *random* for all of them in random order, so that the gate's own cost is
told from the memory's: *memory_access* is one word of the index and one of a row, one load after the other.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

from billing import keys
from billing._admission import hash_key
from billing._gate import Gate, GateKey
from billing._gate_writer import GateWriter
from tests.benchmarks.bench_board import compile_beside, per_call_ns
from trinity_site.shared_memory import open_gate, open_gate_writer

ASKS = 200_000


def measure(count: int, asks: ModuleType, data_dir: Path) -> dict[str, object]:
    texts = [keys.generate(os.urandom) for _ in range(count)]
    digests = [keys.digest(text) for text in texts]
    with (
        open_gate_writer("Bench", data_dir, rows=count) as writer,
        open_gate("Bench", data_dir, rows=count) as gate,
    ):
        began = time.perf_counter()
        fill(writer, digests)
        filled = time.perf_counter()
        writer.changed()
        looked = time.perf_counter()
        order = random.Random(1).choices(range(count), k=ASKS)
        return {
            "keys": count,
            "fill_s": round(filled - began, 2),
            "changed_ms": round((looked - filled) * 1000, 1),
            "hot_ns": visit(gate, asks, texts[:1] * ASKS, digests[:1] * ASKS),
            "random_ns": visit(gate, asks, [texts[i] for i in order], [digests[i] for i in order]),
        }


def fill(writer: GateWriter, digests: list[bytes]) -> None:
    writer.set_month(202611, 0)
    for number, digest in enumerate(digests):
        writer.put(GateKey(digest, number, emission_ns=1, burst=1_000_000, cap=1_000_000_000_000))


def visit(
    gate: Gate, asks: ModuleType, texts: list[str], digests: list[bytes]
) -> dict[str, dict[str, float]]:
    # A copy of each text, as a request brings one: what lies together in memory is read together.
    asked = [text.encode() for text in texts]
    now = time.monotonic_ns()
    assert asks.admit_all(gate, asked, now) == ASKS
    return {
        "memory_access": per_call_ns(ASKS, lambda: asks.touch_rows(gate, digests, 0)),
        "c_admit": per_call_ns(ASKS, lambda: asks.admit_all(gate, asked, time.monotonic_ns())),
        "c_admit_digest": per_call_ns(ASKS, lambda: asks.admit_digests(gate, digests, time.monotonic_ns())),
        "python_admit": per_call_ns(ASKS, lambda: admit_all(gate, asked, time.monotonic_ns())),
    }


def admit_all(gate: Gate, asked: list[bytes], mono_ns: int) -> None:
    admit = gate.admit
    for key in asked:
        admit(key, mono_ns, 1)


def hash_all(key: bytes, *, portable: bool) -> None:
    for _ in range(ASKS):
        hash_key(key, portable=portable)


def main(sizes: list[int]) -> None:
    key = keys.generate(os.urandom).encode()
    with tempfile.TemporaryDirectory() as folder:
        asks = compile_beside("gate_asks", Path(folder))
        gates = [measure(count, asks, Path(folder)) for count in sizes]
    hashes = {
        name: per_call_ns(ASKS, lambda: hash_all(key, portable=name == "portable"))  # noqa: B023  # called at once
        for name in ("fastest", "portable")
    }
    print(json.dumps({"gates": gates, "python_hash_ns": hashes}))


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [10, 1_000_000])
