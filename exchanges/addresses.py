"""The only place that opens a socket to an address an administrator entered.

Whatever the name resolves to is checked and then connected to as a number, so a second look-up cannot turn a
good address into a bad one, and every redirect comes through here again. What may be reached is a globally
routable unicast address or, where a setting allows it, this machine's loopback.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

import certifi

from exchanges.exceptions import AddressRefused

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Answers a host name with its addresses in numbers; raises OSError when there are none."""

WEBSOCKET: Final = ("wss", "ws")
HTTP: Final = ("https", "http")
_DEFAULT_PORTS: Final = {"wss": 443, "https": 443, "ws": 80, "http": 80}
_MAX_URL: Final = 2048

_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")

_REASONS: Final = tuple(
    (ip_network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared address space of a carrier"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),  # cloud metadata lives here
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "reserved"),
        ("192.52.193.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "reserved"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),  # holds fd00:ec2::254, the metadata service of AWS
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved"),  # Teredo, ORCHID and other special purposes
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),  # withdrawn (RFC 7526) and able to wrap any IPv4 address
        ("2620:4f:8000::/48", "reserved"),
        ("3fff::/20", "documentation"),
    )
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")


class Endpoint(NamedTuple):
    """Where a checked URL points to."""

    scheme: str
    host: str
    port: int


def address_refusal(address: IPv4Address | IPv6Address, *, allow_loopback: bool) -> str | None:
    """Say why *address* must not be connected to; None when it may be."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return "zone id"
        inner = _embedded(address)
        if inner is not None:
            return address_refusal(inner, allow_loopback=allow_loopback)
    for network, reason in _REASONS:
        if address in network:
            return None if reason == "loopback" and allow_loopback else reason
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return "not globally routable"
    return None


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Unwrap the IPv4 address that an IPv4-mapped or NAT64 address stands for."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped


def check_url(url: str, *, schemes: Collection[str], allow_loopback: bool) -> Endpoint:
    """Check everything about *url* that can be checked without looking its host up; raise AddressRefused.

    Only the secure one of *schemes* is accepted, except to this machine's loopback where that is allowed.
    """

    def refused(reason: str) -> AddressRefused:
        return AddressRefused(url[:200], reason)

    if len(url) > _MAX_URL:
        raise refused(f"longer than {_MAX_URL} characters")
    if not all("!" <= char <= "~" for char in url) or "\\" in url:
        raise refused("spaces, backslashes, control and non-ASCII characters are not allowed (use punycode)")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refused(str(error)) from None
    scheme, host = parts.scheme, parts.hostname or ""
    if scheme not in schemes:
        raise refused(f"the scheme must be {' or '.join(schemes)}")
    if "@" in parts.netloc:
        raise refused("user name and password are not allowed")
    if parts.fragment or "#" in url:
        raise refused("a fragment is not allowed")
    if reason := _host_refusal(parts, host, allow_loopback=allow_loopback):
        raise refused(reason)
    on_loopback = allow_loopback and _names_loopback(host)
    if scheme in ("ws", "http") and not on_loopback:
        raise refused(f"{scheme} is not encrypted")
    port = _DEFAULT_PORTS[scheme] if port is None else port
    if port != 443 and port < 1024 and not (on_loopback and port):
        raise refused(f"port {port} is not 443 or above 1023")
    return Endpoint(scheme, host, port)


def refused_columns(*, ws_url: str, rest_url: str, allow_loopback: bool) -> dict[str, str]:
    """Say for the addresses of a row, by column, why they will not be connected to."""
    refused = {}
    for column, url, schemes in (("ws_url", ws_url, WEBSOCKET), ("rest_url", rest_url, HTTP)):
        if url and "{ENDPOINT}" not in url:  # an exchange that is asked for its address is checked then
            plain = url.replace("{", "").replace("}", "")
            try:
                check_url(plain, schemes=schemes, allow_loopback=allow_loopback)
            except AddressRefused as error:
                refused[column] = str(error)
    return refused


def _host_refusal(parts: SplitResult, host: str, *, allow_loopback: bool) -> str | None:
    if literal := _literal(host):
        return address_refusal(literal, allow_loopback=allow_loopback)
    if parts.netloc.startswith("["):
        return "not an IPv6 address"
    if _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        return "not a dotted-quad IPv4 address"  # resolvers take decimal, octal, hex and short forms
    if len(host) > 253 or not _HOST.fullmatch(host):
        return "not a host name"
    if host == "localhost" or host.endswith(".localhost"):
        return None if allow_loopback else "loopback"
    return None


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _names_loopback(host: str) -> bool:
    literal = _literal(host)
    return (
        host == "localhost"
        if literal is None
        else address_refusal(literal, allow_loopback=False) == "loopback"
    )


def tls_context() -> ssl.SSLContext:
    """Return the settings of every encrypted connection: certificate and host name are always verified.

    The roots are the system's and Mozilla's: slim containers come without any of their own.
    """
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


async def resolve(host: str, port: int) -> Sequence[str]:
    """Look *host* up with the system's resolver."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


async def open_socket(
    host: str, port: int, *, allow_loopback: bool, timeout_s: float, resolver: Resolver = resolve
) -> socket.socket:
    """Return a non-blocking TCP socket connected to *host*; the caller owns it.

    Resolve once, refuse when any of the answers must not be reached, then try them in order, all within
    *timeout_s*. Raise AddressRefused, or OSError (which TimeoutError is) when the host cannot be reached.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    async with asyncio.timeout_at(deadline):
        addresses = [host] if _literal(host) else list(await resolver(host, port))
    checked = [_checked(host, text, allow_loopback=allow_loopback) for text in addresses]
    failure: OSError = OSError(f"{host} has no address")
    for tried, address in enumerate(checked):
        share_s = (deadline - loop.time()) / (len(checked) - tried)
        try:
            async with asyncio.timeout(share_s):
                return await _connect(host, address, port)
        except TimeoutError:
            failure = TimeoutError(f"no answer from {address} port {port}")
        except OSError as error:
            failure = error
    raise failure


def _checked(host: str, text: str, *, allow_loopback: bool) -> IPv4Address | IPv6Address:
    address = _literal(text)
    reason = "not an address" if address is None else address_refusal(address, allow_loopback=allow_loopback)
    if address is None or reason is not None:
        raise AddressRefused(host, reason or "", address=text)
    return address


async def _connect(host: str, address: IPv4Address | IPv6Address, port: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
        # The kernel reads some numbers its own way (0.0.0.0 means this host): what was reached counts.
        peer = sock.getpeername()[0]
        if ip_address(peer) != address:
            raise AddressRefused(host, f"reached {peer} instead", address=str(address))
    except BaseException:
        sock.close()
        raise
    return sock
