"""What /docs says of the UDP interface is what the interface has."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from tests.twins import datagram
from trinity_site.udp_reference import (
    ANSWER,
    FIELDS,
    MEMBERS,
    SUMMARY,
    SUMMARY_CODES,
    SUMMARY_MEMBERS,
    make_udp_reference,
)
from udp_engine import wire

PAGE = (Path(__file__).parents[2] / "docs" / "udp.md").read_text()


def test_fields_are_those_that_are_read() -> None:
    assert {field.name for field in FIELDS} == datagram.FIELDS


def test_members_are_those_that_are_written() -> None:
    structs = (wire.Price, wire.Failure, wire.Prices, wire.Refusal)
    written = {field.encode_name for struct in structs for field in msgspec.structs.fields(struct)}
    assert {field.name for field in MEMBERS} == written | {"id"}


def test_example_is_an_answer_and_that_of_the_protocols_page() -> None:
    id, price = wire.parse_reply(ANSWER.encode())
    assert (id, type(price)) == ("7", wire.Price)
    assert f"← {ANSWER}\n" in PAGE


def test_members_of_a_summary_are_those_that_are_written() -> None:
    written = [field.encode_name for field in msgspec.structs.fields(wire.Summary)]
    assert [field.name for field in SUMMARY_MEMBERS] == ["id", *written]


def test_summary_is_an_answer_and_that_of_the_protocols_page() -> None:
    id, summary = wire.parse_reply(SUMMARY.encode())
    assert (id, type(summary)) == ("7", wire.Summary)
    assert f"← {SUMMARY}\n" in PAGE


def test_codes_are_told_with_what_to_do() -> None:
    reference = make_udp_reference("node.example", 2679, 2680)
    assert reference.codes is wire.CODES
    assert all(re.fullmatch(r"[A-Z].*\.", text) for text in {**wire.CODES, **SUMMARY_CODES}.values())


def test_codes_of_a_node_without_prices_are_those_that_summaries_are_refused_with() -> None:
    reference = make_udp_reference("node.example", None, 2680)
    assert reference.codes is SUMMARY_CODES
    assert set(SUMMARY_CODES) < set(wire.CODES)
