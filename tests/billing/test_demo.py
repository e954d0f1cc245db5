"""Tokens of the demo by themselves."""

from __future__ import annotations

import random

import pytest

from billing.demo import BUCKETS, LIFE_S, PREFIX, DemoTokens

HERE = {"host": "prices.example", "address": "192.0.2.7"}
NOW_S = 1_800_000_000


def make_tokens(secret: str = "secret") -> DemoTokens:
    return DemoTokens(secret, random.Random(1).randbytes)


@pytest.fixture
def tokens() -> DemoTokens:
    return make_tokens()


def test_token_leads_to_a_bucket_that_the_gate_has(tokens: DemoTokens) -> None:
    text = tokens.make(**HERE, wall_s=NOW_S).encode()
    assert tokens.is_token(text)
    assert tokens.bucket(text, **HERE, wall_s=NOW_S) in {row.digest for row in tokens.rows()}


def test_rows_are_as_many_as_buckets_and_all_different(tokens: DemoTokens) -> None:
    rows = list(tokens.rows())
    assert len({row.digest for row in rows}) == len({row.key_id for row in rows}) == BUCKETS


def test_no_two_tokens_are_alike(tokens: DemoTokens) -> None:
    assert tokens.make(**HERE, wall_s=NOW_S) != tokens.make(**HERE, wall_s=NOW_S)


@pytest.mark.parametrize(
    ("wall_s", "good"),
    [(NOW_S, True), (NOW_S + LIFE_S - 1, True), (NOW_S + LIFE_S, False), (NOW_S - 1, False)],
)
def test_token_lives_for_so_long(tokens: DemoTokens, wall_s: int, good: bool) -> None:
    text = tokens.make(**HERE, wall_s=NOW_S).encode()
    assert (tokens.bucket(text, **HERE, wall_s=wall_s) is not None) is good


def test_token_of_another_secret_is_none(tokens: DemoTokens) -> None:
    text = make_tokens("another").make(**HERE, wall_s=NOW_S).encode()
    assert tokens.bucket(text, **HERE, wall_s=NOW_S) is None


def test_addresses_of_one_network_share_a_bucket(tokens: DemoTokens) -> None:
    found = set()
    for address in ("2001:db8::1", "2001:db8::2"):
        there = {**HERE, "address": address}
        text = tokens.make(**there, wall_s=NOW_S).encode()
        found.add(tokens.bucket(text, **there, wall_s=NOW_S))
    assert len(found) == 1


def test_no_character_can_be_changed(tokens: DemoTokens) -> None:
    text = tokens.make(**HERE, wall_s=NOW_S).encode()
    for place in range(len(text)):
        for other in b"A_-z=\xff ":
            if text[place] != other:
                spoilt = text[:place] + bytes([other]) + text[place + 1 :]
                assert tokens.bucket(spoilt, **HERE, wall_s=NOW_S) is None, (place, other)


@pytest.mark.parametrize(
    "text", [b"", PREFIX, PREFIX + b"A" * 40, PREFIX + b"\x00" * 40, b"x" * 48, PREFIX * 6]
)
def test_anything_else_is_no_token(tokens: DemoTokens, text: bytes) -> None:
    assert tokens.bucket(text, **HERE, wall_s=NOW_S) is None
