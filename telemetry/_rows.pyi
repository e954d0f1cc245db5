from typing import Final

from typing_extensions import Buffer

COLUMNS: Final[tuple[str, ...]]
"""Of usage_logs, in the order in which `copy_rows` has them."""
PART_COLUMNS: Final[tuple[str, ...]]
"""Of usage_parts, in the order in which `Groups` has them."""
COPY_HEADER: Final[bytes]
COPY_TRAILER: Final[bytes]

def clean(records: Buffer, start: int, end: int) -> bool:
    """Make records what a database takes, in place.

    Texts become UTF-8, with ? for each byte that is none of it; numbers that no column holds become the
    largest one it does. False when they are not in order, or not of places from *start* up to *end*.
    """

def place_of(records: Buffer, place: int) -> int:
    """Give the index of the first record whose place, counted from 0, is *place* or a later one."""

def days_of(records: Buffer) -> set[int]:
    """Name the UTC days of records, counted from 1970."""

def copy_rows(records: Buffer, segment_id: int) -> bytes:
    """Make rows of a COPY BINARY of COLUMNS, from clean records; header and trailer are the caller's."""

class Groups:
    """Adds clean records up by what they have in common."""

    def add(self, records: Buffer) -> None: ...
    def copy_rows(self, node: str) -> bytes:
        """Make rows of a COPY BINARY of PART_COLUMNS; header and trailer are the caller's."""

    def rows(self, node: str) -> list[tuple[int | str | bool, ...]]:
        """Give the same as values; an hour is counted from 1970."""
