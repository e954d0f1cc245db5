"""What can go wrong with the price board, and below it.

BoardError
├── LayoutError   the memory is not a board of this version and size
└── BoardFull     no slot, asset row or exchange row is left
Tier2Error        Valkey or Redis did not do what was asked, or not in time
"""

from __future__ import annotations


class BoardError(Exception):
    """The root of what this package raises about the board."""


class LayoutError(BoardError):
    """The memory does not hold the board that this program expects: *what* differs, and how."""

    def __init__(self, what: str, expected: object, found: object) -> None:
        super().__init__(what, expected, found)
        self.what = what
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"not the expected price board: {self.what} is {self.found}, expected {self.expected}"


class BoardFull(BoardError):
    """There is no free place: all *capacity* of *what* (slots, assets, exchanges) are taken."""

    def __init__(self, what: str, capacity: int) -> None:
        super().__init__(what, capacity)
        self.what = what
        self.capacity = capacity

    def __str__(self) -> str:
        return f"the price board is full: all {self.capacity} {self.what} are taken"


class Tier2Error(Exception):
    """Valkey or Redis did not do what was asked, or not in time; the client library's error is the cause."""
