"""Tokens for the demo on the public page: short-lived, for one host and one client's network. Sans-I/O.

A token is no key: it is made and checked with a secret that all workers share, and stored nowhere. What it
may do is limited by buckets in the gate, which clients share by network, however many tokens they have.

    tb_demo_<base64url of: end of life in seconds, 4 bytes; chance, 10 bytes; HMAC-SHA256, first 16 bytes>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Callable, Iterator

from billing._gate import DEMO, SCOPE_PRICES, GateKey
from billing.networks import source_of
from billing.ratelimit import SECOND_NS

PREFIX = b"tb_demo_"
LIFE_S = 300
BUCKETS = 4_096
PER_SECOND = 1
BURST = 10
PER_MONTH = 1_000
"""Of all clients of a bucket; the free plan's own number, so that a key is always the better way."""
FIRST_KEY_ID = 1 << 62
"""Ids of buckets; the database's own never get so far."""

_PARTS = struct.Struct(">I10s16s")  # 30 bytes: base64 needs no padding
_TOKEN_BYTES = len(PREFIX) + _PARTS.size // 3 * 4


class DemoTokens:
    """Make and check tokens. *secret* is the site's own; raises nothing for whatever text comes."""

    def __init__(self, secret: str, randbytes: Callable[[int], bytes]) -> None:
        self._secret = hashlib.sha256(b"demo tokens\n" + secret.encode()).digest()
        self._randbytes = randbytes

    def make(self, *, host: str, address: str, wall_s: int) -> str:
        """Make a token for a page of *host* that a client at *address* has open."""
        end_s, chance = wall_s + LIFE_S, self._randbytes(10)
        mac = self._mac(end_s, chance, host, address)
        return (PREFIX + base64.urlsafe_b64encode(_PARTS.pack(end_s, chance, mac))).decode()

    def is_token(self, text: bytes) -> bool:
        return text.startswith(PREFIX)

    def bucket(self, text: bytes, *, host: str, address: str, wall_s: int) -> bytes | None:
        """Return the digest of a token's bucket in the gate; None when it is not good here and now."""
        parts = _decode(text)
        if len(parts) != _PARTS.size:
            return None
        end_s, chance, mac = _PARTS.unpack(parts)
        if not hmac.compare_digest(mac, self._mac(end_s, chance, host, address)):
            return None
        return self._digest(self._number(address)) if wall_s < end_s <= wall_s + LIFE_S else None

    def rows(self) -> Iterator[GateKey]:
        """Yield what the gate must hold for tokens to be admitted."""
        for number in range(BUCKETS):
            yield GateKey(
                digest=self._digest(number),
                key_id=FIRST_KEY_ID + number,
                flags=DEMO | SCOPE_PRICES,
                emission_ns=SECOND_NS // PER_SECOND,
                burst=BURST,
                cap=PER_MONTH,
            )

    def _mac(self, end_s: int, chance: bytes, host: str, address: str) -> bytes:
        words = "\n".join((str(end_s), chance.hex(), host, source_of(address)))
        return hmac.digest(self._secret, words.encode(), "sha256")[:16]

    def _number(self, address: str) -> int:
        place = hmac.digest(self._secret, b"network\n" + source_of(address).encode(), "sha256")
        return int.from_bytes(place[:8], "big") % BUCKETS

    def _digest(self, number: int) -> bytes:
        return hmac.digest(self._secret, b"bucket\n%d" % number, "sha256")


def _decode(text: bytes) -> bytes:
    """Return a token's bytes; none at all for what is none."""
    if len(text) != _TOKEN_BYTES:
        return b""
    try:
        return base64.b64decode(text.removeprefix(PREFIX), b"-_", validate=True)
    except binascii.Error:
        return b""
