"""Counters, board and feeds as Prometheus text, read when asked for: nothing is counted here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pricing import health
from pricing.board import Board
from telemetry.counters import GAUGES, MEANINGS
from telemetry.rates import SECOND_NS, doublings
from telemetry.spool import SpoolState
from telemetry.traffic import Counted

FIELDS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),
    (b"cache-control", b"no-store"),
)
"""With which HTTP answers what is rendered here."""


class FeedFigures(msgspec.Struct):
    """What is read from one feed's part of the status document; the rest is for people."""

    state: str = "unknown"
    symbols: int = 0
    live: int = 0
    frames: int = 0
    reconnects: int = 0
    refusals: dict[str, int] = {}


class StatusFigures(msgspec.Struct):
    feeds: dict[str, FeedFigures] = {}


_status_decoder = msgspec.json.Decoder(StatusFigures)


class Tier2Counts(Protocol):
    failures: int
    malformed: int


class Gate(health.Gate, Protocol):
    @property
    def keys(self) -> int: ...
    @property
    def rows(self) -> int: ...


class Metrics(Collector):
    """The text of /metrics. *counted* sums the counters of all workers.

    Workers share the port, so each tells what it alone counts under its number, when it is the one asked.
    """

    def __init__(
        self,
        board: Board,
        gate: Gate,
        counted: Counted,
        mono_ns: Callable[[], int],
        *,
        spool: Callable[[], SpoolState],
        tier2: Tier2Counts | None,
        worker: int,
    ) -> None:
        self._board = board
        self._gate = gate
        self._counted = counted
        self._mono_ns = mono_ns
        self._spool = spool
        self._tier2 = tier2
        self._worker = str(worker)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        return []  # names depend on what is read; without this the registry would read everything once

    def collect(self) -> Iterator[Metric]:
        for name, value in self._counted.totals().items():
            family = GaugeMetricFamily if name in GAUGES else CounterMetricFamily
            yield family(f"trinity_{name}", f"{MEANINGS[name]}; all workers of this node", value=value)
        yield from self._traffic_metrics()
        yield from self._spool_metrics()
        yield from self._worker_metrics()
        yield from self._board_metrics()
        yield from self._gate_metrics()
        yield from self._feed_metrics()

    def _traffic_metrics(self) -> Iterator[Metric]:
        drops = CounterMetricFamily(
            "trinity_udp_dropped", "Datagrams that were not answered, by reason", labels=["reason"]
        )
        for reason, count in self._counted.drops().items():
            drops.add_metric([reason], count)
        latencies = HistogramMetricFamily(
            "trinity_latency_seconds", "How long answers took", labels=["protocol"]
        )
        took_ns = self._counted.took_ns()
        for protocol, buckets in self._counted.latencies().items():
            bounds = [(repr(bound_s), float(count)) for bound_s, count in doublings(buckets)]
            everything = ("+Inf", float(sum(buckets)))
            latencies.add_metric([protocol], [*bounds, everything], took_ns[protocol] / SECOND_NS)
        buffers = GaugeMetricFamily(
            "trinity_udp_receive_buffer_bytes", "Receive buffer that the kernel gave", labels=["worker"]
        )
        for worker, (receive_bytes, _) in self._counted.sockets().items():
            buffers.add_metric([str(worker)], receive_bytes)
        yield from (drops, latencies, buffers)

    def _worker_metrics(self) -> Iterator[Metric]:
        def family(name: str, text: str, counts: Mapping[str, int]) -> Metric:
            metric = CounterMetricFamily(f"trinity_{name}", text, labels=["worker", "kind"])
            for kind, count in counts.items():
                metric.add_metric([self._worker, kind], count)
            return metric

        yield family("board_read_faults", "Reads of the board that met its writer", self._board.read_counts)
        if self._tier2 is not None:
            counts = {"failures": self._tier2.failures, "malformed": self._tier2.malformed}
            yield family("tier2_faults", "Tier 2 did not answer, or not sensibly", counts)

    def _spool_metrics(self) -> Iterator[Metric]:
        state, counts = self._spool(), self._counted.unrecorded()
        yield _gauge("spool_bytes", "Disk that usage records take, node-wide", state.used_bytes)
        yield _gauge("spool_bound_bytes", "The most that they may take", state.bound_bytes)
        yield CounterMetricFamily(
            "trinity_spool_refused", "Questions not answered for want of room", value=counts["refused"]
        )
        yield CounterMetricFamily(
            "trinity_spool_shed", "Answers without a record for want of room", value=counts["shed"]
        )

    def _board_metrics(self) -> Iterator[Metric]:
        board, mono_ns = self._board, self._mono_ns()
        beat_ms = health.since_ms(board.heartbeat_mono_ns, mono_ns)
        yield _gauge("board_generation", "Writers this board has had", board.generation)
        if beat_ms is not None:
            yield _gauge("board_heartbeat_age_seconds", "Since the writer's last beat", beat_ms / 1_000)
        ticks = CounterMetricFamily(
            "trinity_exchange_ticks", "Ticks written to the board", labels=["exchange"]
        )
        ages = GaugeMetricFamily(
            "trinity_exchange_age_seconds",
            "Age of the newest trade",
            labels=["exchange"],
        )
        for row in board.exchanges():
            ticks.add_metric([row.name], row.ticks)
            age_ms = health.since_ms(row.last_tick_mono_ns, mono_ns)
            if age_ms is not None:
                ages.add_metric([row.name], age_ms / 1_000)
        yield ticks
        yield ages

    def _gate_metrics(self) -> Iterator[Metric]:
        gate, mono_ns = self._gate, self._mono_ns()
        yield _gauge("gate_filled", "1 when every key is in the gate", gate.month(mono_ns) != 0)
        yield _gauge("gate_keys", "Places taken, by revoked keys too", gate.keys)
        yield _gauge("gate_places", "Places there are (TRINITY_GATE_ROWS)", gate.rows)
        beat_ms = health.since_ms(gate.heartbeat_mono_ns, mono_ns)
        if beat_ms is not None:
            yield _gauge("gate_heartbeat_age_seconds", "Since the keyring's last beat", beat_ms / 1_000)

    def _feed_metrics(self) -> Iterator[Metric]:
        document = self._board.status()
        try:
            feeds = _status_decoder.decode(document).feeds if document else {}
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield _gauge("feed_status_readable", "1 when the feeds' status document can be read", 0)
            return
        yield _gauge("feed_status_readable", "1 when the feeds' status document can be read", 1)
        states = GaugeMetricFamily(
            "trinity_feed_state", "1 for the present state", labels=["exchange", "state"]
        )
        symbols = GaugeMetricFamily("trinity_feed_symbols", "Symbols asked for", labels=["exchange"])
        live = GaugeMetricFamily("trinity_feed_live_symbols", "Symbols that have ticked", labels=["exchange"])
        frames = CounterMetricFamily("trinity_feed_frames", "Frames received", labels=["exchange"])
        redials = CounterMetricFamily("trinity_feed_redials", "Reconnects by feed", labels=["exchange"])
        refusals = CounterMetricFamily(
            "trinity_feed_refusals", "Trades refused, by reason", labels=["exchange", "reason"]
        )
        for name, feed in feeds.items():
            states.add_metric([name, feed.state], 1)
            symbols.add_metric([name], feed.symbols)
            live.add_metric([name], feed.live)
            frames.add_metric([name], feed.frames)
            redials.add_metric([name], feed.reconnects)
            for reason, count in feed.refusals.items():
                refusals.add_metric([name, reason], count)
        yield from (states, symbols, live, frames, redials, refusals)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"trinity_{name}", text, value=value)
