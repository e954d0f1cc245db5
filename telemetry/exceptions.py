"""What can go wrong with this package's shared memory, and with envelopes."""

from __future__ import annotations


class TelemetryError(Exception):
    """The root of what this package raises."""


class LayoutError(TelemetryError):
    """The memory does not hold what this program expects there: *what* differs, and how."""

    def __init__(self, what: str, expected: object, found: object) -> None:
        super().__init__(what, expected, found)
        self.what = what
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"not the expected layout: {self.what} is {self.found}, expected {self.expected}"


class Poison(TelemetryError):
    """An envelope that can never be written, whoever tries: *reason* says what is wrong with it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"not an envelope of usage logs: {self.reason}"


class CarrierError(TelemetryError):
    """Nothing could be passed on: *reason* says why. It is tried again."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class TooManyRows(TelemetryError):
    """A report has more rows than a file of its format can have: *most*."""

    def __init__(self, name: str, most: int) -> None:
        super().__init__(name, most)
        self.name = name
        self.most = most

    def __str__(self) -> str:
        return f"a report as {self.name} may have {self.most} rows"


class TooManyBytes(TelemetryError):
    """A report that is made whole before it is sent is larger than it may be: *most*."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def __str__(self) -> str:
        return f"a report that is made whole may have {self.most} bytes"


class NotWritten(TelemetryError):
    """A report's file could not be written: *reason* says why, such as a full disk."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"its file could not be written: {self.reason}"


class Cancelled(TelemetryError):
    """Nobody waits for the report any more."""
