"""What can go wrong with prices.

PricingError
├── BoardError
│   ├── LayoutError   the memory is not a board of this version and size
│   └── BoardFull     no slot, asset row or exchange row is left
├── Tier2Error        Valkey or Redis did not do what was asked, or not in time
├── FallbackError     an exchange gave no price over REST
└── BadRequest        a question that breaks the rules
"""

from __future__ import annotations

from pricing.problems import Problem


class PricingError(Exception):
    """The root of what this package raises."""


class BoardError(PricingError):
    """The board cannot be used, or not for this."""


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


class Tier2Error(PricingError):
    """Valkey or Redis did not do what was asked, or not in time; the client library's error is the cause."""


class FallbackError(PricingError):
    """The exchange gave no price: refused, limited, unreachable, unreadable. *reason* is a stable word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadRequest(PricingError):
    """A question that breaks the rules; carries the problem to answer with."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem
