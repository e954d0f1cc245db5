"""The stress client's levels against one UDP worker, as `manage.py stress` reports them.

    python -m tests.benchmarks.bench_levels [--seconds 5] [--levels 30,60,…] [--html FILE]

Prints the JSON document of the command.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_http import fresh_price
from tests.benchmarks.node import ROOT, bench_node
from udp_engine.stress import LEVELS


def measure(*, seconds: float, levels: Sequence[int] = LEVELS, html: Path | None = None) -> dict[str, Any]:
    """Return the document; whether all was answered is in it."""
    with bench_node() as node, fresh_price(node):
        key = node.make_key()
        node.start("runkeyring")
        node.start("runudp", "--workers", "1")
        node.wait_for_udp(key)
        command = [sys.executable, "manage.py", "stress", "--json", "-", "--seconds", str(seconds)]
        command += ["--levels", ",".join(map(str, levels)), *(["--html", str(html)] if html else [])]
        environment = node.environment | {"TRINITY_KEY": key}
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode not in (0, 1):  # 1: something was lost, which the document tells
            raise subprocess.CalledProcessError(done.returncode, command)
        return json.loads(done.stdout)  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument(
        "--levels", type=lambda text: [int(word) for word in text.split(",")], default=list(LEVELS)
    )
    parser.add_argument("--html", type=lambda text: Path(text).absolute(), help="write the page, too")
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
