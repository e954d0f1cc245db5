from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pricing.metrics import Metrics
from telemetry._counters import DROP_REASONS, DROPPED_EMPTY, HTTP_LATENCY
from tests.pricing.doubles import World, spool_state

STATUS = {
    "generated_ns": 1,
    "feeds": {
        "coinbase": {
            "state": "live",
            "detail": "",
            "symbols": 60,
            "live": 59,
            "frames": 1_000,
            "ticks": 900,
            "reconnects": 2,
            "refusals": {"future": 3, "jump": 1},
            "refused_symbols": {"X-Y": "no such product"},
        },
        'odd"name\n': {"state": "backoff"},
    },
}
Labels = tuple[tuple[str, str], ...]


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.board.close()


def scrape(world: World) -> dict[tuple[str, Labels], float]:
    metrics = Metrics(
        world.board,
        world.gate,
        world.counters.reader,
        world.clock.mono_ns,
        spool=spool_state,
        tier2=world.tier2,
        worker=3,
    )
    text = metrics.render().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_room_of_the_spool_and_what_is_lost_without_it_is_told(world: World) -> None:
    world.counters.unrecorded(3, 2)
    told = scrape(world)
    assert (told["trinity_spool_bytes", ()], told["trinity_spool_bound_bytes", ()]) == (4_096, 8_192)
    assert (told["trinity_spool_refused_total", ()], told["trinity_spool_shed_total", ()]) == (3, 2)


def test_all_24_counters_are_told_under_their_names(world: World) -> None:
    for index in range(24):
        world.counters.add(index, index + 1)
    samples = scrape(world)
    for name, count in world.counters.reader.totals().items():
        suffix = "" if name in ("db_open_conns", "db_in_use_conns") else "_total"
        assert samples[f"trinity_{name}{suffix}", ()] == count


def test_datagrams_not_answered_are_told_by_reason(world: World) -> None:
    world.counters.drop(DROPPED_EMPTY, 3)
    samples = scrape(world)
    told = {labels: value for (name, labels), value in samples.items() if name == "trinity_udp_dropped_total"}
    assert told == {(("reason", reason),): 3.0 * (reason == "empty") for reason in DROP_REASONS}


def test_latencies_are_told_as_histograms_by_protocol(world: World) -> None:
    world.counters.latency(HTTP_LATENCY, 500)
    world.counters.latency(HTTP_LATENCY, 1_500, 3)
    world.counters.latency(HTTP_LATENCY, 3_600 * 10**9)  # beyond every bound
    samples = scrape(world)
    http = ("protocol", "http")
    bounds = {
        float(dict(labels)["le"]): value
        for (name, labels), value in samples.items()
        if name == "trinity_latency_seconds_bucket" and http in labels
    }
    assert list(bounds) == sorted(bounds) and len(bounds) == 26
    assert (bounds[1.024e-06], bounds[2.048e-06], bounds[17.179869184], bounds[math.inf]) == (1, 4, 4, 5)
    assert samples["trinity_latency_seconds_count", (http,)] == 5
    assert samples["trinity_latency_seconds_sum", (http,)] == pytest.approx(3_600.000005)
    assert samples["trinity_latency_seconds_count", (("protocol", "udp"),)] == 0


def test_receive_buffers_are_told_for_workers_with_a_socket(world: World) -> None:
    assert not any(name == "trinity_udp_receive_buffer_bytes" for name, _ in scrape(world))
    world.counters.open_socket(77, 33_554_432, 1)
    assert scrape(world)["trinity_udp_receive_buffer_bytes", (("worker", "3"),)] == 33_554_432


def test_gate_tells_whether_it_is_filled_its_places_and_the_keyrings_heartbeat(world: World) -> None:
    world.clock.forward(1_500)
    samples = scrape(world)
    assert samples["trinity_gate_filled", ()] == 1
    assert samples["trinity_gate_keys", ()] == world.gate.keys > 4_000
    assert samples["trinity_gate_places", ()] == world.gate.rows
    assert samples["trinity_gate_heartbeat_age_seconds", ()] == 1.5
    world.gate.set_month(0, 0)
    assert scrape(world)["trinity_gate_filled", ()] == 0


def test_board_tells_ticks_and_ages_per_exchange_and_the_writers_heartbeat(world: World) -> None:
    world.tick("BTC", "okx", "1")
    world.tick("BTC", "okx", "2")
    world.clock.forward(1_500)
    samples = scrape(world)
    okx = (("exchange", "okx"),)
    assert samples["trinity_exchange_ticks_total", okx] == 2
    assert samples["trinity_exchange_age_seconds", okx] == 1.5
    assert ("trinity_exchange_age_seconds", (("exchange", "kraken"),)) not in samples
    assert samples["trinity_board_heartbeat_age_seconds", ()] == 1.5
    assert samples["trinity_board_generation", ()] == world.board.generation


def test_worker_tells_what_it_alone_counts_under_its_number(world: World) -> None:
    world.tier2.failures, world.tier2.malformed = 2, 5
    samples = scrape(world)
    assert samples["trinity_tier2_faults_total", (("kind", "failures"), ("worker", "3"))] == 2
    assert samples["trinity_tier2_faults_total", (("kind", "malformed"), ("worker", "3"))] == 5
    for kind, count in world.board.read_counts.items():
        assert samples["trinity_board_read_faults_total", (("kind", kind), ("worker", "3"))] == count


def test_node_without_tier_2_tells_nothing_of_it(world: World) -> None:
    world.tier2 = None  # type: ignore[assignment]  # as on a node without Redis
    assert not any(name.startswith("trinity_tier2") for name, _ in scrape(world))


def test_age_of_an_exchange_counts_from_its_newest_trade(world: World) -> None:
    world.tick("BTC", "okx", "1", delay_ms=90_000)
    assert scrape(world)["trinity_exchange_age_seconds", (("exchange", "okx"),)] == 90


def test_feeds_are_told_from_the_status_document(world: World) -> None:
    world.board.write_status(msgspec.json.encode(STATUS))
    samples = scrape(world)
    coinbase = (("exchange", "coinbase"),)
    assert samples["trinity_feed_status_readable", ()] == 1
    assert samples["trinity_feed_state", (*coinbase, ("state", "live"))] == 1
    assert samples["trinity_feed_state", (("exchange", 'odd"name\n'), ("state", "backoff"))] == 1
    assert samples["trinity_feed_symbols", coinbase] == 60
    assert samples["trinity_feed_live_symbols", coinbase] == 59
    assert samples["trinity_feed_frames_total", coinbase] == 1_000
    assert samples["trinity_feed_redials_total", coinbase] == 2
    assert samples["trinity_feed_refusals_total", (*coinbase, ("reason", "future"))] == 3


@pytest.mark.parametrize("document", [b"nonsense", b"[]", b"\xff", b'{"feeds":{"x":{"frames":"many"}}}'])
def test_unreadable_status_document_is_said_and_hides_nothing_else(world: World, document: bytes) -> None:
    world.board.write_status(document)
    samples = scrape(world)
    assert samples["trinity_feed_status_readable", ()] == 0
    assert ("trinity_tcp_requests_total", ()) in samples


def test_no_status_document_yet_is_not_an_error(world: World) -> None:
    assert scrape(world)["trinity_feed_status_readable", ()] == 1
