"""Counters in ordinary memory with a clock under the test's hand, for what reads them."""

from __future__ import annotations

from pathlib import Path

from telemetry._counters import CounterReader, Counters, counters_size, format_counters
from telemetry.traffic import Traffic

SECOND_NS = 1_000_000_000
WALL_NS = 1_763_816_400_000_000_000


class CountedNode:
    """One node's counters and what its workers make of them; the clock starts an hour after the epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.memory = bytearray(counters_size())
        format_counters(self.memory)
        self.reader = CounterReader(self.memory)
        self.mono_ns = self.reader.epoch_mono_ns + 3_600 * SECOND_NS

    def forward(self, seconds: float) -> None:
        self.mono_ns += int(seconds * SECOND_NS)

    def worker(self, number: int = 1) -> Counters:
        return Counters(self.memory, number)

    def traffic(self) -> Traffic:
        """Make what one HTTP worker has; several share the memory and the folder."""
        return Traffic(self.reader, self.folder, wall_ns=lambda: WALL_NS, mono_ns=lambda: self.mono_ns)
