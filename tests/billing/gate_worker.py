"""Processes of the gate's drills: ``python -m tests.billing.gate_worker DIR admit|write|churn NUMBER``."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path
from typing import TextIO

from billing import keys
from billing._gate import SCOPE_PRICES, GateKey
from billing._gate_writer import GateWriter
from billing.admission import pack_network
from telemetry._counters import BG_WORK_COMPLETED, BG_WORK_SUBMITTED
from trinity_site.shared_memory import open_counters, open_gate, open_gate_writer

NODE, ROWS = "GateDrill", 64


def key_text(number: int) -> str:
    """Make the same key for the same number in every process."""
    stream = iter(hashlib.sha256(f"{number} {turn}".encode()).digest() for turn in range(99))
    return keys.generate(lambda count: next(stream)[:count])


TEXTS = [key_text(number) for number in range(ROWS)]
# Whatever decides together is told by one number: any mixture of two of them shows.
VARIANTS = [
    GateKey(
        keys.digest(TEXTS[0]),
        77,
        plan=number,
        flags=SCOPE_PRICES | (number % 2) << 3,
        emission_ns=number,
        burst=number,
        cap=10**9 + number,
        expires_s=10**9 + number,
        networks=[pack_network(f"10.{number}.0.0/16")] * (number % 8 + 1),
        revision=1,
    )
    for number in range(1, 200)
]


def admit(folder: Path, number: int) -> None:
    """Ask until a line comes; tell the times of the first and last question and how many were admitted.

    The counter of this worker says how many answers it had in hand: a kill in between loses none.
    """
    gate = open_gate(NODE, folder, rows=ROWS).view
    counters = open_counters(NODE, folder, worker=number).view
    ask, add, now = gate.admit, counters.add, time.monotonic_ns
    key, admitted, asked = TEXTS[0].encode(), 0, 0
    say("ready", sys.stdout)
    sys.stdin.readline()
    first = last = now()
    end = first + 2_000_000_000
    while last < end:
        last = now()
        add(BG_WORK_SUBMITTED)
        if ask(key, last, 0).code == 0:
            admitted += 1
            add(BG_WORK_COMPLETED)
        asked += 1
    say(f"{first} {last} {asked} {admitted}", sys.stdout)


def write(folder: Path, number: int) -> None:
    """Change one key's limits and networks for ever."""
    writer = open_gate_writer(NODE, folder, rows=ROWS).view
    writer.put(VARIANTS[0])
    say("ready", sys.stdout)
    while True:
        for variant in VARIANTS:
            writer.put(variant)


def churn(folder: Path, number: int) -> None:
    """Add and remove keys for ever, so that rows change hands and entries of the index move."""
    writer = open_gate_writer(NODE, folder, rows=ROWS).view
    fill(writer)
    say("ready", sys.stdout)
    turn = 0
    while True:
        gone = turn % (ROWS - 2) + 1
        writer.remove(keys.digest(TEXTS[gone]))
        writer.put(of_row(gone))
        turn += 1


def fill(writer: GateWriter) -> None:
    for number in range(ROWS - 1):
        writer.put(of_row(number))


def of_row(number: int) -> GateKey:
    return GateKey(keys.digest(TEXTS[number]), number, account_id=number, plan=number, cap=10**9 + number)


def say(text: str, stream: TextIO) -> None:
    stream.write(f"{text}\n")
    stream.flush()


if __name__ == "__main__":
    {"admit": admit, "write": write, "churn": churn}[sys.argv[2]](Path(sys.argv[1]), int(sys.argv[3]))
