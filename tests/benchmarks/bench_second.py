"""What a second UDP worker on the same port adds when the client is not the limit.

    python -m tests.benchmarks.bench_second [--seconds 4] [--rounds 3] [--share 0.15]

On two cores the client needs as much time as a worker, so each worker is held to a share of a core by the
kernel (cgroup v1, cpu.cfs_quota_us; root): one worker first, then two. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_http import fresh_price
from tests.benchmarks.node import bench_node
from tests.benchmarks.yardsticks import bench
from udp_engine._load import UDP, Load
from udp_engine.stress import ID
from udp_engine.wire import build_request

CPU = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 10_000
SOCKETS, WINDOW = 256, 1


@contextlib.contextmanager
def held_to(share: float, pid: int) -> Iterator[None]:
    """Let a process have *share* of a core while the block runs."""
    group = CPU / f"trinity-bench-{pid}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(round(PERIOD_US * share)))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            (CPU / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def measure(*, seconds: int, rounds: int, share: float) -> dict[str, Any]:
    """Return answers a second of one and of two workers, or say what is missing."""
    if not os.access(CPU / "cpu.cfs_quota_us", os.W_OK):
        return {"skipped": "no quotas of CPU time (cgroup v1, root)"}
    rates = {count: [ask(count, seconds, share) for _ in range(rounds)] for count in (1, 2)}
    middle = {count: statistics.median(found) for count, found in rates.items()}
    return {
        "share": share,
        "answers_per_s": {count: [round(rate) for rate in found] for count, found in rates.items()},
        "ratio": round(middle[2] / middle[1], 3),
    }


def ask(workers: int, seconds: int, share: float) -> float:
    """Return the answers a second of so many workers, each held to a share of a core."""
    with bench_node() as node, fresh_price(node), contextlib.ExitStack() as stack:
        key = node.make_key()
        node.start("runkeyring")
        pid = node.start("runudp", "--workers", str(workers))
        node.wait_for_udp(key)
        time.sleep(1)  # the second one answers, too
        pids = [one for one in bench.process_tree(pid) if workers == 1 or one != pid]
        load = stack.enter_context(
            contextlib.closing(
                Load(
                    UDP,
                    ("127.0.0.1", node.udp_port),
                    [build_request("BTC", key, id=ID)],
                    most=SOCKETS,
                    window=WINDOW,
                )
            )
        )
        load.grow(SOCKETS)
        for one in pids:
            stack.enter_context(held_to(share, one))
        load.run(seconds)
        reading = load.reading()
        if reading.answered != reading.sent:
            raise RuntimeError(f"of {reading.sent} requests {reading.lost} were lost")
        return float(reading.timely * 1e9 / reading.sending_ns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.15)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
