"""The choice among prices: the pure function, and the board's own, which must agree."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pricing.board import choose
from pricing.tick import StoredPrice
from tests.pricing.doubles import CATALOGUE, World

EXCHANGES = tuple(CATALOGUE.exchanges)
NOW_NS = 1_000


def price(exchange: str, traded_ns: int | None, received_ns: int = NOW_NS) -> StoredPrice:
    return StoredPrice("BTC", exchange, "s", "USD", "1", traded_ns, received_ns, polled=True)


def test_home_is_chosen_however_fresh_the_others_are() -> None:
    home, other = price("coinbase", 10), price("kraken", 900)
    assert choose([other, home], "coinbase", NOW_NS) is home
    assert choose([home, other], None, NOW_NS) is other
    assert choose([home, other], "okx", NOW_NS) is other
    assert choose([], "okx", NOW_NS) is None


def test_unknown_age_comes_after_every_known_one_but_home_stays_home() -> None:
    timed, untimed = price("kraken", 10), price("okx", None)
    assert choose([untimed, timed], None, NOW_NS) is timed
    assert choose([untimed], None, NOW_NS) is untimed
    assert choose([untimed, timed], "okx", NOW_NS) is untimed


@given(
    st.dictionaries(st.sampled_from(EXCHANGES), st.integers(0, 40), min_size=1),
    st.sampled_from([None, *EXCHANGES]),
    st.integers(0, 40),
)
def test_board_chooses_as_the_function_does(ages: dict[str, int], home: str | None, ttl_ms: int) -> None:
    world = World()
    world.board.set_home("BTC", home)
    for exchange, age_ms in ages.items():
        world.tick("BTC", exchange, "1", delay_ms=age_ms)
    now_ns, ttl_ns = world.clock.mono, ttl_ms * 1_000_000
    fresh = [row for row in world.board.all("BTC") if row.age_ns(now_ns) <= ttl_ns]
    chosen, best = choose(fresh, home, now_ns), world.board.best("BTC", now_ns, ttl_ns)
    assert (chosen and chosen.exchange) == (best and best.exchange)
    world.board.close()


def test_home_of_an_asset_is_the_public_one() -> None:
    world = World()
    homes = {name: world.service.view.home_of(name) for name in ("BTC", "UNI", "NOPE")}
    assert homes == {"BTC": "coinbase", "UNI": None, "NOPE": None}
    world.catalogue = msgspec.structs.replace(CATALOGUE, assets={})
    assert world.service.view.home_of("BTC") is None
    world.board.close()
