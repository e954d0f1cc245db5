"""Segments of a spool as a process leaves them, for benchmarks that read them."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

from telemetry._spool import Appender, make_header
from telemetry.segments import segment_name


def fill_segment(root: Path, number: int, size: int, fill: Callable[[Appender], None]) -> mmap.mmap:
    """Make a segment of a process in row 1, and give its memory once *fill* has appended to it.

    Where *fill* does not close the appender, the segment is as a killed process leaves it.
    """
    folder = root / "1"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / segment_name(number)).open("w+b") as file:
        file.truncate(size)
        file.write(make_header("Bench", 1, number, size, 1))
        file.flush()
        memory = mmap.mmap(file.fileno(), size)
    appender = Appender()
    appender.publish(memory)
    fill(appender)
    return memory
