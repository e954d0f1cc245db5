"""CPU per `/price` answer of one HTTP worker, beside nginx's fixed reply and Go's net/http in the same run.

    python -m tests.benchmarks.bench_http [--seconds 3] [--rounds 3] [--connections 64]

Needs wrk and nginx (Debian: wrk, nginx-light); Go is left out where it is not installed. Prints one JSON
document.
"""

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.node import BenchNode, bench_node

BENCH = Path(__file__).parent / "yardsticks" / "bench.py"


def measure(*, seconds: int, rounds: int, connections: int) -> dict[str, Any]:
    """Return what bench.py reports, or say what is missing."""
    if missing := [tool for tool in ("wrk", "nginx", "taskset") if shutil.which(tool) is None]:
        return {"skipped": f"not installed: {', '.join(missing)}"}
    with bench_node() as node, fresh_price(node):
        key = node.make_key()
        node.start("runkeyring")
        pid = node.start("runhttp")
        node.wait_for_http()
        time.sleep(1)  # the tables are read
        command = [sys.executable, str(BENCH), "http", "--pid", str(pid)]
        command += ["--url", f"http://127.0.0.1:{node.http_port}/price?asset=BTC"]
        command += ["--header", f"X-API-Key: {key}"]
        command += ["--seconds", str(seconds), "--rounds", str(rounds), "--connections", str(connections)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # type: ignore[no-any-return]


class fresh_price:  # reads as a context manager
    """Writes prices to the board ten times a second, as a feed process would."""

    def __init__(self, node: BenchNode, assets: Sequence[str] = ("BTC",)) -> None:
        self._node = node
        self._assets = assets
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fresh price")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        from trinity_site.shared_memory import open_board_writer

        slots = int(self._node.environment.get("TRINITY_BOARD_SLOTS", "4096"))
        with open_board_writer("Bench", self._node.folder, slots=slots) as board:
            board.set_exchange("coinbase", source="coinbase-ws", quote="USD")
            places = [board.place(asset, "coinbase") for asset in self._assets]
            for asset in self._assets:
                board.set_home(asset, "coinbase")
            while not self._stop.wait(0.1):
                now_ns, mono_ns = time.time_ns(), time.monotonic_ns()
                for place in places:
                    board.write(place, "67123.45", now_ns - 42_000_000, now_ns, mono_ns)
                board.beat(mono_ns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
