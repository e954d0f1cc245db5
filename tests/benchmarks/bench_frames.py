"""Frames per second from raw frame to board, on one core, per exchange: decode, subscriptions, guard, write.

    python -m tests.benchmarks.bench_frames [--frames 20000] [--rounds 7]

Frames carry one trade each and are made by the simulator's dialects, in the shapes of the recordings; no
two are alike. The fastest round counts: the machine is shared, and what others do to it only ever adds.
Prints one JSON document.
"""

import argparse
import gc
import json
import time
from pathlib import Path
from typing import Any

from exchanges.feed.intake import Intake
from exchanges.feed.protocol import FeedProtocol
from exchanges.feed.spec import FeedSpec, Listing, parse_feed
from exchanges.simulator.dialects import DIALECTS
from exchanges.simulator.markets import MARKETS
from exchanges.simulator.tape import Tape
from exchanges.simulator.walk import Walk
from pricing._board import board_size, format_board
from pricing._board_writer import BoardWriter

FEEDS = Path(__file__).resolve().parents[2] / "exchanges" / "fixtures" / "feeds"
EXCHANGES = ("coinbase", "gemini", "kraken", "gateio", "bybit", "okx")
ASSET = "BTC"
STEP_NS = 1_000_000


def shipped(name: str) -> FeedSpec:
    return parse_feed(json.loads((FEEDS / f"{name}.json").read_text())["feed"])


def single_trade_frames(name: str, count: int, start_ns: int) -> tuple[str, list[str]]:
    """Return the symbol of BTC and *count* frames with one trade each, a millisecond apart."""
    dialect = DIALECTS[name]
    tape = Tape(name, dialect.NOTATION, Walk(1, MARKETS), seed=1, first_id=dialect.FIRST_ID)
    session = dialect(tape, 1, dialect.LIMITS, start_ns)
    symbol = tape.symbol(ASSET)
    assert symbol is not None
    frames = []
    for number in range(count):
        time_ns = start_ns + number * STEP_NS
        frames.append(str(session.trades([tape.next(symbol, time_ns)], time_ns)[0]))
    return symbol, frames


def frames_per_second(name: str, *, frames: int, rounds: int) -> dict[str, Any]:
    """Time the product's own path: FeedProtocol.receive and Intake.ticks on a board in memory."""
    start_ns = time.time_ns() - frames * STEP_NS
    symbol, texts = single_trade_frames(name, frames, start_ns)
    fastest_ns = None
    for _ in range(rounds):
        memory = bytearray(board_size(64))
        format_board(memory, 64)
        spec = shipped(name)
        intake = Intake(spec, BoardWriter(memory, 1, 1))
        intake.follow([Listing(asset=ASSET, exchange=name, symbol=symbol)])
        protocol = FeedProtocol(spec, [symbol], uuid=lambda: "")
        receive, deliver = protocol.receive, intake.ticks
        wall_ns, mono_ns = time.time_ns(), time.monotonic_ns()
        gc.collect()
        began_ns = time.process_time_ns()
        for text in texts:
            deliver(receive(text, wall_ns, mono_ns), wall_ns, mono_ns)
        spent_ns = time.process_time_ns() - began_ns
        if intake.written < frames * 0.99:
            raise RuntimeError(
                f"{name}: only {intake.written} of {frames} reached the board: {intake.refusals}"
            )
        fastest_ns = spent_ns if fastest_ns is None else min(fastest_ns, spent_ns)
    assert fastest_ns is not None
    return {
        "us_per_frame": round(fastest_ns / frames / 1000, 2),
        "frames_per_s": round(frames * 1e9 / fastest_ns),
    }


def measure(*, frames: int, rounds: int) -> dict[str, Any]:
    return {name: frames_per_second(name, frames=frames, rounds=rounds) for name in EXCHANGES}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
