"""What counting amounts to between two instants: rates, percentages, percentiles. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final

import msgspec

from telemetry._counters import (
    DROP_REASONS,
    LATENCY_BUCKETS,
    LATENCY_NAMES,
    LOWEST_LATENCY_NS,
    NAMES,
)
from telemetry.counters import GAUGES

SECOND_NS = 1_000_000_000
REQUESTS: Final[Mapping[str, str]] = {"tcp": "tcp_requests", "udp": "udp_requests", "lrs": "lrs_requests"}
HITS: Final[Mapping[str, str]] = {
    "tier1": "syncmap_hits",
    "tier2": "elasticache_hits",
    "miss": "cache_misses",
}
PERCENTILES: Final[Mapping[str, int]] = {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999}
"""In thousandths."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Buckets = Annotated[list[Count], msgspec.Meta(min_length=LATENCY_BUCKETS, max_length=LATENCY_BUCKETS)]


class Snapshot(msgspec.Struct, frozen=True):
    """All that a node had counted at an instant. Snapshots of one *epoch_ns* can be compared."""

    epoch_ns: int
    wall_ns: int
    mono_ns: int
    totals: dict[str, Count] = {}
    drops: dict[str, Count] = {}
    latencies: dict[str, Buckets] = {}
    took_ns: dict[str, Count] = {}


class Loss(msgspec.Struct, frozen=True):
    """Datagrams that were not answered for one reason; *percent* is of those received."""

    count: int
    percent: float | None


class Latency(msgspec.Struct, frozen=True, rename={"p99_9": "p99.9"}):
    """How long answers took, in µs. A percentile is its bucket's upper bound: at most an eighth too much."""

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    p99_9: float | None


class Rates(msgspec.Struct, frozen=True):
    """What was counted between two instants. Where nothing was, nothing can be divided by it: None."""

    elapsed_s: float
    counters: dict[str, int]
    rps: dict[str, float | None]
    answers_per_s: dict[str, float | None]
    hit_percent: dict[str, float | None]
    drop_percent: float | None
    drops: dict[str, Loss]
    latency_us: dict[str, Latency]


def compare(then: Snapshot, now: Snapshot) -> Rates:
    """Say what was counted between two snapshots of one epoch. Gauges are told as they are *now*."""
    elapsed_s = max(0, now.mono_ns - then.mono_ns) / SECOND_NS
    before = {name: 0 if name in GAUGES else then.totals.get(name, 0) for name in NAMES}
    counters = {name: max(0, now.totals.get(name, 0) - before[name]) for name in NAMES}
    drops = {name: max(0, now.drops.get(name, 0) - then.drops.get(name, 0)) for name in DROP_REASONS}
    latencies = {name: _latency(name, then, now) for name in LATENCY_NAMES}
    prices = sum(counters[name] for name in HITS.values())
    received = counters["udp_packets_received"]
    return Rates(
        elapsed_s=elapsed_s,
        counters=counters,
        rps={name: _ratio(counters[counter], elapsed_s) for name, counter in REQUESTS.items()},
        answers_per_s={name: _ratio(row.count, elapsed_s) for name, row in latencies.items()},
        hit_percent={name: _ratio(100 * counters[counter], prices) for name, counter in HITS.items()},
        drop_percent=_ratio(100 * counters["udp_packets_dropped"], received),
        drops={name: Loss(count, _ratio(100 * count, received)) for name, count in drops.items()},
        latency_us=latencies,
    )


def bound_ns(bucket: int) -> int:
    """Say where a bucket ends and the next one begins. The last one is open: this is where it would end."""
    doubling, eighth = divmod(bucket + 1, 8)
    return (8 + eighth) * LOWEST_LATENCY_NS // 8 << doubling


def doublings(buckets: Sequence[int]) -> Iterator[tuple[float, int]]:
    """Yield seconds and how many answers took less, from 1 µs to 17 s."""
    sums = list(itertools.accumulate(buckets))
    for bucket in range(8 * 3 - 1, LATENCY_BUCKETS - 8, 8):
        yield bound_ns(bucket) / SECOND_NS, sums[bucket]


def percentile_us(buckets: Sequence[int], thousandths: int) -> float | None:
    """Say below what so many thousandths of the answers were; None when there are none."""
    count = sum(buckets)
    if count == 0:
        return None
    rank = -(-count * thousandths // 1_000)
    sums = itertools.accumulate(buckets)
    return next(bound_ns(bucket) for bucket, so_far in enumerate(sums) if so_far >= rank) / 1_000


def _latency(name: str, then: Snapshot, now: Snapshot) -> Latency:
    nothing = [0] * LATENCY_BUCKETS
    pairs = zip(now.latencies.get(name, nothing), then.latencies.get(name, nothing), strict=True)
    buckets = [max(0, after - before) for after, before in pairs]
    took_ns = max(0, now.took_ns.get(name, 0) - then.took_ns.get(name, 0))
    percentiles = (percentile_us(buckets, thousandths) for thousandths in PERCENTILES.values())
    return Latency(sum(buckets), _ratio(took_ns / 1_000, sum(buckets)), *percentiles)


def _ratio(part: float, whole: float) -> float | None:
    """Divide, to six significant digits; None where there is nothing to divide by."""
    return float(f"{part / whole:.6g}") if whole > 0 else None
