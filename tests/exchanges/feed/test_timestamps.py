"""Timestamps: exact integers against a Decimal and a datetime oracle."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_DOWN, Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchanges.feed.timestamps import FORMATS, is_plausible, parse_rfc3339, reader, rfc3339

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PLACES = {"unix_s": 9, "unix_ms": 6, "unix_us": 3, "unix_ns": 0}
NOW_NS = 1_790_000_000_123_456_789

moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 30))  # noqa: DTZ001 - given a zone below
fractions = st.text("0123456789", max_size=9)
zones = st.integers(-23 * 60 - 59, 23 * 60 + 59)


def written(moment: datetime, fraction: str, offset_min: int | None) -> str:
    zone = "Z" if offset_min is None else f"{offset_min // 60:+03d}:{offset_min % 60:02d}"
    if offset_min is not None and offset_min < 0:
        zone = f"-{-offset_min // 60:02d}:{-offset_min % 60:02d}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}".zfill(19) + (f".{fraction}" if fraction else "") + zone


def oracle_ns(moment: datetime, fraction: str, offset_min: int | None) -> int:
    zoned = moment.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=offset_min or 0)))
    since = zoned - EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + int(fraction.ljust(9, "0"))


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-09-30T02:39:59.5519Z", 1790735999551900000),
        ("2026-09-30T02:39:59.551900001Z", 1790735999551900001),
        ("2026-09-30T02:39:59.5519000019999Z", 1790735999551900001),  # further digits are cut
        ("2026-09-30t02:39:59z", 1790735999000000000),
        ("2026-09-30 02:39:59Z", 1790735999000000000),
        ("2024-02-29T00:00:00Z", 1709164800000000000),
        ("2016-12-31T23:59:60Z", 1483228800000000000),  # the leap second is the next day's first
        ("2026-09-30T04:39:59+02:00", 1790735999000000000),
        ("2026-09-29T21:09:59-05:30", 1790735999000000000),
        ("0001-01-01T00:00:00Z", -62135596800000000000),
    ],
)
def test_rfc3339_is_read_to_the_nanosecond(text: str, nanoseconds: int) -> None:
    assert parse_rfc3339(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-09-30",
        "2026-09-30T02:39:59",
        "2026-09-30T02:39:59.Z",
        "2026-09-30T02:39:59,5Z",
        "2026-9-30T02:39:59Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2025-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-04-00T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-09-30T24:00:00Z",
        "2026-09-30T23:60:00Z",
        "2026-09-30T23:59:61Z",
        "2026-09-30T02:39:59+24:00",
        "2026-09-30T02:39:59+02:60",
        "2026-09-30T02:39:59+0200",
        "2026-09-30T02:39:59ZZ",
        " 2026-09-30T02:39:59Z",
        "２０２６-09-30T02:39:59Z",
        "1790735999",
    ],
)
def test_what_is_no_rfc3339_is_none(text: str) -> None:
    assert parse_rfc3339(text) is None
    assert rfc3339()(text) is None


@given(moments, fractions, st.none() | zones)
def test_rfc3339_agrees_with_datetime(moment: datetime, fraction: str, offset: int | None) -> None:
    assert parse_rfc3339(written(moment, fraction, offset)) == oracle_ns(moment, fraction, offset)


@given(st.integers(1972, 2400))
def test_february_29_exists_in_leap_years_only(year: int) -> None:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    assert (parse_rfc3339(f"{year}-02-29T12:00:00Z") is not None) is leap


times_nearby = st.tuples(
    st.integers(0, 3).map(lambda s: datetime(2026, 11, 22, 13, 0, s)),  # noqa: DTZ001 - given a zone above
    fractions,
    st.none() | st.sampled_from([0, 120, -330]),
)


@given(st.lists(times_nearby, max_size=30), st.lists(st.sampled_from(["", "Z", "x", "2026"]), max_size=5))
def test_remembered_second_never_leaks_to_another_time(
    times: list[tuple[datetime, str, int | None]], noise: list[str]
) -> None:
    read = rfc3339()
    for number, time in enumerate(times):
        if number < len(noise):
            assert read(noise[number]) is None
        assert read(written(*time)) == oracle_ns(*time)


def test_remembered_second_does_not_admit_what_parsing_refuses() -> None:
    read = rfc3339()
    assert read("2026-11-22T13:00:05.5Z") == 1795352405500000000
    for ending in ("Z", "٣Z", "5 Z", "-5Z", "5_0Z", "0000000000xZ", "Z5Z"):
        assert read(f"2026-11-22T13:00:05.{ending}") is None
    assert read("2026-11-22T13:00:05.0000000019Z") == 1795352405000000001


def test_rfc3339_is_text() -> None:
    assert rfc3339()(1795352405) is None


@pytest.mark.parametrize(
    ("unit", "text", "nanoseconds"),
    [
        ("unix_ms", "1606292218213.4578", 1606292218213457800),  # a float gives ...457764
        ("unix_ms", "1682689046123.0", 1682689046123000000),
        ("unix_ms", 1672304486865, 1672304486865000000),
        ("unix_ns", "1783981140085684200", 1783981140085684200),
        ("unix_ns", 1790732618782524290, 1790732618782524290),  # above 2^53
        ("unix_ns", "1790732618782524290.9", 1790732618782524290),
        ("unix_us", "1643640186364517", 1643640186364517000),
        ("unix_s", "1565587800", 1565587800000000000),
        ("unix_s", "1616492376.594101", 1616492376594101000),
        ("unix_s", "1.565587800E9", 1565587800000000000),
        ("unix_ms", "1565587800000e0", 1565587800000000000),
        ("unix_ms", "1606292218213.4578129999999999999999999", 1606292218213457812),
    ],
)
def test_unix_time_is_exact(unit: str, text: str | int, nanoseconds: int) -> None:
    assert reader(unit)(text) == nanoseconds


@pytest.mark.parametrize("unit", PLACES)
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "+1",
        "1_0",
        "0x10",
        "1,5",
        "1.",
        ".5",
        "1.5.5",
        "NaN",
        "Infinity",
        "1e",
        "1e999",
        "٣",
        "1 ",
        "9" * 41,
        "1e-",
    ],
)
def test_what_is_no_number_is_none(unit: str, text: str) -> None:
    assert reader(unit)(text) is None


@given(
    st.sampled_from(sorted(PLACES)),
    st.integers(0, 10**20 - 1),
    st.text("0123456789", min_size=1, max_size=16),  # 40 characters in all are read
    st.sampled_from(["", "e0", "E+1", "e-3", "e9"]),
)
def test_unix_time_agrees_with_decimal(unit: str, whole: int, fraction: str, exponent: str) -> None:
    text = f"{whole}.{fraction}{exponent}"
    exact = Context(prec=200).scaleb(Decimal(text), PLACES[unit])
    assert reader(unit)(text) == int(exact.to_integral_value(ROUND_DOWN))
    assert reader(unit)(str(whole)) == reader(unit)(whole) == whole * 10 ** PLACES[unit]


@pytest.mark.parametrize("meant", PLACES)
@pytest.mark.parametrize("read_as", PLACES)
def test_slip_of_the_unit_is_implausible(meant: str, read_as: str) -> None:
    sent = str(NOW_NS // 10 ** PLACES[meant])
    nanoseconds = reader(read_as)(sent)
    assert nanoseconds is not None
    assert is_plausible(nanoseconds) is (meant == read_as)


@given(st.sampled_from(FORMATS), st.text() | st.integers() | st.text("0123456789.eE+-TZ: "))
def test_reader_never_raises(unit: str, text: str | int) -> None:
    assert isinstance(reader(unit)(text), int | None)
