"""What is told of a document that was set aside, whatever it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.documents import encode
from telemetry.envelope import pack
from telemetry.preview import MOST_BYTES, MOST_FIELDS, MOST_RECORDS, preview
from tests.telemetry.usage import make_envelope, make_logs, make_records


def document(count: int = 3, **changes: object) -> bytes:
    return encode(pack(make_envelope(make_records(make_logs(count)))) | changes)


def test_good_envelope_is_told_with_its_first_records() -> None:
    told = preview(document(50))
    fields = dict(told.fields)
    assert (told.problem, told.beginning, told.total) == ("", "", 50)
    assert (fields["type"], fields["count"], fields["node"]) == ("'usage_log'", "50", "'BeastMain'")
    assert fields["payload"].endswith(" bytes")
    assert len(told.records) == MOST_RECORDS
    log = make_logs(1)[0]
    assert (told.records[0].key_id, told.records[0].asset, told.records[0].price) == (
        log.key_id,
        log.asset,
        log.price,
    )


@pytest.mark.parametrize(
    ("spoilt", "problem"),
    [
        (document(type="other"), "another version or type"),
        (document(damaged=-1), "damaged cannot be"),
        (document(payload=b"no zlib"), "cannot be decompressed"),
    ],
)
def test_fields_of_what_cannot_be_written_are_told_with_the_reason(spoilt: bytes, problem: str) -> None:
    told = preview(spoilt)
    assert problem in told.problem
    assert dict(told.fields)["node"] == "'BeastMain'"
    assert told.records == ()


def test_beginning_of_what_is_no_document_is_told() -> None:
    told = preview(b"\xc1" + bytes(10_000))
    assert "cannot be decoded" in told.problem
    assert told.beginning.startswith("c1000000 00000000")
    assert len(told.beginning) < 3 * MOST_BYTES


def test_what_is_told_stays_short() -> None:
    told = preview(encode({f"{'x' * 10_000}{number}": "y" * 10_000 for number in range(1_000)}))
    assert len(told.fields) == MOST_FIELDS
    assert all(len(text) < 200 for field in told.fields for text in field)


VALUES = st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary()
DOCUMENTS = st.dictionaries(st.text(), st.recursive(VALUES, st.lists)).map(encode)


@given(st.binary(max_size=200) | DOCUMENTS)
def test_anything_can_be_previewed(anything: bytes) -> None:
    told = preview(anything)
    assert told.problem
    assert told.records == ()
