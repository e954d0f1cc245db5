"""Verdicts in the words of the protocols, and addresses in the bytes of the gate."""

from __future__ import annotations

import ipaddress

import pytest

from billing import _gate
from billing.admission import REFUSALS, Code, pack_address, pack_network


def test_codes_are_those_of_the_gate() -> None:
    assert {code.name: code.value for code in Code} == {code.name: getattr(_gate, code.name) for code in Code}


def test_every_refusal_has_its_words() -> None:
    assert set(REFUSALS) == set(Code) - {Code.ADMITTED}


@pytest.mark.parametrize(
    ("code", "status", "problem", "udp"),
    [
        (Code.MALFORMED, 401, "unauthorized", "unauthorized"),
        (Code.UNKNOWN, 401, "unauthorized", "unauthorized"),
        (Code.REVOKED, 403, "revoked", "revoked"),
        (Code.EXPIRED, 403, "revoked", "revoked"),
        (Code.WRONG_SCOPE, 403, "not_in_plan", "unauthorized"),
        (Code.WRONG_NETWORK, 403, "wrong_network", "unauthorized"),
        (Code.RATE_LIMITED, 429, "rate_limited", "rate_limited"),
        (Code.QUOTA_EXCEEDED, 429, "quota_exceeded", "quota_exceeded"),
    ],
)
def test_refusal_says(code: Code, status: int, problem: str, udp: str) -> None:
    assert REFUSALS[code] == (status, problem, udp)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("192.0.2.7", "::ffff:192.0.2.7"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_address_is_packed_as_ipv6(text: str, same: str) -> None:
    assert pack_address(text) == ipaddress.IPv6Address(same).packed


@pytest.mark.parametrize("text", ["", "localhost", "192.0.2", "192.0.2.7:80", "[::1]"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert pack_address(text) is None


@pytest.mark.parametrize(
    ("text", "address", "prefix"),
    [
        ("192.0.2.0/24", "::ffff:192.0.2.0", 120),
        ("192.0.2.7", "::ffff:192.0.2.7", 128),
        ("0.0.0.0/0", "::ffff:0.0.0.0", 96),
        ("2001:db8::/32", "2001:db8::", 32),
        ("::/0", "::", 0),
    ],
)
def test_network_is_packed_as_ipv6(text: str, address: str, prefix: int) -> None:
    assert pack_network(text) == (ipaddress.IPv6Address(address).packed, prefix)


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        pack_network("nowhere")
