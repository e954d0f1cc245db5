"""Prices that wander: a seeded random walk per asset, in whole numbers. Sans-I/O.

All exchanges quote from one walk, so they agree to within a few hundredths of a percent, as real ones do.
"""

from collections.abc import Iterable, Mapping
from math import isqrt
from random import Random

from exchanges.simulator.markets import MARKETS, STABLE, Market

PAR = 1_000_000_000  # a level of PAR is the price of the table
_STEP = 8_400  # per square root of a millisecond: about 0.015 % a second, 1 % an hour
_LONGEST_STEP_MS = 60_000
_REVERSION_MS = 3_600_000  # half-way home in less than an hour: a demo left running keeps plausible prices


class Walk:
    """Where each asset's price is, relative to the table. The same seed and calls give the same prices."""

    def __init__(self, seed: int, markets: Mapping[str, Market] = MARKETS) -> None:
        self.markets = markets
        self._seed = seed
        self._paths: dict[str, _Path] = {}

    def level(self, asset: str, now_ns: int) -> int:
        """Return the level of *asset* in billionths of its price in the table."""
        return self._path(asset, now_ns).advance(now_ns)

    def units(self, asset: str, now_ns: int, *, quote: str = "USD") -> int:
        """Return the price of *asset* in its own ticks, in dollars or in another stable coin."""
        units: int = self.markets[asset].units * self.level(asset, now_ns)
        if quote == "USD":
            return max(1, units // PAR)
        peg = self.markets[quote]
        scale: int = 10**peg.decimals
        return max(1, units * scale // (peg.units * self.level(quote, now_ns)))

    def move(self, factor_ppm: int, now_ns: int, assets: Iterable[str] = ()) -> None:
        """Multiply the price of *assets* (all but stable coins, when empty) for good: a crash, or a rally."""
        for asset in tuple(assets) or [name for name in self.markets if name not in STABLE]:
            self._path(asset, now_ns).move(factor_ppm)

    def _path(self, asset: str, now_ns: int) -> "_Path":
        if asset not in self._paths:
            self._paths[asset] = _Path(Random(f"{self._seed}:{asset}"), now_ns, calm=asset in STABLE)
        return self._paths[asset]


class _Path:
    __slots__ = ("_home", "_last_ns", "_level", "_random", "_step")

    def __init__(self, random: Random, now_ns: int, *, calm: bool) -> None:
        self._random = random
        self._last_ns = now_ns
        self._level = self._home = PAR
        self._step = _STEP // 100 if calm else _STEP

    def advance(self, now_ns: int) -> int:
        elapsed_ms = min((now_ns - self._last_ns) // 1_000_000, _LONGEST_STEP_MS)
        if elapsed_ms > 0:
            step = self._random.randint(-self._step, self._step) * isqrt(elapsed_ms)
            self._level += self._level * step // PAR
            self._level += (self._home - self._level) * elapsed_ms // _REVERSION_MS
            self._last_ns = now_ns
        return self._level

    def move(self, factor_ppm: int) -> None:
        self._level = max(1, self._level * factor_ppm // 1_000_000)
        self._home = max(1, self._home * factor_ppm // 1_000_000)
