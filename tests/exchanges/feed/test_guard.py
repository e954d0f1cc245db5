"""The guard: order, jumps, and who confirms them."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchanges.feed.guard import (
    FUTURE,
    FUTURE_NS,
    JUMP,
    MAX_HELD_NS,
    OLDER,
    PASS,
    REPEAT,
    Guard,
    PeerPrices,
)
from pricing.tick import Tick

SECOND = 10**9
T0 = 1_790_000_000 * SECOND


@dataclass
class Scene:
    """A guard whose peers a test sets, fed with trades of one symbol a second apart."""

    jump: int = 20
    tie: Literal["id", "place"] = "id"
    peers: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    at: int = T0

    def __post_init__(self) -> None:
        self.guard = Guard(max_jump_percent=self.jump, tie=self.tie, peers=self.elsewhere)

    def elsewhere(self, symbol: str) -> PeerPrices:
        return PeerPrices(self.peers, self.held)

    def trade(self, price: str, trade_id: str | int = "", *, after: int = SECOND, symbol: str = "BTC") -> str:
        self.at += after
        return self.guard.judge(Tick(symbol, price, self.at, trade_id), self.at)

    def run(self, *prices: str) -> list[str]:
        return [self.trade(price, number) for number, price in enumerate(prices, 1)]


def test_older_trade_never_replaces_a_newer() -> None:
    scene = Scene()
    assert scene.trade("100", after=0) == PASS
    assert scene.trade("100", after=-1) == OLDER
    assert scene.trade("100", after=2) == PASS


def test_older_is_per_symbol() -> None:
    scene = Scene()
    assert scene.trade("100") == PASS
    assert scene.trade("5", symbol="SOL", after=-3600 * SECOND) == PASS


def test_trade_without_an_id_hides_no_older_one() -> None:
    scene = Scene()
    assert [scene.trade("100", trade_id, after=0) for trade_id in ("2", "", "1")] == [PASS, PASS, OLDER]


def test_repeat_after_a_new_subscription() -> None:
    scene = Scene()
    assert [scene.trade("100", "7", after=after) for after in (0, 0)] == [PASS, REPEAT]


@pytest.mark.parametrize("ahead", [0, FUTURE_NS])
def test_clock_slightly_behind_is_tolerated(ahead: int) -> None:
    assert Scene().guard.judge(Tick("BTC", "1", T0 + ahead), T0) == PASS


def test_trade_from_the_future_is_refused_and_leaves_no_trace() -> None:
    scene = Scene()
    assert scene.guard.judge(Tick("BTC", "1", T0 + FUTURE_NS + 1), T0) == FUTURE
    assert scene.trade("1") == PASS


def test_trade_without_a_time_counts_as_of_now() -> None:
    guard = Scene().guard
    assert guard.judge(Tick("BTC", "100", None), T0) == PASS
    assert guard.judge(Tick("BTC", "100", T0 - 1), T0) == OLDER


@pytest.mark.parametrize(
    ("tie", "ids", "verdicts"),
    [
        ("id", (5, 4, 6), [PASS, OLDER, PASS]),  # HTX: newest first
        ("id", ("9", "10", "9"), [PASS, PASS, OLDER]),  # as numbers, not as text
        ("id", (2**70, 2**70 - 1), [PASS, OLDER]),
        ("id", ("b", "a"), [PASS, PASS]),  # UUIDs say nothing about order
        ("place", (5, 4, 6), [PASS, PASS, PASS]),
        ("place", (5, 5), [PASS, REPEAT]),
        ("id", ("", ""), [PASS, PASS]),
    ],
)
def test_ties(tie: Literal["id", "place"], ids: tuple[str | int, ...], verdicts: list[str]) -> None:
    scene = Scene(tie=tie)
    assert [scene.trade("100", trade_id, after=0) for trade_id in ids] == verdicts


@pytest.mark.parametrize("price", ["80", "120", "100.0000001"])
def test_move_within_the_limit_passes(price: str) -> None:
    assert Scene().run("100", price) == [PASS, PASS]


@pytest.mark.parametrize("price", ["79.99", "120.01", "0.01", "10000"])
def test_jump_is_held_and_the_next_good_price_passes(price: str) -> None:
    assert Scene().run("100", price, "101") == [PASS, JUMP, PASS]


def test_second_trade_confirms() -> None:
    assert Scene().run("100", "50", "51", "50") == [PASS, JUMP, PASS, PASS]


def test_second_trade_confirms_only_nearby() -> None:
    assert Scene().run("100", "50", "200", "201") == [PASS, JUMP, JUMP, PASS]


def test_the_same_trade_does_not_confirm_itself() -> None:
    scene = Scene()
    scene.trade("100", 1)
    assert [scene.trade("50", 2, after=after) for after in (1, 0, 0)] == [JUMP, JUMP, JUMP]


def test_fills_of_one_order_do_not_confirm_one_another() -> None:
    scene = Scene()
    scene.trade("100", 1)
    assert scene.trade("50", 2) == JUMP
    assert [scene.trade("50", number, after=0) for number in (3, 4)] == [JUMP, JUMP]
    scene.at += 1
    assert scene.trade("51", 5, after=0) == PASS


def test_trades_of_one_read_do_not_confirm_one_another() -> None:
    scene = Scene()
    scene.trade("100", 1)
    wall_ns = scene.at + SECOND
    later = [Tick("BTC", "50", wall_ns - 9 + number, number) for number in range(2, 6)]
    assert [scene.guard.judge(tick, wall_ns) for tick in later] == [JUMP] * 4
    assert scene.trade("50", 9, after=2 * SECOND) == PASS


def test_wick_that_two_peers_contradict_stays_out() -> None:
    scene = Scene(peers=["100", "101", "99"])
    scene.trade("100", 1)
    wick = [scene.trade("50", number, after=after) for number, after in enumerate((SECOND, 0, 1, 10**8), 2)]
    assert wick == [JUMP] * 4
    assert scene.trade("100", 9) == PASS


def test_move_that_two_peers_contradict_passes_once_it_persists() -> None:
    scene = Scene(peers=["100", "101"])
    scene.trade("100", 1)
    verdicts = [scene.trade("50", number) for number in range(2, 80)]
    assert verdicts.index(PASS) == 60, "a trade a second for a minute"
    assert set(verdicts[verdicts.index(PASS) :]) == {PASS}
    many = Scene(peers=["100", "101"])
    many.trade("100", 1)
    verdicts = [many.trade("50", number, after=SECOND // 100) for number in range(2, 6_000)]
    assert set(verdicts) == {JUMP}, "many trades are no longer time"
    rare = Scene(peers=["100", "101"])
    rare.trade("100", 1)
    assert [rare.trade("50", number, after=60 * SECOND) for number in (2, 3, 4)] == [JUMP, JUMP, PASS]


@pytest.mark.parametrize("peers", [["100"], ["100", "200"], []])
def test_one_peer_or_peers_that_disagree_contradict_nothing(peers: list[str]) -> None:
    scene = Scene(peers=peers)
    scene.run("100", "101")
    assert [scene.trade("50", number) for number in (3, 4)] == [JUMP, PASS]


def test_price_that_a_peer_holds_as_well_passes() -> None:
    scene = Scene(peers=["100", "101"])
    scene.trade("100")
    assert scene.trade("50") == JUMP
    assert scene.guard.held("BTC", scene.at) == "50"
    scene.held = ["51"]
    assert scene.trade("50") == PASS
    assert scene.guard.held("BTC", scene.at) is None


def test_held_price_is_shown_to_others_for_a_minute() -> None:
    scene = Scene()
    scene.run("100", "50")
    assert scene.guard.held("BTC", scene.at + MAX_HELD_NS) == "50"
    assert scene.guard.held("BTC", scene.at + MAX_HELD_NS + 1) is None
    assert scene.guard.held("ETH", scene.at) is None


def test_a_good_price_between_two_bad_prints_wipes_the_first() -> None:
    assert Scene().run("100", "50", "100", "50") == [PASS, JUMP, PASS, JUMP]


def test_rare_symbol_moves_on_its_second_trade_however_late() -> None:
    scene = Scene()
    assert scene.trade("100") == PASS
    assert scene.trade("50") == JUMP
    assert scene.guard.confirmed(scene.at + 2 * MAX_HELD_NS) == []
    assert scene.trade("50.5", after=10 * MAX_HELD_NS) == PASS


@pytest.mark.parametrize("step", ["0.5", "0.7", "1.5", "10"])
def test_real_crash_follows_within_two_trades_at_every_step(step: str) -> None:
    scene = Scene()
    price = Decimal("80")
    scene.trade(str(price))
    for _ in range(12):
        price *= Decimal(step)
        assert PASS in [scene.trade(f"{price:f}", number) for number in (1, 2)]


def test_peer_confirms_at_once() -> None:
    scene = Scene(peers=["48", "3"])
    assert scene.guard.judge(Tick("BTC", "49", T0), T0) == PASS
    scene.peers = ["100"]
    assert scene.run("101") == [PASS]


def test_first_price_needs_a_peer_where_there_are_any() -> None:
    assert Scene(peers=["100"]).run("5000", "101") == [JUMP, PASS]
    assert Scene(peers=["100"]).run("101") == [PASS]
    assert Scene().run("5000") == [PASS]


def test_peer_that_comes_later_lets_the_held_price_go() -> None:
    scene = Scene()
    scene.run("100", "50")
    assert scene.guard.confirmed(scene.at) == []
    scene.peers = ["51"]
    assert [tick.price for tick in scene.guard.confirmed(scene.at + MAX_HELD_NS)] == ["50"]
    assert scene.guard.confirmed(scene.at) == []
    assert scene.trade("52") == PASS


def test_held_price_is_not_let_go_after_a_minute() -> None:
    scene = Scene()
    scene.run("100", "50")
    scene.peers = ["51"]
    assert scene.guard.confirmed(scene.at + MAX_HELD_NS + 1) == []


def test_forgotten_symbol_starts_anew() -> None:
    scene = Scene()
    scene.trade("100")
    scene.guard.forget("BTC")
    scene.guard.forget("SOL")
    assert scene.trade("5000", after=-SECOND) == PASS


prices = st.integers(1, 10**6).map(lambda n: f"{Decimal(n) / 1000:f}")
trades = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(0, 6), prices, st.sampled_from("AB")), min_size=1, max_size=80
)


@given(trades, st.integers(1, 1000), st.lists(prices, max_size=2))
def test_what_passes_never_goes_back_in_time_and_id(
    history: list[tuple[int, int, str, str]], jump: int, peers: list[str]
) -> None:
    scene = Scene(jump=jump, peers=peers)
    last: dict[str, tuple[int, int]] = {}
    for step, trade_id, price, symbol in history:
        if scene.trade(price, trade_id or "", after=step * SECOND, symbol=symbol) == PASS:
            moment, number = last.get(symbol, (0, 0))
            assert (scene.at, trade_id or number) >= (moment, number) or scene.at > moment
            assert scene.at >= moment
            last[symbol] = scene.at, trade_id or (number if scene.at == moment else 0)


@given(st.lists(prices, min_size=2, max_size=60), st.integers(1, 1000))
def test_unconfirmed_jump_never_passes(history: list[str], jump: int) -> None:
    """What passes is within the limit of the last price that passed, or of the one refused just before."""
    scene = Scene(jump=jump)
    limit = Decimal(jump) / 100
    passed, refused = Decimal(0), Decimal(0)
    for number, text in enumerate(history, 1):
        price = Decimal(text)
        if scene.trade(text, number) == PASS:
            near = [other for other in (passed, refused) if other and abs(price - other) <= limit * other]
            assert near or not passed
            passed, refused = price, Decimal(0)
        else:
            refused = price
