"""What the gate's verdicts mean over HTTP and over UDP, and addresses as the gate reads them. Sans-I/O."""

from __future__ import annotations

import ipaddress
from enum import IntEnum
from typing import NamedTuple


class Code(IntEnum):
    """The verdicts, in the order in which they are looked for; `billing._gate` has the same numbers."""

    ADMITTED = 0
    MALFORMED = 1
    UNKNOWN = 2
    REVOKED = 3
    EXPIRED = 4
    WRONG_NETWORK = 5
    WRONG_SCOPE = 6
    QUOTA_EXCEEDED = 7
    RATE_LIMITED = 8


class Refusal(NamedTuple):
    """A refusal in the words of both protocols."""

    status: int
    problem: str
    udp: str


_UNAUTHORIZED = Refusal(401, "unauthorized", "unauthorized")
_REVOKED = Refusal(403, "revoked", "revoked")

# A malformed key and an unknown one are told apart only in the logs: the answer is no help in guessing.
REFUSALS: dict[Code, Refusal] = {
    Code.MALFORMED: _UNAUTHORIZED,
    Code.UNKNOWN: _UNAUTHORIZED,
    Code.REVOKED: _REVOKED,
    Code.EXPIRED: _REVOKED,
    Code.WRONG_NETWORK: Refusal(403, "wrong_network", "unauthorized"),
    Code.WRONG_SCOPE: Refusal(403, "not_in_plan", "unauthorized"),
    Code.QUOTA_EXCEEDED: Refusal(429, "quota_exceeded", "quota_exceeded"),
    Code.RATE_LIMITED: Refusal(429, "rate_limited", "rate_limited"),
}

_IPV4_BITS = 32
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, where IPv4 lives in IPv6


def pack_address(text: str) -> bytes | None:
    """Return an address as 16 bytes, IPv4 mapped into IPv6, without its zone; None for what is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address.packed if address.version == 6 else _MAPPED + address.packed


def pack_network(text: str) -> tuple[bytes, int]:
    """Return a network as 16 bytes and the length of its prefix. ValueError for what is none."""
    network = ipaddress.ip_network(text)
    if network.version == 6:
        return network.network_address.packed, network.prefixlen
    return _MAPPED + network.network_address.packed, network.prefixlen + 128 - _IPV4_BITS
