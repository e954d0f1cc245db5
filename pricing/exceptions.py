"""What can go wrong with prices.

PricingError
├── BoardError
│   └── BoardFull     no slot, asset row or exchange row is left
├── Tier2Error        Valkey or Redis did not do what was asked, or not in time
├── FallbackError     an exchange gave no price over REST
├── BadRequest        a question that breaks the rules
└── RequestRefused    an operator's request that is answered with a problem
LayoutError           (telemetry.exceptions) the memory is not a board of this version and size
"""

from __future__ import annotations

from pricing.problems import Problem
from telemetry.exceptions import LayoutError as LayoutError


class PricingError(Exception):
    """The root of what this package raises."""


class BoardError(PricingError):
    """The board cannot be used, or not for this."""


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


class RequestRefused(PricingError):
    """A request to an operators' JSON endpoint that is refused; carries the problem to answer with."""

    def __init__(self, code: str, detail: str, **figures: object) -> None:
        super().__init__(detail)
        self.problem = Problem(code, detail, figures)
