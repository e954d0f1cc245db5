"""Envelopes: what is packed comes back, and nothing else is taken for one."""

from __future__ import annotations

import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import pytest

from telemetry._spool import RECORD_BYTES, Tally, decode
from telemetry.envelope import LAST_PLACE, MOST, Envelope, compress, pack, read_records, unpack
from telemetry.exceptions import Poison
from tests.telemetry.usage import make_envelope, make_logs, make_records

RECORDS = make_records(make_logs(100))


def test_what_is_packed_comes_back() -> None:
    envelope = make_envelope(RECORDS, 10, 50, damaged=[12, 59], final=True, tally=Tally(9, 8, 3, 2, 1))
    document = pack(envelope)
    assert (document["v"], document["type"], document["offset"], document["count"]) == (
        1,
        "usage_log",
        10,
        50,
    )
    assert unpack(document) == envelope
    assert [log.sequence for log in decode(read_records(envelope))] == [
        place + 1 for place in range(10, 60) if place not in (12, 59)
    ]


def test_final_envelope_may_be_empty() -> None:
    envelope = make_envelope(RECORDS, 100, 0, final=True)
    assert unpack(pack(envelope)) == envelope
    assert len(read_records(envelope)) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2),
        ("type", "click"),
        ("node", ""),
        ("node", "a" * 65),
        ("node", "é" * 33),
        ("node", "a\0b"),
        ("node", "\ud800"),
        ("node", b"BeastMain"),
        ("segment", "3"),
        ("segment", "3-01"),
        ("segment", "3-1\n"),
        ("segment", "٣-1"),
        ("segment", f"{2**31}-1"),
        ("segment", f"3-{2**63}"),
        ("boot_ns", -1),
        ("boot_ns", 2**63),
        ("boot_ns", 1.0),
        ("offset", True),
        ("offset", LAST_PLACE),
        ("count", MOST + 1),
        ("count", None),
        ("damaged", 101),
        ("final", 1),
        ("tally", [1, 2, 3, 4]),
        ("tally", [1, 2, 3, 4, 2**63]),
        ("tally", "12345"),
        ("payload", "text"),
        ("payload", bytes(MOST * RECORD_BYTES + 16_385)),
    ],
)
def test_field_that_cannot_be_is_poison(field: str, value: object) -> None:
    with pytest.raises(Poison):
        unpack(pack(make_envelope(RECORDS)) | {field: value})


@pytest.mark.parametrize("document", [None, [], "usage_log", b"", 7, {}])
def test_what_is_no_document_is_poison(document: object) -> None:
    with pytest.raises(Poison):
        unpack(document)


def test_document_with_a_field_less_or_more_is_poison() -> None:
    document = pack(make_envelope(RECORDS))
    with pytest.raises(Poison, match="fields"):
        unpack({name: value for name, value in document.items() if name != "final"})
    with pytest.raises(Poison, match="fields"):
        unpack(document | {"more": 1})


def swapped(first: int, second: int) -> bytes:
    places = list(range(100))
    places[first], places[second] = places[second], places[first]
    return b"".join(RECORDS[place * RECORD_BYTES :][:RECORD_BYTES] for place in places)


@pytest.mark.parametrize(
    ("payload", "changes"),
    [
        (b"", {}),
        (b"no zlib", {}),
        (compress(RECORDS)[:-1], {}),
        (compress(RECORDS) + b"more", {}),
        (compress(RECORDS[:-1]), {}),
        (compress(RECORDS[:-RECORD_BYTES]), {}),
        (compress(RECORDS + RECORDS[:RECORD_BYTES]), {}),
        (compress(RECORDS), {"damaged": 1}),
        (compress(RECORDS), {"offset": 1}),
        (compress(swapped(3, 4)), {}),
        (compress(RECORDS[:RECORD_BYTES] * 100), {}),
        (compress(bytes(len(RECORDS))), {}),
    ],
)
def test_payload_that_is_not_of_its_places_is_poison(payload: bytes, changes: dict[str, Any]) -> None:
    envelope = replace(make_envelope(RECORDS), payload=payload, **changes)
    with pytest.raises(Poison, match=r"payload|records"):
        read_records(envelope)


def test_payload_that_grows_without_end_is_not_decompressed_to_its_end() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    envelope = unpack(pack(replace(make_envelope(RECORDS), payload=bomb)))
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(Poison, match="as long as"):
            read_records(envelope)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_text_of_an_envelope_leaves_out_its_payload() -> None:
    assert "payload" not in repr(make_envelope(RECORDS))
    assert isinstance(make_envelope(RECORDS), Envelope)
