"""The compiled reader and its specification never disagree, whatever comes."""

import shutil

import pytest

from telemetry._counters import DROP_REASONS
from tests.udp_engine.datagrams import Outcome
from tests.udp_engine.fuzz import by_native, by_twin, compare, datagrams
from tests.udp_engine.sanitized import run_sanitized
from udp_engine._datagram import parse

NOT_OF_THE_TEXT = {"kernel", "bad_source", "too_short", "limited", "shed", "unsent", "stopped"}
EVERY_KIND = {"price", "prices", "summary", "bad_request"} | set(DROP_REASONS) - NOT_OF_THE_TEXT


def native(datagram: bytes) -> Outcome:
    return by_native(parse, datagram)


def test_readers_agree_on_200_000_datagrams() -> None:
    seen = compare(native, by_twin, 200_000, seed=4)
    assert set(seen) == EVERY_KIND
    assert min(seen.values()) > 100
    assert seen["price"] + seen["prices"] > 20_000


@pytest.mark.full
@pytest.mark.timeout(1_800)
def test_readers_agree_on_ten_million_datagrams() -> None:
    assert set(compare(native, by_twin, 10_000_000, seed=5)) == EVERY_KIND


@pytest.mark.full
@pytest.mark.timeout(1_800)
@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc: apt-get install gcc")
def test_compiled_reader_keeps_within_its_memory() -> None:
    assert run_sanitized(200_000, seed=6) == 0


def test_disagreement_is_told_with_the_datagram_that_shows_it() -> None:
    with pytest.raises(AssertionError, match=r"(?s)datagram \d+ of seed 1: b.*must be .*but is"):
        compare(lambda datagram: ("drop", "malformed"), by_twin, 1_000, seed=1)


def test_same_seed_makes_the_same_datagrams() -> None:
    assert list(datagrams(500, seed=2)) == list(datagrams(500, seed=2)) != list(datagrams(500, seed=3))


def test_lengths_come_close_to_the_limit_on_both_sides() -> None:
    lengths = {len(datagram) for datagram in datagrams(20_000, seed=8)}
    assert {0, 1, 1_199, 1_200, 1_201} <= lengths
