"""The guards of several exchanges in the shapes of known incidents: what is held, and for how long."""

from __future__ import annotations

from decimal import Decimal

import pytest

from exchanges.feed.guard import JUMP, PASS, Guard, PeerPrices
from exchanges.feed.intake import FRESH_NS
from pricing.tick import Tick

SECOND = 10**9
START_NS = 1_790_000_000 * SECOND
MINUTE_S = 60


class Market:
    """Exchanges on one clock, each with a guard that sees what the others have, as an intake arranges it."""

    def __init__(self, *names: str, price: str = "") -> None:
        self.now_ns = START_NS
        self.shown: dict[str, tuple[Decimal, int]] = {}
        self._trades = 0
        self._guards = {
            name: Guard(max_jump_percent=20, tie="id", peers=lambda symbol, name=name: self._peers(name))  # type: ignore[misc]  # mypy knows no defaults of lambdas
            for name in names
        }
        for name in names if price else ():
            assert self.trade(name, price) == PASS

    def _peers(self, name: str) -> PeerPrices:
        others = [(other, guard) for other, guard in self._guards.items() if other != name]
        fresh = [
            str(price)
            for other, (price, at_ns) in self.shown.items()
            if other != name and self.now_ns - at_ns <= FRESH_NS
        ]
        held = [guard.held("BTC", self.now_ns) for _, guard in others]
        return PeerPrices(fresh, [price for price in held if price is not None])

    def trade(self, name: str, price: str) -> str:
        """Let one trade come a hundredth of a second after the one before."""
        self.now_ns += SECOND // 100
        self._trades += 1
        verdict = self._guards[name].judge(Tick("BTC", price, self.now_ns, self._trades), self.now_ns)
        if verdict == PASS:
            self.shown[name] = Decimal(price), self.now_ns
        return verdict

    def beat(self) -> None:
        """Let go of what others have confirmed, as the feed process does every second."""
        for name, guard in self._guards.items():
            for tick in guard.confirmed(self.now_ns):
                self.shown[name] = Decimal(tick.price), self.now_ns

    def seconds(self, count: int, prices: dict[str, str]) -> list[dict[str, str]]:
        """Let every exchange of *prices* trade once a second; return the verdicts of each second."""
        verdicts = []
        for _ in range(count):
            self.now_ns += SECOND - len(prices) * SECOND // 100
            verdicts.append({name: self.trade(name, price) for name, price in prices.items()})
            self.beat()
        return verdicts


HONEST = {"kraken": "43000.5", "okx": "43010"}


@pytest.mark.parametrize(
    "slip",
    [
        "43000500",  # Synthetix 2019: the won a thousand times too dear
        "0.00043",  # Pyth 2021: the exponent 0 for -8
        "5402",  # Pyth 2021: what an average with zeros came to
        "430005",
    ],
)
def test_slip_of_the_scale_is_held_for_a_minute_where_two_others_contradict_it(slip: str) -> None:
    market = Market("coinbase", "kraken", "okx", price="43000")
    verdicts = market.seconds(MINUTE_S - 1, {"coinbase": slip, **HONEST})
    assert {verdict["coinbase"] for verdict in verdicts} == {JUMP}
    assert {verdict[name] for verdict in verdicts for name in HONEST} == {PASS}
    assert market.shown["coinbase"][0] == 43000
    assert market.trade("coinbase", "43001") == PASS, "mended"


def test_slip_at_the_start_of_a_feed_is_held_as_well() -> None:
    market = Market("kraken", "okx", price="43000")
    late = Market("coinbase", "kraken", "okx")
    late.shown, late.now_ns = market.shown, market.now_ns
    verdicts = late.seconds(MINUTE_S - 1, {"coinbase": "43000500", **HONEST})
    assert {verdict["coinbase"] for verdict in verdicts} == {JUMP}


