"""The stress client: what may be loaded, what the system allows, and one level after another.

StressError
├── TargetRefused   the target is somebody else's, or cannot be understood
└── LimitReached    the system allows fewer sockets than a level has
"""

from __future__ import annotations

import ipaddress
import os
import platform
import resource
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote, urlsplit

from udp_engine import _load
from udp_engine._load import Reading, latency_ns
from udp_engine.exceptions import UdpError
from udp_engine.pool import Making, Pool
from udp_engine.report import Level
from udp_engine.wire import build_request

LEVELS = (30, 60, 120, 250, 500, 1_000, 2_000, 4_000, 8_000, 12_000, 15_000, 18_000, 21_000)
MOST_SOCKETS = 1_000_000
SPARE_FILES = 64  # what the process has open beside its sockets, and a little more
MOST_PROCESSES = 16
PAGE = Path(__file__).with_name("report.html")
PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
ID = "00000000"  # the native loop puts each request's own there
OWN_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)

Protocol = Literal["udp", "http"]


class StressError(UdpError):
    """The root of what the stress client raises."""


class TargetRefused(StressError):
    """The *target* must not be loaded, or is none."""

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(target, reason)
        self.target = target
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.target}: {self.reason}"


class LimitReached(StressError):
    """The system allows *allowed* sockets where *wanted* are needed; *limit* names what stands in the way."""

    def __init__(self, wanted: int, allowed: int, limit: str) -> None:
        super().__init__(wanted, allowed, limit)
        self.wanted = wanted
        self.allowed = allowed
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.wanted:,} sockets are wanted and {self.allowed:,} fit: {self.limit}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go; *host* as it was typed, *address* as it was resolved."""

    protocol: Protocol
    host: str
    port: int
    address: str
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.path}" if self.protocol == "http" else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a run goes: its levels are numbers of sockets."""

    levels: Sequence[int] = LEVELS
    seconds: float = 5.0
    window: int = 1
    rate: float = 0.0
    warm_up_s: float = 1.0
    pause_s: float = 0.5
    timeout_s: float = 2.0
    processes: int = 1

    def __post_init__(self) -> None:
        if not self.levels or not all(0 < level <= MOST_SOCKETS for level in self.levels):
            raise ValueError(f"levels are numbers of sockets, 1 to {MOST_SOCKETS:,}")
        if any(after <= before for before, after in pairwise(self.levels)):
            raise ValueError("each level must be higher than the one before: the pool of sockets only grows")
        if not 1 <= self.window <= _load.MAX_WINDOW:
            raise ValueError(f"1 to {_load.MAX_WINDOW} requests may be in flight on a socket")
        if not 1 <= self.processes <= MOST_PROCESSES or self.processes > min(self.levels):
            raise ValueError(f"1 to {MOST_PROCESSES} processes share the sockets of a level")
        if not 0.1 <= self.seconds <= 86_400 or not 0 <= self.rate <= 10_000_000:
            raise ValueError("a level takes 0.1 seconds to a day, and a rate is at most 10 million")
        if not 0.01 <= self.timeout_s <= 60 or self.warm_up_s < 0 or self.pause_s < 0:
            raise ValueError("a request is waited for 10 ms to a minute; other times are not negative")


# ---- the target


