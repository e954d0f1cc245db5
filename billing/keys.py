"""API keys as texts: `tb_live_`, 32 random characters, and a checksum of 6. Sans-I/O.

The checksum is no secret: it tells a mistyped or cut-off key from an unknown one without a look-up, and
lets scanners for leaked secrets be sure of a find. What is kept of a key is the SHA-256 of its whole text:
nobody guesses 190 random bits, so that a slow password hash would protect nothing and cost every answer.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable

PREFIX = "tb_live_"
SECRET_CHARACTERS = 32
CHECKSUM_CHARACTERS = 6
KEY_CHARACTERS = len(PREFIX) + SECRET_CHARACTERS + CHECKSUM_CHARACTERS
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SHOWN_CHARACTERS = len(PREFIX) + 4

_LETTERS = frozenset(ALPHABET)
_FAIR = 256 - 256 % len(ALPHABET)  # bytes from here on would favour the alphabet's first letters


def generate(randbytes: Callable[[int], bytes]) -> str:
    """Make a new key from a cryptographic source of bytes (`secrets.token_bytes`)."""
    secret = ""
    while len(secret) < SECRET_CHARACTERS:
        fair = (byte for byte in randbytes(SECRET_CHARACTERS) if byte < _FAIR)
        secret += "".join(ALPHABET[byte % len(ALPHABET)] for byte in fair)
    body = PREFIX + secret[:SECRET_CHARACTERS]
    return body + checksum(body)


def checksum(body: str) -> str:
    """Write the CRC-32 of *body* in base 62, with leading zeros."""
    value, letters = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_CHARACTERS):
        value, digit = divmod(value, len(ALPHABET))
        letters = ALPHABET[digit] + letters
    return letters


def is_wellformed(text: str) -> bool:
    """Say whether *text* could be a key: length, prefix, alphabet and checksum."""
    body, given = text[:-CHECKSUM_CHARACTERS], text[-CHECKSUM_CHARACTERS:]
    return (
        len(text) == KEY_CHARACTERS
        and text.startswith(PREFIX)
        and _LETTERS.issuperset(body[len(PREFIX) :])
        and given == checksum(body)
    )


def digest(text: str) -> bytes:
    """Hash a key into the 32 bytes that the database and the gate hold."""
    return hashlib.sha256(text.encode()).digest()


def shown_prefix(text: str) -> str:
    """Cut a key down to what may be shown again, enough for its owner to recognise it."""
    return f"{text[:SHOWN_CHARACTERS]}…"
