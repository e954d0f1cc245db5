"""Timestamps of the exchanges, to integer nanoseconds since 1970. Sans-I/O, exact: no float on the way.

Each reader takes the literal text (a JSON number's digits or a string's content), or an integer, and
returns None for what it cannot read.
"""

import re
from calendar import timegm
from collections.abc import Callable
from decimal import Context, Decimal

FIRST_PLAUSIBLE_NS = 1_230_768_000 * 10**9  # 2009-01-01: before that no coin had traded
LAST_PLAUSIBLE_NS = 2**63 - 1  # 2262: what a signed 64-bit field on the board holds

_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9})\d*)?"
    r"(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))",
    re.ASCII,
)
_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?")
_EXACT = Context(prec=60)  # 40 characters never round
_SCALE: tuple[int, ...] = tuple(10 ** (9 - digits) for digits in range(10))
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

Reader = Callable[[str | int], int | None]


def _unix(digits: int) -> Reader:
    """Return a reader of a unit that is *digits* decimal places above a nanosecond."""
    factor: int = 10**digits
    factors: tuple[int, ...] = tuple(10 ** (digits - places) for places in range(digits + 1))

    def read(text: str | int) -> int | None:
        if isinstance(text, int):
            return text * factor
        if not text.isascii() or len(text) > 40:
            return None
        if text.isdigit():
            return int(text) * factor
        whole, _, fraction = text.partition(".")
        every = whole + fraction
        if whole and 0 < (places := len(fraction)) <= digits and every.isdigit():
            return int(every) * factors[places]
        return _unix_decimal(text, digits)

    return read


def _unix_decimal(text: str, digits: int) -> int | None:
    """Read a number with an exponent or more places than a nanosecond has; those are cut."""
    if not _NUMBER.fullmatch(text):
        return None
    return int(_EXACT.scaleb(Decimal(text), digits))


def rfc3339() -> Reader:
    """Return a reader of RFC 3339 that keeps the last second it saw: busy feeds send many trades a second."""
    second, second_ns = "", 0  # "2026-11-22T13:00:05." and its nanoseconds

    def read(text: str | int) -> int | None:
        nonlocal second, second_ns
        if not isinstance(text, str):
            return None
        if second and text[:20] == second and text[-1] == "Z":
            fraction = text[20:-1]
            if fraction.isdigit() and fraction.isascii() and (places := len(fraction)) <= 9:
                return second_ns + int(fraction) * _SCALE[places]
        nanoseconds = parse_rfc3339(text)
        if nanoseconds is not None and text[19] == ".":
            second, second_ns = text[:20], nanoseconds - nanoseconds % 1_000_000_000
            if text[-1] != "Z":
                second = ""  # an offset: the same first characters would mean another time
        return nanoseconds

    return read


def parse_rfc3339(text: str) -> int | None:
    """Read a date and time with 0 to 9 fraction digits (more are cut) and Z or an offset."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    if not (
        year
        and 1 <= month <= 12
        and 1 <= day <= _days(year, month)
        and hour < 24
        and minute < 60
        and second <= 60
    ):
        return None
    seconds = timegm((year, month, day, hour, minute, second, 0, 0, 0))
    if found[8]:
        offset = int(found[9]) * 3600 + int(found[10]) * 60
        seconds += offset if found[8] == "-" else -offset
    return seconds * 1_000_000_000 + int((found[7] or "").ljust(9, "0"))


def _days(year: int, month: int) -> int:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 28 if month == 2 and not leap else _DAYS[month - 1]


_FACTORIES: dict[str, Callable[[], Reader]] = {
    "RFC3339": rfc3339,
    "unix_s": lambda: _unix(9),
    "unix_ms": lambda: _unix(6),
    "unix_us": lambda: _unix(3),
    "unix_ns": lambda: _unix(0),
}
FORMATS: tuple[str, ...] = tuple(_FACTORIES)


def reader(timestamp_format: str) -> Reader:
    """Return a reader for one of FORMATS; one reader per feed, since it may remember the last minute."""
    return _FACTORIES[timestamp_format]()


def is_plausible(nanoseconds: int) -> bool:
    """Tell whether a trade can have that time at all: a slip of the unit lands in 1970 or far ahead."""
    return FIRST_PLAUSIBLE_NS <= nanoseconds <= LAST_PLAUSIBLE_NS
