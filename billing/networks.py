"""The networks a key may be used from, and the network an address counts as. Sans-I/O."""

import ipaddress
from collections.abc import Iterable

MOST_NETWORKS = 8  # as the gate has places for
IPV6_PREFIX = 64  # what one subscriber usually has to himself


class NetworkError(ValueError):
    """What is wrong with a network as somebody wrote it."""


def parse_networks(texts: Iterable[str]) -> list[str]:
    """Return networks in their one spelling, each once, in the order given; NetworkError when one is none."""
    networks = list(dict.fromkeys(parse_network(text) for text in texts))
    if len(networks) > MOST_NETWORKS:
        raise NetworkError(f"A key can have at most {MOST_NETWORKS} networks.")
    return networks


def parse_network(text: str) -> str:
    """Return `192.0.2.0/24` for what was written; a single address is the network of one."""
    text = text.strip()
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise NetworkError(
            f"{text!r} is no network: write 192.0.2.0/24, 192.0.2.7 or 2001:db8::/32."
        ) from None
    if "/" in text and ipaddress.ip_address(text.partition("/")[0]) != network.network_address:
        raise NetworkError(f"{text!r} has bits beyond its prefix: did you mean {network}?")
    return str(network)


def source_of(address: str) -> str:
    """Return whom an address counts as: itself, or its /64; empty for what is no address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
