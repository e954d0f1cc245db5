"""Records on their way into the database: the compiled module against its twin."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry._rows import COPY_HEADER, COPY_TRAILER, Groups, clean, copy_rows, days_of, place_of
from telemetry._spool import RECORD_BYTES, decode
from tests.telemetry.usage import make_logs, make_records
from tests.twins import rows as twin
from tests.twins.spool import RECORD

WORDS = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 3), st.just(2**63))
HALVES = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 3), st.just(2**31))
BYTES = st.integers(0, 255)
TEXTS = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=12).map(lambda text: text.encode(errors="surrogatepass")),
    st.sampled_from(
        [b"", b"BTC", b"\xff", b"A\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe0\x80\x80", b"a\0b"]
    ),
)
RECORDS = st.builds(
    RECORD.pack,
    *(WORDS, WORDS, WORDS, HALVES, HALVES, st.integers(0, 2**16 - 1)),
    *[BYTES] * 6,
    *[TEXTS] * 4,
)
ALIKE = st.builds(  # of which many have everything in common but the numbers that are added up
    RECORD.pack,
    st.integers(0, 3).map(lambda half: half * 1_800_000_000_000),
    *(
        st.integers(0, 1),
        st.integers(0, 1),
        st.sampled_from([0, 202611]),
        HALVES,
        st.sampled_from([200, 404]),
    ),
    *(BYTES, st.integers(1, 2), st.just(1), BYTES, st.just(0), st.just(0)),
    *(st.sampled_from([b"BTC", b"ETH", b"\xff", b"\xfe"]), st.just(b""), TEXTS, TEXTS),
)


def numbered(records: list[bytes], first: int = 1) -> bytearray:
    return bytearray(b"".join(
        record + struct.pack("<II", sequence, 0xFFFF_FFFF) for sequence, record in enumerate(records, first)
    ))  # fmt: skip


@given(st.lists(RECORDS, max_size=5))
def test_records_are_cleaned_as_the_twin_cleans_them(records: list[bytes]) -> None:
    found = numbered(records)
    expected = b"".join(
        twin.clean(found[at : at + RECORD_BYTES]) for at in range(0, len(found), RECORD_BYTES)
    )
    assert clean(found, 0, len(records))
    assert found == expected
    for log in decode(found):
        assert "�" not in log.asset + log.exchange + log.price + log.quote or b"\xef\xbf\xbd" in found


@given(st.lists(RECORDS, max_size=5), st.integers(0, 2**31 - 1))
def test_rows_are_the_twins(records: list[bytes], segment_id: int) -> None:
    found = numbered(records)
    assert clean(found, 0, len(records))
    assert copy_rows(found, segment_id) == twin.copy_rows(found, segment_id)


@settings(max_examples=50)
@given(st.lists(st.one_of(ALIKE, ALIKE, ALIKE, RECORDS), max_size=300), st.text(max_size=5))
def test_sums_are_the_twins(records: list[bytes], node: str) -> None:
    found = numbered(records)
    assert clean(found, 0, len(records))
    groups = Groups()
    half = len(records) // 2 * RECORD_BYTES
    groups.add(found[:half])
    groups.add(found[half:])
    assert split_parts(groups.copy_rows(node)) == sorted(twin.parts(found, node))
    assert len(groups.rows(node)) == len(twin.parts(found, node))


def split_parts(rows: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(rows):
        start, (columns,) = at, struct.unpack_from(">h", rows, at)
        at += 2
        for _ in range(columns):
            at += 4 + struct.unpack_from(">i", rows, at)[0]
        found.append(rows[start:at])
    return sorted(found)


@given(st.lists(st.integers(0, 12), max_size=6), st.integers(0, 10), st.integers(0, 10))
def test_records_of_other_places_or_out_of_order_do_not_fit(
    sequences: list[int], start: int, end: int
) -> None:
    (record,) = make_logs(1)
    body = make_records([record])[:-8]
    records = bytearray(b"".join(body + struct.pack("<II", sequence, 0) for sequence in sequences))
    assert clean(records, start, end) == twin.fits(bytes(records), start, end)


def test_place_is_found_among_records_with_gaps() -> None:
    body = make_records(make_logs(1))[:-8]
    records = b"".join(body + struct.pack("<II", sequence, 0) for sequence in (3, 4, 8))
    assert [place_of(records, place) for place in range(9)] == [0, 0, 0, 1, 2, 2, 2, 2, 3]
    assert place_of(b"", 5) == 0


def test_days_are_those_of_the_records() -> None:
    day_ns = 86_400 * 10**9
    logs = [log._replace(time_ns=time) for log, time in zip(
        make_logs(4), (0, day_ns - 1, day_ns, 20_000 * day_ns), strict=True
    )]  # fmt: skip
    assert days_of(make_records(logs)) == {0, 1, 20_000}
    assert days_of(b"") == set()


def test_many_groups_are_all_kept() -> None:
    groups, logs = Groups(), make_logs(400)
    for turn in range(20):
        groups.add(make_records([log._replace(key_id=log.key_id + turn * 400) for log in logs]))
        groups.add(make_records(logs))
    rows = groups.rows("A")
    assert len(rows) == 8000
    assert sum(row[12] for row in rows if isinstance(row[12], int)) == 20 * 800  # answers


@pytest.mark.parametrize("call", [
    lambda half: clean(half, 0, 9), lambda half: copy_rows(half, 1), days_of, lambda half: Groups().add(half),
    lambda half: place_of(half, 1),
])  # fmt: skip
def test_half_a_record_is_refused(call: Any) -> None:
    with pytest.raises(ValueError, match="not whole"):
        call(bytearray(RECORD_BYTES - 1))


def test_ends_of_a_copy_are_postgresqls() -> None:
    assert b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0) == COPY_HEADER
    assert struct.pack(">h", -1) == COPY_TRAILER
