"""UDP sockets: opened with room for bursts, and asked what the kernel did with them. Linux."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import NamedTuple

# asm-generic/socket.h and linux/in.h; Python has no names for them.
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32
SO_MEMINFO, MEMINFO_DROPS, MEMINFO_WORDS = 55, 8, 9
SO_COOKIE = 57
IP_PKTINFO = 8


class Buffers(NamedTuple):
    """What the kernel gave, in bytes of datagrams and what it keeps beside them."""

    receive_bytes: int
    send_bytes: int


def open_socket(host: str, port: int) -> socket.socket:
    """Bind one of the sockets that share *port*. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened


def open_sockets(host: str, port: int, count: int) -> list[socket.socket]:
    """Bind *count* sockets that share *port*, which nobody else has. Raises OSError.

    Sharing is open to every process of the same user: without looking first, two nodes would each get half
    of what is meant for the other.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as alone:
        alone.bind((host, port))
    opened = [open_socket(host, port)]
    try:
        while len(opened) < count:
            opened.append(open_socket(host, opened[0].getsockname()[1]))
    except OSError:
        for one in opened:
            one.close()
        raise
    return opened


def enlarge(opened: socket.socket, wanted_bytes: int) -> Buffers:
    """Ask for large buffers, beyond the system's limit where that is allowed; return what there is now."""
    for force, ask in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            opened.setsockopt(socket.SOL_SOCKET, force, wanted_bytes)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, ask, wanted_bytes)
    return buffers(opened)


def buffers(opened: socket.socket) -> Buffers:
    """Read the sizes back. The kernel doubles what it is asked for, for its own books, and tells that."""
    return Buffers(
        opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2,
        opened.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2,
    )


def kernel_drops(opened: socket.socket) -> int:
    """Return how many datagrams this socket has lost so far; the count wraps at 2³².

    It is the one that SO_RXQ_OVFL puts beside the next datagram, but can be asked for: a socket that falls
    silent keeps no loss to itself.
    """
    words = opened.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * MEMINFO_WORDS)
    return int(struct.unpack(f"={MEMINFO_WORDS}I", words)[MEMINFO_DROPS])


def cookie(opened: socket.socket) -> int:
    """Return the socket's own number: no other one ever has it while the machine runs."""
    return int(struct.unpack("=Q", opened.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0])


def is_wildcard(opened: socket.socket) -> bool:
    """Say whether the socket is bound to every address of this machine."""
    return ipaddress.ip_address(opened.getsockname()[0].partition("%")[0]).is_unspecified


def own_address(opened: socket.socket) -> tuple[bytes, int]:
    """Return the address in 16 bytes and the port to which the socket is bound."""
    host, port = opened.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        address = ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
    return address.packed, port


def tell_address(opened: socket.socket) -> None:
    """Have the kernel say to which of our addresses each datagram came: it is answered from there."""
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        opened.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
