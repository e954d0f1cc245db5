"""The tunables of this package, with their defaults and limits. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, Self

from telemetry._spool import HEADER_BYTES, MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES

KEEP_S = 3_600.0
"""From one look after the tables of usage to the next."""


class SpoolSettings(Protocol):
    """The settings that the operator gives."""

    TRINITY_SPOOL_BYTES: int
    TRINITY_SPOOL_SEGMENT_BYTES: int
    TRINITY_SPOOL_SYNC_MS: int
    TRINITY_SPOOL_FULL: Literal["refuse", "shed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolParameters:
    segment_bytes: int = 16 * 1024 * 1024
    """One file, taken from the disk whole: 104,832 records. Each worker has two, one of them in reserve."""
    spool_bytes: int = 8 * 1024 * 1024 * 1024
    """All files of the node together: 53 million records."""
    warn_percent: int = 80
    """Of spool_bytes, from which on the operator is warned."""
    sync_ms: int = 1_000
    """Pause between two syncs: what was appended since then, a power cut may take."""
    full: Literal["refuse", "shed"] = "refuse"
    """What becomes of questions when there is no room for a record of their answers."""

    @classmethod
    def of(cls, settings: SpoolSettings) -> Self:
        return cls(
            segment_bytes=settings.TRINITY_SPOOL_SEGMENT_BYTES,
            spool_bytes=settings.TRINITY_SPOOL_BYTES,
            sync_ms=settings.TRINITY_SPOOL_SYNC_MS,
            full=settings.TRINITY_SPOOL_FULL,
        )

    def __post_init__(self) -> None:
        fits = MIN_SEGMENT_BYTES <= self.segment_bytes <= MAX_SEGMENT_BYTES
        if not fits or self.segment_bytes % HEADER_BYTES:
            raise ValueError(
                f"segment_bytes must be {MIN_SEGMENT_BYTES} to {MAX_SEGMENT_BYTES} "
                f"in steps of {HEADER_BYTES}, not {self.segment_bytes!r}"
            )
        if self.spool_bytes < 2 * self.segment_bytes:
            raise ValueError(f"spool_bytes must be at least two segments, not {self.spool_bytes!r}")
        if not 1 <= self.warn_percent <= 100:
            raise ValueError(f"warn_percent must be 1 to 100, not {self.warn_percent!r}")
        if self.full not in ("refuse", "shed"):
            raise ValueError(f"full must be refuse or shed, not {self.full!r}")
        if not 1 <= self.sync_ms <= 60_000:
            raise ValueError(f"sync_ms must be 1 to 60000, not {self.sync_ms!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipperParameters:
    """The names are those that profiles have always had; they hold for every way to the database."""

    sqs_batch_size: int = 5_000
    """Records of one envelope at most."""
    sqs_flush_ms: int = 1_000
    """How long records wait for an envelope to become full."""
    sqs_buffer_size: int = 200_000
    """Records that have been sent and are not yet in the database, at most."""
    sqs_timeout_ms: int = 5_000
    """For one message to be taken by the queue."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("sqs_batch_size", 1, 65_536),
            ("sqs_flush_ms", 10, 60_000),
            ("sqs_buffer_size", 1, 10_000_000),
            ("sqs_timeout_ms", 100, 60_000),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be {least} to {most}, not {getattr(self, name)!r}")
        if self.sqs_buffer_size < self.sqs_batch_size:
            raise ValueError(f"sqs_buffer_size must hold an envelope, not {self.sqs_buffer_size!r} records")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportParameters:
    at_once: int = 4
    """Reports that one worker makes at the same time; each takes a thread and a database connection."""
    at_once_of_account: int = 2
    asked_at_once: int = 128
    """Questions for which one worker looks at the same time what is left of the month."""
    asked_at_once_of_account: int = 8
    page_rows: int = 10_000
    """Rows that are read, rendered and sent together: some 15 MB while that lasts."""
    piece_s: int = 60
    """The longest that the database may take for a page, or for such a piece."""
    file_s: int = 600
    """The longest that a workbook or a document may take, or a summary as lines."""
    file_bytes: int = 1 << 30
    """The most that such a file may have. They lie in the folder for temporary files until they are sent."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")
