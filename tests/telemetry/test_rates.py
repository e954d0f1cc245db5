"""Rates, percentages and percentiles of what was counted between two instants."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from telemetry._counters import DROP_REASONS, LATENCY_BUCKETS, NAMES
from telemetry.counters import GAUGES, MEANINGS, REASON_MEANINGS
from telemetry.rates import Loss, Rates, Snapshot, bound_ns, compare, doublings, percentile_us
from tests.twins import counters as twin

SECOND_NS = 1_000_000_000


def snapshot(at_s: float = 0, **members: Any) -> Snapshot:
    return Snapshot(1, 1, int(at_s * SECOND_NS), **members)


def buckets(**counts: int) -> list[int]:
    """Make buckets with counts at b0, b1, …"""
    made = [0] * LATENCY_BUCKETS
    for name, count in counts.items():
        made[int(name[1:])] = count
    return made


def test_every_counter_and_reason_has_a_meaning() -> None:
    assert tuple(MEANINGS) == NAMES
    assert tuple(REASON_MEANINGS) == DROP_REASONS
    assert set(NAMES) >= GAUGES


def test_operators_can_look_every_counter_and_reason_up() -> None:
    document = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert [name for name in (*NAMES, *DROP_REASONS) if f"`{name}`" not in document] == []


def test_requests_a_second_by_protocol() -> None:
    then = snapshot(10, totals={"tcp_requests": 100, "udp_requests": 1_000})
    now = snapshot(14, totals={"tcp_requests": 110, "udp_requests": 5_000, "lrs_requests": 1})
    rates = compare(then, now)
    assert (rates.elapsed_s, rates.rps) == (4.0, {"tcp": 2.5, "udp": 1_000.0, "lrs": 0.25})
    assert rates.counters["tcp_requests"] == 10


def test_shares_of_the_tiers() -> None:
    totals = {"syncmap_hits": 96, "elasticache_hits": 3, "cache_misses": 1}
    rates = compare(snapshot(), snapshot(1, totals=totals))
    assert rates.hit_percent == {"tier1": 96.0, "tier2": 3.0, "miss": 1.0}


def test_losses_by_reason_are_of_those_received() -> None:
    now = snapshot(
        1,
        totals={"udp_packets_received": 3_000_000, "udp_packets_dropped": 3},
        drops={"kernel": 2, "empty": 1},
    )
    rates = compare(snapshot(), now)
    assert rates.drop_percent == 0.0001
    assert rates.drops["kernel"] == Loss(2, 6.66667e-05)
    assert {name: loss.count for name, loss in rates.drops.items() if loss.count} == {"kernel": 2, "empty": 1}
    assert list(rates.drops) == list(DROP_REASONS)


def leaves(value: Any) -> list[Any]:
    """Return what stands in a JSON document, without its names."""
    return (
        [leaf for child in value.values() for leaf in leaves(child)] if isinstance(value, dict) else [value]
    )


def test_nothing_counted_in_no_time_divides_by_nothing() -> None:
    rates = compare(snapshot(), snapshot())
    assert rates.elapsed_s == 0
    assert set(rates.rps.values()) == set(rates.hit_percent.values()) == {None}
    assert set(rates.answers_per_s.values()) == {None}
    assert (rates.drop_percent, rates.drops["kernel"]) == (None, Loss(0, None))
    document = msgspec.to_builtins(rates)
    assert document["latency_us"]["udp"] == {
        "count": 0, "mean": None, "p50": None, "p90": None, "p99": None, "p99.9": None,
    }  # fmt: skip
    text = json.dumps(document, allow_nan=False)
    assert leaves(json.loads(text)).count(None) > 20


def test_count_in_no_time_has_no_rate_and_is_no_error() -> None:
    rates = compare(snapshot(5), snapshot(5, totals={"tcp_requests": 3}))
    assert (rates.rps["tcp"], rates.counters["tcp_requests"]) == (None, 3)


def test_snapshots_the_wrong_way_round_give_no_negative_figures() -> None:
    later = snapshot(
        9,
        totals={"tcp_requests": 5},
        drops={"empty": 5},
        latencies={"http": buckets(b3=5)},
        took_ns={"http": 9},
    )
    rates = compare(later, snapshot(1))
    figures = [figure for figure in leaves(msgspec.to_builtins(rates)) if figure is not None]
    assert figures and min(figures) == 0


def test_gauges_are_told_as_they_are_now() -> None:
    rates = compare(snapshot(totals={"db_open_conns": 4}), snapshot(1, totals={"db_open_conns": 6}))
    assert rates.counters["db_open_conns"] == 6


def test_bounds_are_where_the_counters_next_bucket_begins() -> None:
    for bucket in range(LATENCY_BUCKETS - 1):
        assert twin.latency_bucket(bound_ns(bucket) - 1) == bucket
        assert twin.latency_bucket(bound_ns(bucket)) == bucket + 1
    assert bound_ns(LATENCY_BUCKETS - 1) == 2**35


@pytest.mark.parametrize(
    ("counts", "thousandths", "expected"),
    [
        ({}, 500, None),
        ({"b0": 1}, 500, 0.144),
        ({"b0": 1}, 999, 0.144),
        ({"b0": 500, "b8": 500}, 500, 0.144),
        ({"b0": 499, "b8": 501}, 500, 0.288),
        ({"b0": 990, "b8": 10}, 990, 0.144),
        ({"b0": 990, "b8": 10}, 999, 0.288),
        ({"b0": 1_999, "b8": 1}, 999, 0.144),
        ({"b0": 10**19, "b8": 10**16}, 999, 0.144),
        ({"b223": 1}, 500, 34_359_738.368),
    ],
)
def test_percentile_is_the_upper_bound_of_its_bucket(
    counts: dict[str, int], thousandths: int, expected: float | None
) -> None:
    assert percentile_us(buckets(**counts), thousandths) == expected


def test_percentiles_of_many_latencies_are_at_most_an_eighth_too_much() -> None:
    chance = random.Random(4)
    taken = sorted(int(chance.lognormvariate(10, 2)) + 144 for _ in range(5_000))
    counts = [0] * LATENCY_BUCKETS
    for ns in taken:
        counts[twin.latency_bucket(ns)] += 1
    for thousandths in (500, 900, 990, 999):
        exact = taken[math.ceil(len(taken) * thousandths / 1_000) - 1] / 1_000
        told = percentile_us(counts, thousandths)
        assert told is not None and exact < told <= exact * 9 / 8


def test_latencies_are_compared_bucket_by_bucket() -> None:
    then = snapshot(latencies={"udp": buckets(b0=100, b8=1)}, took_ns={"udp": 1_000})
    now = snapshot(2, latencies={"udp": buckets(b0=100, b8=5)}, took_ns={"udp": 2_100})
    rates = compare(then, now)
    udp = rates.latency_us["udp"]
    assert (udp.count, udp.mean, udp.p50, udp.p99_9) == (4, 0.275, 0.288, 0.288)
    assert rates.answers_per_s == {"http": 0.0, "udp": 2.0}


def test_doublings_go_from_a_microsecond_to_seconds_and_add_up() -> None:
    counts = buckets(b0=1, b23=2, b24=4, b223=8)
    rows = list(doublings(counts))
    assert [rows[0], rows[1]] == [(1.024e-06, 3), (2.048e-06, 7)]
    assert (rows[-1], len(rows)) == ((17.179869184, 7), 25)


def test_snapshot_of_other_buckets_or_negative_counts_is_none() -> None:
    good = msgspec.json.encode(snapshot(latencies={"udp": buckets()}, totals={"tcp_requests": 1}))
    assert msgspec.json.decode(good, type=Snapshot).totals == {"tcp_requests": 1}
    for bad in (good.replace(b"[0,", b"["), good.replace(b'":1', b'":-1')):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(bad, type=Snapshot)


def test_rates_can_be_told_as_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(compare(snapshot(), snapshot(1))), type=Rates)
