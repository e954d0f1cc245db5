"""What the processes that wrote a spool have left in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from telemetry._spool import Tally, decode
from telemetry.segments import Segment, find_segments


class Left(NamedTuple):
    """What one process has left."""

    counted: int
    """Records of questions that the gate has counted."""
    others: int
    """And of those that it has not."""
    tally: Tally

    @property
    def owed(self) -> int:
        return self.tally.opened - self.tally.closed

    @property
    def in_hand(self) -> int:
        return self.tally.entered - self.tally.left


def read_left(root: Path) -> Iterator[Left]:
    """Read what each dead process has left, by row and age, and see that nothing is damaged."""
    months: dict[tuple[int, int], list[int]] = {}
    tallies: dict[tuple[int, int], list[Tally]] = {}
    for path in find_segments(root):
        with Segment(path) as segment:
            process, extent, place = (segment.header.row, segment.header.boot_ns), segment.look(), 0
            assert extent.final
            tallies.setdefault(process, []).append(segment.tally())
            found = months.setdefault(process, [])
            while place < extent.end:
                reading = segment.read(place)
                assert reading.damaged == 0
                found += [log.month for log in decode(reading.records)]
                place = reading.end
    for process, found in sorted(months.items()):
        tally = Tally(*map(max, zip(*tallies[process], strict=True)))
        yield Left(sum(map(bool, found)), found.count(0), tally)
