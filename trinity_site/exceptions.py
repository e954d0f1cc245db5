"""What can go wrong when a node is put together."""

from __future__ import annotations

from pathlib import Path


class SegmentError(Exception):
    """A shared-memory segment cannot be used; *path* names it and *reason* says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class SecondWriter(SegmentError):
    """Another process, *pid* (0 while unknown), writes this segment."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(
            path, f"process {pid} is its writer, and there may be only one" if pid else "it has a writer"
        )
        self.pid = pid


class RowTaken(SegmentError):
    """Another process counts in *row*."""

    def __init__(self, path: Path, row: int) -> None:
        super().__init__(path, f"another process counts in row {row}; choose another --row")
        self.row = row
