"""Documents of the queue as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.documents import decode, encode
from telemetry.exceptions import Poison


def test_document_comes_back_as_it_was_and_binary_stays_binary() -> None:
    document = {"v": 1, "type": "usage_log", "tally": [1, 2], "final": False, "payload": bytes(range(256))}
    assert decode(encode(document)) == document


def test_binary_costs_no_more_than_itself() -> None:
    assert len(encode({"payload": b"\xff" * 100_000})) < 100_000 + 20


@pytest.mark.parametrize("document", [b"", b"\xc1", b"\x81\xa1", b"\x91" * 100_000, b"\x01\x02"])
def test_bytes_that_are_no_document_are_poison(document: bytes) -> None:
    with pytest.raises(Poison, match="cannot be decoded"):
        decode(document)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_whatever_comes_is_a_document_or_poison(document: bytes) -> None:
    try:
        decode(document)
    except Poison as poison:
        assert poison.reason
