from __future__ import annotations

import pytest

from pricing.tick import StoredPrice


@pytest.mark.parametrize(
    ("traded_ns", "received_ns", "wall_ns", "age_ns"),
    [
        (100, 130, 200, 100),
        (100, 130, 130, 30),
        (150, 130, 200, 70),  # the exchange's clock is ahead
        (100, 130, 120, 30),  # this clock is behind the writer's
        (150, 130, 120, 0),
    ],
)
def test_age_counts_from_the_trade_and_is_never_negative(
    traded_ns: int, received_ns: int, wall_ns: int, age_ns: int
) -> None:
    price = StoredPrice("BTC", "coinbase", "coinbase-ws", "USD", "1", traded_ns, received_ns)
    assert price.age_ns(wall_ns) == age_ns