def find_target(protocol: Protocol, text: str, *, forced: bool = False) -> Target:
    """Read and resolve a target. Only loopback and private networks may be loaded unless *forced*."""
    host, port, path = _parts(protocol, text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise TargetRefused(text, f"cannot be resolved ({error.strerror})") from error
    addresses = [str(entry[4][0]) for entry in found]
    strangers = [address for address in addresses if not is_own(address)]
    if strangers and not forced:
        raise TargetRefused(text, f"{strangers[0]} is not on this machine or a private network")
    return Target(protocol, host, port, addresses[0], path)


def _parts(protocol: Protocol, text: str) -> tuple[str, int, str]:
    url = urlsplit(text if "//" in text else f"//{text}")
    try:
        host, port = url.hostname, url.port
    except ValueError as error:
        raise TargetRefused(text, str(error)) from error
    if protocol == "udp":
        if url.scheme or not host or not port or url.path or url.query:
            raise TargetRefused(text, "HOST:PORT is needed")
        return host, port, ""
    if url.scheme not in ("", "http") or not host or url.username or url.query or url.fragment:
        raise TargetRefused(text, "http://HOST:PORT/PATH is needed, without a query")
    return host, port or 80, url.path.rstrip("/") or "/price"


def is_own(address: str) -> bool:
    """Say whether a numeric address is loopback or private."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in OWN_NETWORKS)


def build_requests(target: Target, assets: Sequence[str], key: str, *, ids: bool = True) -> list[bytes]:
    """Return one request for each asset, as it goes on the wire."""
    if target.protocol == "udp":
        requests = [build_request(asset, key, id=ID) for asset in assets]
        return requests if ids else [request.replace(f'"id":"{ID}",'.encode(), b"") for request in requests]
    head = f"Host: {target.host}:{target.port}\r\nUser-Agent: trinity-stress\r\n"
    head += f"X-API-Key: {key}\r\n" if key else ""
    lines = [f"GET {target.path}?asset={quote(asset, safe='')} HTTP/1.1\r\n" for asset in assets]
    return [f"{line}{head}\r\n".encode() for line in lines]


# ---- the system


def processes_for(sockets: int, wanted: int) -> int:
    """Return how many processes it takes to open *sockets*, at least *wanted*. Raises LimitReached."""
    ports = free_ports()
    if ports is not None and ports < sockets:
        raise LimitReached(sockets, ports, f"so many local ports are there ({PORT_RANGE})")
    needed = -(-sockets // wanted) + SPARE_FILES
    files = raise_file_limit(needed)
    each = files - SPARE_FILES
    if each < 1 or -(-sockets // each) > MOST_PROCESSES:
        limit = f"a process may open {files:,} files (ulimit -n)"
        raise LimitReached(sockets, max(each, 0) * MOST_PROCESSES, limit)
    return max(wanted, -(-sockets // each))


def raise_file_limit(wanted: int) -> int:
    """Let this process open *wanted* files, as far as the system does; return how many it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((max(soft, wanted), max(hard, wanted)), (max(soft, min(hard, wanted)), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        except (ValueError, OSError):
            continue  # only root raises the hard limit
        return limits[0]
    return soft


def free_ports() -> int | None:
    """Say how many sockets can be connected to one address from here; None where the system does not tell."""
    try:
        low, high = map(int, PORT_RANGE.read_text().split())
    except (OSError, ValueError):
        return None
    return high - low + 1


def describe_machine() -> str:
    """Describe this machine in one line."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


# ---- the run


class Stress:
    """A pool of sockets to one target that grows from level to level."""

    def __init__(self, target: Target, requests: Sequence[bytes], plan: Plan) -> None:
        """Raises LimitReached when the highest level will not fit."""
        most = max(plan.levels)
        self.processes = processes_for(most, plan.processes)
        self._plan = plan
        self._stopping = threading.Event()
        protocol = _load.UDP if target.protocol == "udp" else _load.HTTP
        address = (target.address, target.port)
        timeout_ms = round(plan.timeout_s * 1_000)
        self._pool = Pool(Making(protocol, address, requests, most, plan.window, timeout_ms), self.processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.close()

    @property
    def is_stopped(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """End the level under way, and all after it. May be called from a signal handler."""
        self._stopping.set()

    def warm_up(self) -> None:
        """Have connections open and caches filled before anything counts. Raises OSError."""
        if self._plan.warm_up_s:
            self._pool.grow(min(self._plan.levels))
            self._pool.run(self._plan.warm_up_s, self._plan.rate, lambda reading: not self.is_stopped)

    def run_level(self, sockets: int, progress: Callable[[Reading], None]) -> Level:
        """Load the target with so many sockets; tell of it while it goes on. Raises OSError.

        The pool never shrinks, so a level must not be lower than the one before.
        """

        def look(reading: Reading) -> bool:
            progress(reading)
            return not self.is_stopped

        self._pool.grow(sockets)
        # Only then: a server under load accepts slowly, and requests would seem slow that are not taken yet.
        self._stopping.wait(self._plan.pause_s)
        reading = self._pool.run(self._plan.seconds, self._plan.rate, look)
        return as_level(reading, sockets, self._plan)


def as_level(reading: Reading, sockets: int, plan: Plan) -> Level:
    """Turn what was counted into what is told."""
    seconds = reading.sending_ns / 1e9
    longest = reading.longest_ns  # a bucket's middle may lie above it
    shares = (0.5, 0.99, 0.999)
    p50, p99, p999 = (min(latency_ns(reading.latencies, share), longest) / 1_000 for share in shares)
    return Level(
        sockets=sockets,
        window=plan.window,
        rate=plan.rate,
        seconds=round(seconds, 3),
        sent=reading.sent,
        answered=reading.answered,
        errors=reading.errors,
        lost=reading.lost,
        unsent=reading.unsent,
        unexpected=reading.unexpected,
        reconnects=reading.reconnects,
        per_second=round(reading.timely / seconds, 1) if seconds else 0.0,
        p50_us=p50,
        p99_us=p99,
        p999_us=p999,
        longest_us=longest / 1_000,
    )
