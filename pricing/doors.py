"""What one connection may cost, and how many there may be. Pure."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass

from pricing.problems import Problem


@dataclass(frozen=True, slots=True)
class Limits:
    head_bytes: int = 16_384
    url_bytes: int = 8_192
    headers: int = 100
    waiting: int = 16
    """Pipelined requests; what one piece holds may come on top. The client's others stay unread meanwhile."""

    connections: int = 4_000
    connections_per_address: int = 512
    """An address is one of IPv4, or a /64 of IPv6: one machine has all of that."""

    health_connections: int = 256

    head_s: float = 10.0
    """From the connection, or a head's first byte, to the head's end. Between requests keep-alive counts."""

    body_s: float = 30.0
    write_s: float = 30.0
    """How long a client may leave its answers unread."""

    linger_s: float = 2.0
    """How long a refused client is listened to: a connection closed at once may take the answer with it."""


class Door:
    """Count who is connected to one port."""

    def __init__(self, connections: int, per_address: int) -> None:
        self._connections, self._per_address = connections, per_address
        self._inside = 0
        self._by_address: Counter[str] = Counter()

    def enter(self, client: tuple[str, int] | None) -> Problem | None:
        """Take a place, or say why there is none."""
        address = address_of(client)
        if self._inside >= self._connections:
            return Problem("too_many_connections", "All connections are taken; try again in a moment.")
        if self._by_address[address] >= self._per_address:
            detail = f"Your address has {self._per_address} connections already; please use those again."
            return Problem("too_many_connections", detail)
        self._inside += 1
        self._by_address[address] += 1
        return None

    def leave(self, client: tuple[str, int] | None) -> None:
        address = address_of(client)
        self._inside -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


def address_of(client: tuple[str, int] | None) -> str:
    """Name whom a connection counts for."""
    host = client[0] if client else ""  # nobody is known on a Unix socket
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex()
