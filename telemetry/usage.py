"""What a usage record says of an answer: who asked for what, and what was told. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from telemetry._spool import NO_SOURCE, SIMULATED, SOURCES, UsageLog

CLIENT_GONE = 499
"""The client has left before its answer; nginx's number."""
GIVEN_UP = 503
"""Admitted, and not answered: shed, stopped, failed."""

_SIMULATED = "-sim"


class Asked(NamedTuple):
    """A question whose key was judged."""

    key_id: int
    account_id: int
    month: int
    """In which the gate has counted it; 0: it has not."""
    protocol: int
    endpoint: int
    begun_ns: int
    """When it was read, by CLOCK_MONOTONIC."""


class Told(NamedTuple):
    """What an answer was about, and the price in it."""

    asset: str = ""
    """The first one, where several were asked for."""
    assets: int = 0
    tier: int = 0
    exchange: str = ""
    source: str = ""
    """The tag, such as "coinbase-ws"."""
    price: str = ""
    quote: str = ""


NOTHING = Told()


@lru_cache(1_024)
def read_source(tag: str) -> tuple[int, int]:
    """Read a tag such as "coinbase-ws", "kraken-rest-sim" or "index" into a record's source and flags."""
    name = tag.removesuffix(_SIMULATED)
    kind = name.rpartition("-")[2]
    source = SOURCES.index(kind) if kind in SOURCES else NO_SOURCE
    return source, 0 if name == tag else SIMULATED


def make_log(asked: Asked, told: Told, *, status: int, time_ns: int, latency_us: int) -> UsageLog:
    source, flags = read_source(told.source)
    return UsageLog(
        time_ns,
        asked.key_id,
        asked.account_id,
        asked.month,
        latency_us,
        status,
        told.assets,
        told.tier,
        source,
        flags,
        asked.protocol,
        asked.endpoint,
        told.asset,
        told.exchange,
        told.price,
        told.quote,
    )
