"""CPU per `/price` answer with ten keys in the gate and with a million, each question with another key.

    python -m tests.benchmarks.bench_keys [--keys 10 1000000] [--seconds 3] [--rounds 5]

A worker for each gate; they are measured in turns within one run, so that only the number of keys differs.
Needs wrk and taskset. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import time
from typing import Any

from billing import keys
from billing._gate import GateKey
from tests.benchmarks.bench_http import fresh_price
from tests.benchmarks.node import BenchNode, bench_node
from tests.benchmarks.yardsticks import bench
from trinity_site.shared_memory import open_gate_writer

ASKED = 50_000  # different keys that are asked with, where there are so many
CONNECTIONS = 64
SERVER_CPU, CLIENT_CPU = 0, 1
SCRIPT = """
local questions = {}
for key in io.lines("%s") do
  local headers = "Host: x\\r\\nX-API-Key: " .. key .. "\\r\\n\\r\\n"
  questions[#questions + 1] = "GET /price?asset=BTC HTTP/1.1\\r\\n" .. headers
end
local place = 0
request = function()
  place = place %% #questions + 1
  return questions[place]
end
"""


class Site:
    """A worker whose gate has so many keys."""

    def __init__(self, node: BenchNode, count: int, stack: contextlib.ExitStack) -> None:
        self.count, self._node = count, node
        node.environment["TRINITY_GATE_ROWS"] = str(max(count, 1_024))
        gate = stack.enter_context(
            open_gate_writer("Bench", node.folder, rows=int(node.environment["TRINITY_GATE_ROWS"]))
        )
        gate.set_month(202611, 0)
        texts = [keys.generate(os.urandom) for _ in range(count)]
        for number, text in enumerate(texts, 1):
            gate.put(
                GateKey(keys.digest(text), number, emission_ns=1, burst=1_000_000, cap=1_000_000_000_000)
            )
        listed, self._script = node.folder / "keys", node.folder / "ask.lua"
        listed.write_text("\n".join(random.sample(texts, min(count, ASKED))))
        self._script.write_text(SCRIPT % listed)
        stack.enter_context(fresh_price(node))
        self.pid = node.start("runhttp")
        node.wait_for_http()

    def ask(self, seconds: int) -> tuple[float, float]:
        """Return µs of CPU per answer, and answers per second."""
        pids = bench.process_tree(self.pid)
        bench.pin(pids, SERVER_CPU)
        command = ["taskset", "-c", str(CLIENT_CPU), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
        command += ["-s", str(self._script), f"http://127.0.0.1:{self._node.http_port}/price?asset=BTC"]
        before_s = bench.cpu_seconds(pids)
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        spent_s = bench.cpu_seconds(pids) - before_s
        if "Non-2xx" in out:
            raise RuntimeError(out)
        answers = re.search(r"(\d+) requests in", out)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
        assert answers and rate, out
        return spent_s * 1e6 / int(answers[1]), float(rate[1])


def measure(*, counts: list[int], seconds: int, rounds: int) -> dict[str, Any]:
    """Return the cost for each number of keys, medians of rounds in turns, or say what is missing."""
    if missing := [tool for tool in ("wrk", "taskset") if shutil.which(tool) is None]:
        return {"skipped": f"not installed: {', '.join(missing)}"}
    with contextlib.ExitStack() as stack:
        sites = [Site(stack.enter_context(bench_node()), count, stack) for count in counts]
        time.sleep(1)  # the tables are read
        runs: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
        for _ in range(rounds):
            for site in sites:
                runs[site.count].append(site.ask(seconds))
    rows = [
        {
            "keys": count,
            "cpu_us_per_answer": round(statistics.median(cost for cost, _ in asked), 2),
            "answers_per_s": round(statistics.median(rate for _, rate in asked)),
        }
        for count, asked in runs.items()
    ]
    ratio = rows[-1]["cpu_us_per_answer"] / rows[0]["cpu_us_per_answer"]
    return {"gates": rows, "ratio": round(ratio, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, nargs="+", default=[10, 1_000_000], dest="counts")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
