from __future__ import annotations

import msgspec
import pytest

from exchanges.feed.status import FeedStatus, NodeStatus, RefusedTick, decode_status, encode_status


def full_status(feeds: int, detail: str) -> NodeStatus:
    one = FeedStatus(
        state="live",
        ticks=5,
        refused_symbols={f"S{number}": detail for number in range(20)},
        recent_refusals=[RefusedTick(number, "BTC", "older", detail) for number in range(20)],
        stuck_assets=["BTC"],
    )
    return NodeStatus(
        generated_ns=1, feeds={f"feed{number}": msgspec.structs.replace(one) for number in range(feeds)}
    )


def test_document_comes_back_as_it_was() -> None:
    status = full_status(2, "text")
    assert decode_status(encode_status(status, limit_bytes=262_144)) == status


def test_document_that_is_too_long_keeps_what_counts() -> None:
    document = encode_status(full_status(64, "x" * 200), limit_bytes=262_144)
    assert len(document) <= 262_144
    status = decode_status(document)
    assert status is not None
    assert len(status.feeds) == 64
    assert status.feeds["feed0"].ticks == 5


@pytest.mark.parametrize(
    "document", [b"", b"{}", b"[]", b"\xff", b'{"generated_ns":1,"feeds":{"x":{"state":"odd"}}}']
)
def test_foreign_document_is_none(document: bytes) -> None:
    assert decode_status(document) is None
