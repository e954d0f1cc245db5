"""Key texts: what is made, what is accepted, and that the gate reads them as Python does."""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import keys
from billing._gate import KEY_BYTES, MALFORMED, UNKNOWN, Gate, format_gate, gate_size
from billing.keys import ALPHABET, KEY_CHARACTERS, PREFIX

KEY = "tb_live_0123456789ABCDEFGHIJKLMNOPQRSTUV3z17wE"


def empty_gate() -> Gate:
    buffer = bytearray(gate_size(1))
    format_gate(buffer, 1)
    return Gate(buffer)


GATE = empty_gate()


def is_read_by_the_gate(text: bytes) -> bool:
    code = GATE.admit(text, 0, 0).code
    assert code in (MALFORMED, UNKNOWN)
    return code == UNKNOWN


def test_key_has_prefix_secret_and_checksum() -> None:
    key = keys.generate(os.urandom)
    assert len(key) == KEY_CHARACTERS == KEY_BYTES == 46
    assert key.startswith("tb_live_")
    assert keys.is_wellformed(key)


def test_checksum_is_crc_32_in_base_62_with_leading_zeros() -> None:
    body = PREFIX + ALPHABET[:32]
    assert body + keys.checksum(body) == KEY
    assert keys.checksum("") == "000000"


def test_keys_are_never_the_same() -> None:
    assert len({keys.generate(os.urandom) for _ in range(1000)}) == 1000


def test_every_letter_is_as_likely_as_any_other() -> None:
    chance = random.Random(1)
    letters = Counter("".join(keys.generate(chance.randbytes)[8:40] for _ in range(10_000)))
    expected = 320_000 / 62
    assert len(letters) == 62
    # Chi-squared of 61 degrees of freedom passes 110 once in ten thousand times; a plain modulo, always.
    assert sum((count - expected) ** 2 / expected for count in letters.values()) < 110


def test_bytes_that_would_favour_some_letters_are_passed_over() -> None:
    served = iter([bytes([255] * 31 + [0]), bytes(range(248, 256)) * 4, bytes(range(32))])
    assert keys.generate(lambda count: next(served)) == with_checksum(PREFIX + "0" + ALPHABET[:31])


@pytest.mark.parametrize("position", range(len(KEY)))
def test_mistyped_key_is_malformed_wherever_the_slip_is(position: int) -> None:
    wrong = "b" if KEY[position] != "b" else "a"
    text = KEY[:position] + wrong + KEY[position + 1 :]
    assert not keys.is_wellformed(text)
    assert not is_read_by_the_gate(text.encode())


@pytest.mark.parametrize("position", range(8, len(KEY) - 1))
def test_neighbours_exchanged_are_malformed(position: int) -> None:
    text = KEY[:position] + KEY[position + 1] + KEY[position] + KEY[position + 2 :]
    assert keys.is_wellformed(text) is (text == KEY)
    assert is_read_by_the_gate(text.encode()) is (text == KEY)


def with_checksum(body: str) -> str:
    return body + keys.checksum(body)


MALFORMED_TEXTS = {
    "empty": "",
    "too short": KEY[:-1],
    "too long": KEY + "0",
    "another prefix": with_checksum("tb_test_" + KEY[8:40]),
    "upper-case prefix": with_checksum("TB_LIVE_" + KEY[8:40]),
    "dash in the secret": with_checksum(KEY[:20] + "-" + KEY[21:40]),
    "zero byte in the secret": with_checksum(KEY[:20] + "\0" + KEY[21:40]),
    "letter of another script": with_checksum(KEY[:20] + "é" + KEY[21:40]),
    "space around": f" {KEY[1:]}",
    "checksum too large": KEY[:40] + "zzzzzz",
    "checksum with a dash": KEY[:40] + "-" + KEY[41:],
}


@pytest.mark.parametrize("text", MALFORMED_TEXTS.values(), ids=MALFORMED_TEXTS)
def test_text_that_is_no_key_is_malformed(text: str) -> None:
    assert not keys.is_wellformed(text)
    assert not is_read_by_the_gate(text.encode("latin-1"))


@given(st.text(alphabet=ALPHABET, min_size=32, max_size=32))
def test_gate_reads_what_python_reads(secret: str) -> None:
    text = with_checksum(PREFIX + secret)
    assert keys.is_wellformed(text)
    assert is_read_by_the_gate(text.encode())


@given(st.binary(min_size=44, max_size=48))
def test_gate_refuses_any_bytes_as_python_does(text: bytes) -> None:
    assert is_read_by_the_gate(text) is keys.is_wellformed(text.decode("latin-1"))


def test_digest_is_sha_256_of_the_whole_text() -> None:
    assert keys.digest(KEY) == hashlib.sha256(KEY.encode()).digest()


def test_shown_prefix_gives_little_away() -> None:
    assert keys.shown_prefix(KEY) == "tb_live_0123…"