def test_guard_gives_way_after_a_minute() -> None:
    """A filter that never does is the fault of the feed that stood at its floor (LUNA 2022)."""
    market = Market("coinbase", "kraken", "okx", price="43000")
    verdicts = market.seconds(MINUTE_S + 3, {"coinbase": "20000", **HONEST})
    assert [verdict["coinbase"] for verdict in verdicts[-2:]] == [PASS, PASS]


def test_good_trade_in_between_starts_the_minute_anew() -> None:
    market = Market("coinbase", "kraken", "okx", price="43000")
    market.seconds(MINUTE_S - 5, {"coinbase": "43000500", **HONEST})
    assert market.trade("coinbase", "43002") == PASS
    verdicts = market.seconds(MINUTE_S - 5, {"coinbase": "43000500", **HONEST})
    assert {verdict["coinbase"] for verdict in verdicts} == {JUMP}


@pytest.mark.parametrize("others", [{}, {"kraken": "43000.5"}, {"kraken": "43000.5", "okx": "20000"}])
def test_second_trade_is_enough_where_no_two_agree_against_it(others: dict[str, str]) -> None:
    market = Market("coinbase")
    market.seconds(2, {"coinbase": "43000"})
    for name, price in others.items():
        market.shown[name] = Decimal(price), market.now_ns
    assert [market.trade("coinbase", "60000") for _ in (1, 2)] == [JUMP, PASS]


def test_peers_that_fell_silent_contradict_nothing() -> None:
    market = Market("coinbase", "kraken", "okx", price="43000")
    market.seconds(FRESH_NS // SECOND + 1, {"coinbase": "43000"})
    assert [market.trade("coinbase", "30000") for _ in (1, 2)] == [JUMP, PASS]


def test_wick_of_one_exchange_never_shows() -> None:
    """Binance.US, 21 October 2021: 65,000 to 8,200 and back within a minute."""
    market = Market("binanceus", "kraken", "okx", price="65000")
    calm = {"kraken": "64900", "okx": "65010"}
    for price in ("50000", "30000", "8200", "8210", "9000", "25000", "48000"):
        verdicts = market.seconds(7, {"binanceus": price, **calm})
        assert {verdict["binanceus"] for verdict in verdicts} == {JUMP}
    assert market.shown["binanceus"][0] == 65000
    assert market.trade("binanceus", "64800") == PASS


def test_two_exchanges_off_at_once_confirm_one_another_only_when_they_agree() -> None:
    market = Market("binanceus", "bitstamp", "kraken", "okx", price="65000")
    apart = {"binanceus": "8200", "bitstamp": "30000", "kraken": "64900", "okx": "65010"}
    verdicts = market.seconds(30, apart)
    assert {verdict[name] for verdict in verdicts for name in ("binanceus", "bitstamp")} == {JUMP}


@pytest.mark.parametrize("step", ["0.75", "0.5", "0.1"])
def test_real_crash_is_followed_within_1_percent_and_10_s_at_every_step(step: str) -> None:
    """LUNA, May 2022: from 80 to nothing in days; here in minutes, and to a hundred-thousandth."""
    names = ("first", "second", "third", "fourth")
    price = Decimal(80)
    market = Market(*names, price=str(price))
    while price > Decimal("0.001"):
        price *= Decimal(step)
        # They trade near one another, not at one price.
        spread = {name: f"{price * (1 + Decimal(place) / 1000):f}" for place, name in enumerate(names)}
        market.seconds(10, spread)
        for name in names:
            assert abs(market.shown[name][0] / price - 1) <= Decimal("0.01"), (name, price)
    assert market.shown["first"][0] < Decimal("0.001")


def test_crash_gets_through_with_the_second_exchange_at_once() -> None:
    market = Market("first", "second", "third", price="80")
    assert market.trade("first", "40") == JUMP
    assert market.trade("second", "41") == PASS
    assert market.trade("third", "40.5") == PASS
    market.beat()
    assert market.shown["first"][0] == 40
