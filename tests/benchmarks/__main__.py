"""`./run bench`: run every benchmark, print progress, and write docs/benchmarks.md.

./run bench             all of it, about thirty-five minutes, ten of them one long run over UDP
./run bench --quick     small counts, to see that it works; writes nothing
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks import (
    bench_frames,
    bench_http,
    bench_keys,
    bench_levels,
    bench_second,
    bench_soak,
    bench_socket,
    bench_udp,
    bench_usage,
    bench_visible,
)
from tests.benchmarks.report import report
from udp_engine.stress import LEVELS

REPORT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


class Size(NamedTuple):
    """How much of everything."""

    frames: int
    socket_frames: int
    trades: int
    seconds: int
    rounds: int
    keys: int
    assets: int
    levels: tuple[int, ...]
    soak_minutes: float
    segments: int
    records: int
    rows: int


FULL = Size(
    frames=20_000,
    socket_frames=200_000,
    trades=2_000,
    seconds=3,
    rounds=5,
    keys=1_000_000,
    assets=10_000,
    levels=LEVELS,
    soak_minutes=10,
    segments=512,
    records=200_000,
    rows=10_000_000,
)
QUICK = Size(
    frames=2_000,
    socket_frames=20_000,
    trades=100,
    seconds=1,
    rounds=1,
    keys=1_000,
    assets=500,
    levels=(30, 500),
    soak_minutes=0.2,
    segments=8,
    records=20_000,
    rows=10_000,
)


def _command(name: str, *arguments: object) -> Any:  # Any: the JSON of a command
    """Run a benchmark that compiles a module of its own, in a process of its own."""
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


BENCHMARKS: dict[str, Callable[[Size], Any]] = {
    "board": lambda size: _command("bench_board"),
    "gate": lambda size: _command("bench_gate", 10, size.keys),
    "frames": lambda size: bench_frames.measure(frames=size.frames, rounds=max(size.rounds, 2) * 2),
    "socket": lambda size: bench_socket.measure(frames=size.socket_frames, rounds=size.rounds),
    "visible": lambda size: bench_visible.measure(trades=size.trades),
    "http": lambda size: bench_http.measure(seconds=size.seconds, rounds=size.rounds, connections=64),
    "keys": lambda size: bench_keys.measure(
        counts=[10, size.keys], seconds=size.seconds, rounds=size.rounds + 2
    ),
    "udp": lambda size: bench_udp.measure(
        seconds=size.seconds, rounds=size.rounds, key_count=size.keys, asset_count=size.assets
    ),
    "spool": lambda size: _command("bench_spool"),
    "usage": lambda size: bench_usage.measure(seconds=1, rounds=size.rounds * 6),
    "shipper": lambda size: _command("bench_shipper", "--segments", size.segments),
    "rows": lambda size: _command("bench_usage_rows", "--records", size.records, "--rounds", size.rounds * 2),
    "reports": lambda size: _command("bench_reports", "--rows", size.rows),
    "second": lambda size: bench_second.measure(
        seconds=size.seconds + 1, rounds=min(size.rounds, 3), share=0.15
    ),
    "soak": lambda size: bench_soak.measure(minutes=size.soak_minutes, share=0.7),
    "levels": lambda size: bench_levels.measure(seconds=size.seconds, levels=size.levels),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small counts; prints JSON, writes nothing")
    parser.add_argument("--only", choices=BENCHMARKS, help="one of them; prints JSON, writes nothing")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    results: dict[str, Any] = {}
    for name in [options.only] if options.only else BENCHMARKS:
        began_s = time.monotonic()
        print(f"{name} … ", end="", flush=True, file=sys.stderr)
        results[name] = BENCHMARKS[name](size)
        print(f"{time.monotonic() - began_s:.0f} s", file=sys.stderr)
    if options.quick or options.only:
        print(json.dumps(results, indent=1))
        return
    REPORT.write_text(report(results))
    print(f"wrote {REPORT}", file=sys.stderr)


if __name__ == "__main__":
    main()
