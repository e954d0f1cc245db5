"""Timestamps of the exchanges, to integer nanoseconds since 1970. Sans-I/O, exact: no float on the way.

Each reader takes the literal text (a JSON number's digits or a string's content) and returns None for what it cannot read.
"""

import re
from calendar import timegm
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

FIRST_PLAUSIBLE_NS = 1_230_768_000 * 10**9  # 2009-01-01: before that no coin had traded
LAST_PLAUSIBLE_NS = 2**63 - 1  # 2262: what a signed 64-bit field on the board holds

_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d{2}):(\d{2}))",
    re.ASCII,
)
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

Reader = Callable[[str], int | None]


def _unix(digits_to_ns: int) -> Reader:
    factor = 10**digits_to_ns

    def read(text: str) -> int | None:
        if text.isdigit() and text.isascii() and len(text) <= 20:
            return int(text) * factor
        return _unix_decimal(text, digits_to_ns)

    return read


def _unix_decimal(text: str, digits_to_ns: int) -> int | None:
    """Read a number with a fraction or an exponent; digits below a nanosecond are cut."""
    if len(text) > 40 or not text.isascii() or "_" in text:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    if not number.is_finite() or not -30 < number.adjusted() < 30:
        return None
    return int(number.scaleb(digits_to_ns))


def rfc3339() -> Reader:
    """Return a reader of RFC 3339 that keeps the last minute it saw: trades come in order, so most share it."""
    minute, minute_ns = "", 0

    def read(text: str) -> int | None:
        nonlocal minute, minute_ns
        # "2026-11-22T13:00:05.123456Z": the first 17 characters are the minute.
        if text[:17] == minute and text[-1:] == "Z":
            seconds, fraction = text[17:19], text[20:-1]
            if (
                seconds.isdigit()
                and seconds.isascii()
                and seconds < "60"
                and (not fraction or text[19] == ".")
            ):
                if not fraction and len(text) == 20:
                    return minute_ns + int(seconds) * 1_000_000_000
                if fraction.isdigit() and fraction.isascii():
                    return minute_ns + int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
        nanoseconds = parse_rfc3339(text)
        if nanoseconds is not None and text[-1] == "Z" and text[17:19] != "60":
            minute, minute_ns = text[:17], nanoseconds - nanoseconds % 60_000_000_000
        return nanoseconds

    return read


def parse_rfc3339(text: str) -> int | None:
    """Read a date and time with 0 to 9 fraction digits (more are cut) and Z or an offset."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    if not (
        1 <= month <= 12 and 1 <= day <= _days(year, month) and hour < 24 and minute < 60 and second <= 60
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
