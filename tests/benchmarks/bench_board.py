"""Measure the board and print JSON: nanoseconds per read from C and from Python, and per write.

``python -m tests.benchmarks.bench_board [SLOTS ...]``. Every asset is listed on six exchanges. *cold* visits
all slots in random order, *hot* 150 of them, so that the look-up is told from the memory: *memory_access* is
one load that waits for the one before, in the same order. *median* and *best* are over the rounds.
"""

from __future__ import annotations

import importlib.util
import json
import random
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from Cython.Build import cythonize
from setuptools import Distribution, Extension

from pricing._board import BoardReader
from pricing._board_writer import BoardWriter
from telemetry._counters import TCP_REQUESTS, Counters, counters_size, format_counters
from trinity_site.shared_memory import open_board_reader, open_board_writer

HERE = Path(__file__).parent
EXCHANGES = ["coinbase", "kraken", "okx", "bybit", "kucoin", "gateio"]
READS, ROUNDS = 100_000, 9
Place = tuple[str, str, int]  # asset, exchange, slot


def compile_beside(name: str, folder: Path) -> ModuleType:
    """Build the Cython module *name* of this folder outside of the source tree, and import it."""
    source = Extension(name, [str(HERE / f"{name}.pyx")], extra_compile_args=["-O3"])
    modules = cythonize([source], build_dir=str(folder), include_path=[str(HERE.parents[1])], quiet=True)
    build = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    build.build_lib = build.build_temp = str(folder)
    build.ensure_finalized()
    build.run()
    spec = importlib.util.spec_from_file_location(name, next(folder.glob(f"{name}.*.so")))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def per_call_ns(calls: int, run: Callable[[], object]) -> dict[str, float]:
    figures = []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        run()
        figures.append((time.perf_counter_ns() - start) / calls)
    return {"median": round(statistics.median(figures), 1), "best": round(min(figures), 1)}


def fill(writer: BoardWriter, slots: int) -> list[Place]:
    for name in EXCHANGES:
        writer.set_exchange(name, source=f"{name}-ws", quote="USD")
    places = []
    for number in range(slots):
        asset, exchange = f"A{number // len(EXCHANGES):05}", EXCHANGES[number % len(EXCHANGES)]
        slot = writer.place(asset, exchange)
        writer.set_home(asset, exchange)
        writer.write(slot, "67123.45", 1, 2, 3)
        places.append((asset, exchange, slot))
    random.Random(1).shuffle(places)
    return places


def measure(slots: int, reads: ModuleType, data_dir: Path) -> dict[str, object]:
    with (
        open_board_writer("Bench", data_dir, slots=slots) as writer,
        open_board_reader("Bench", data_dir, slots=slots) as reader,
    ):
        places = fill(writer, slots)
        return {
            "slots": slots,
            "cold_ns": visit(writer, reader, reads, places),
            "hot_ns": visit(writer, reader, reads, places[:150]),
        }


def visit(
    writer: BoardWriter, reader: BoardReader, reads: ModuleType, places: list[Place]
) -> dict[str, dict[str, float]]:
    places = (places * (READS // len(places) + 1))[:READS]
    assets, exchanges, slots = zip(*places, strict=True)
    c_assets, c_exchanges = [a.encode() for a in assets], [e.encode() for e in exchanges]
    numbers = array("q", slots)
    assert reads.read_prices(reader, c_assets, c_exchanges, 1) == READS
    return {
        "memory_access": per_call_ns(READS, lambda: reads.touch_slots(reader, numbers, 0)),
        "c_read": per_call_ns(READS, lambda: reads.read_prices(reader, c_assets, c_exchanges, 1)),
        "c_best": per_call_ns(READS, lambda: reads.read_bests(reader, c_assets, 1, 4, 10)),
        "python_get": per_call_ns(READS, lambda: get_all(reader, places)),
        "python_best": per_call_ns(READS, lambda: best_all(reader, places)),
        "python_write": per_call_ns(READS, lambda: write_all(writer, places)),
    }


def get_all(reader: BoardReader, places: list[Place]) -> None:
    get = reader.get
    for asset, exchange, _ in places:
        get(asset, exchange)


def best_all(reader: BoardReader, places: list[Place]) -> None:
    best = reader.best
    for asset, _, _ in places:
        best(asset, 4, 10)


def write_all(writer: BoardWriter, places: list[Place]) -> None:
    write = writer.write
    for _, _, slot in places:
        write(slot, "67123.45", 1, 2, 3)


def add_all(counters: Counters) -> None:
    add = counters.add
    for _ in range(READS):
        add(TCP_REQUESTS)


def main(sizes: list[int]) -> None:
    memory = bytearray(counters_size())
    format_counters(memory)
    counters = Counters(memory, 0)
    with tempfile.TemporaryDirectory() as folder:
        reads = compile_beside("board_reads", Path(folder))
        boards = [measure(slots, reads, Path(folder)) for slots in sizes]
    print(
        json.dumps({"boards": boards, "python_counter_add_ns": per_call_ns(READS, lambda: add_all(counters))})
    )


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [150, 4096, 100_000])
