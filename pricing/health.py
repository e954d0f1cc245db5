"""Is this node worth asking? Ready means fresh data, not a running process. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from pricing.board import Board
from pricing.parameters import MS, Parameters


def since_ms(then_mono_ns: int, mono_ns: int) -> int | None:
    """Return how long ago something happened, None for never (which the board writes as 0)."""
    return None if then_mono_ns == 0 else max(0, mono_ns - then_mono_ns) // MS


def exchange_ages_ms(board: Board, mono_ns: int) -> dict[str, int | None]:
    """Return the age of each exchange's newest trade, however late it came."""
    return {row.name: since_ms(row.last_tick_mono_ns, mono_ns) for row in board.exchanges()}


class Gate(Protocol):
    """What is looked at of `billing._gate.Gate`."""

    @property
    def heartbeat_mono_ns(self) -> int: ...
    def month(self, mono_ns: int) -> int: ...


def readiness(
    board: Board, gate: Gate, enabled: Collection[str], parameters: Parameters, mono_ns: int
) -> tuple[bool, dict[str, object]]:
    """Say whether to send questions here, and why: per enabled exchange its age and whether that is fresh.

    A gate that was never filled admits nobody. One whose keyring has died goes on with what it has.
    """
    heartbeat_ms = since_ms(board.heartbeat_mono_ns, mono_ns)
    alive = heartbeat_ms is not None and heartbeat_ms <= parameters.heartbeat_ms
    ages_ms = exchange_ages_ms(board, mono_ns)
    rows = []
    for name in enabled:
        age_ms = ages_ms.get(name)
        fresh = age_ms is not None and age_ms <= parameters.price_ttl_ms
        rows.append({"name": name, "age_ms": age_ms, "fresh": fresh})
    fresh_count = sum(bool(row["fresh"]) for row in rows)
    keyring_ms = since_ms(gate.heartbeat_mono_ns, mono_ns)
    filled, kept = gate.month(mono_ns) != 0, keyring_ms is not None and keyring_ms <= parameters.heartbeat_ms
    ready = alive and filled and fresh_count > 0
    complete = kept and fresh_count == len(rows)
    document: dict[str, object] = {
        "status": ("ready" if complete else "degraded") if ready else "not_ready",
        "feeds": {"alive": alive, "heartbeat_age_ms": heartbeat_ms},
        "keys": {"filled": filled, "alive": kept, "heartbeat_age_ms": keyring_ms},
        "exchanges": rows,
    }
    return ready, document
