"""For log lines about what can repeat with every message: at most one a minute. Pure."""

from __future__ import annotations

from collections.abc import Callable

PERIOD_NS = 60_000_000_000


class Seldom:
    """Answer True when a minute has passed since it last did."""

    def __init__(self, mono_ns: Callable[[], int]) -> None:
        self._mono_ns = mono_ns
        self._last_ns: int | None = None

    def __call__(self) -> bool:
        now_ns = self._mono_ns()
        if self._last_ns is not None and now_ns - self._last_ns < PERIOD_NS:
            return False
        self._last_ns = now_ns
        return True
