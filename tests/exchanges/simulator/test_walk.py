"""The simulated prices: deterministic, plausible, together."""

from itertools import pairwise

from exchanges.simulator.markets import MARKETS, Market, price_text
from exchanges.simulator.walk import PAR, Walk

SECOND_NS = 1_000_000_000


def test_same_seed_walks_the_same_way() -> None:
    walks = [Walk(7), Walk(7), Walk(8)]
    paths = [[walk.level("BTC", n * SECOND_NS) for n in range(100)] for walk in walks]
    assert paths[0] == paths[1] != paths[2]


def test_an_hour_of_walking_stays_within_a_tenth() -> None:
    walk = Walk(1)
    levels = [walk.level("ETH", n * SECOND_NS) for n in range(3_600)]
    assert len(set(levels)) > 3_000
    assert all(PAR * 9 // 10 < level < PAR * 11 // 10 for level in levels)


def test_a_second_moves_the_price_by_basis_points_only() -> None:
    walk = Walk(3)
    levels = [walk.level("SOL", n * SECOND_NS) for n in range(1_000)]
    assert max(abs(b - a) for a, b in pairwise(levels)) < PAR // 1_000


def test_time_that_stands_still_or_goes_back_moves_nothing() -> None:
    walk = Walk(1)
    level = walk.level("BTC", 5 * SECOND_NS)
    assert [walk.level("BTC", at) for at in (5 * SECOND_NS, 4 * SECOND_NS)] == [level, level]


def test_move_is_for_good_and_spares_the_stable_coins() -> None:
    walk = Walk(1)
    for asset in ("BTC", "USDT"):
        walk.level(asset, 0)
    walk.move(500_000, 0)
    assert abs(walk.level("BTC", 0) - PAR // 2) < PAR // 1_000
    assert walk.level("USDT", 0) == PAR
    later = [walk.level("BTC", n * SECOND_NS) for n in range(1, 3_000)]
    assert all(level < PAR * 6 // 10 for level in later)


def test_move_of_one_asset_leaves_the_others() -> None:
    walk = Walk(1)
    walk.move(2_000_000, 0, ["ETH"])
    assert (walk.level("ETH", 0), walk.level("BTC", 0)) == (2 * PAR, PAR)


def test_dollar_coin_quote_follows_the_coin_own_price() -> None:
    walk = Walk(1)
    dollars, coins = walk.units("BTC", 0), walk.units("BTC", 0, quote="USDT")
    assert dollars == MARKETS["BTC"].units
    assert coins == dollars * 10_000 // 9_997


def test_price_never_reaches_zero() -> None:
    walk = Walk(1, {"X": Market("X", 1, 8)})
    walk.move(1, 0)
    walk.move(1, 0)
    assert walk.units("X", 0) == 1


def test_tick_sizes_leave_five_digits_or_two_decimals() -> None:
    assert {a: MARKETS[a].decimals for a in ("BTC", "XRP", "SHIB")} == {"BTC": 2, "XRP": 4, "SHIB": 9}


def test_price_text_keeps_trailing_zeros() -> None:
    assert [price_text(8_337_110, 2), price_text(5, 4), price_text(7, 0)] == ["83371.10", "0.0005", "7"]
