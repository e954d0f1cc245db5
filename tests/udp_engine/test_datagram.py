"""The compiled reader of datagrams, by the table; `test_fuzz.py` holds it to its twin."""

import pytest

from tests.udp_engine.datagrams import TABLE, Outcome
from tests.udp_engine.fuzz import by_native
from udp_engine._datagram import parse


def native(datagram: bytes) -> Outcome:
    return by_native(parse, datagram)


def named(datagram: bytes) -> str:
    return f"{len(datagram)}:{datagram[:48]!r}"


@pytest.mark.parametrize(("datagram", "expected"), TABLE, ids=[named(row[0]) for row in TABLE])
def test_datagram_is_read_as_it_must_be(datagram: bytes, expected: Outcome) -> None:
    assert native(datagram) == expected


def test_reading_changes_no_bytes_of_the_caller() -> None:
    """Strings are unescaped where they lie: in a copy."""
    datagram = b'{"asset":"\\u0042tc"}'
    before = bytes(bytearray(datagram))
    assert parse(datagram)[1] == "BTC"
    assert datagram == before
