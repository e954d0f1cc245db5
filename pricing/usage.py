"""What usage records say of prices that were asked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pricing.problems import Problem
from pricing.protocol import PriceAnswer
from telemetry.usage import NOTHING, Told


def told_price(asset: str, answer: PriceAnswer | Problem) -> Told:
    """Describe the answer to a question for one asset."""
    if isinstance(answer, Problem):
        return Told(asset, 1)
    price = answer.price
    return Told(asset, 1, answer.tier, price.exchange, price.source, price.price, price.quote)


def told_prices(assets: Sequence[str]) -> Told:
    """Describe the answer to a question for several assets, whose prices have no room in one record."""
    return Told(assets[0], len(assets)) if assets else NOTHING
