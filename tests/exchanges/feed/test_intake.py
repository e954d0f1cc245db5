from __future__ import annotations

import mmap
import os
import time
from typing import Any

from exchanges.feed.decode import Fault, Faults
from exchanges.feed.intake import FRESH_NS, KEPT_PER_REASON, Intake
from exchanges.feed.status import RECENT_REFUSALS, TEXT_CHARACTERS
from pricing._board import MAX_EXCHANGES, board_size, format_board
from pricing._board_writer import BoardWriter
from pricing.tick import Tick
from tests.exchanges.rows import feed_spec, listing

SECOND_NS = 10**9


def new_board(slots: int = 64) -> BoardWriter:
    memory = mmap.mmap(-1, board_size(slots))
    format_board(memory, slots)
    return BoardWriter(memory, os.getpid(), time.monotonic_ns())


def new_intake(board: BoardWriter, name: str = "plain", **options: Any) -> Intake:  # Any: what Intake takes
    intake = Intake(feed_spec(name=name), board, **options)
    intake.follow([listing("BTC", name), listing("ETH", name)])
    return intake


class Venues:
    """Several exchanges whose guards see what the others hold, as the manager arranges it."""

    def __init__(self, *names: str) -> None:
        self.board = new_board()
        self.intakes = {
            name: new_intake(self.board, name, held_elsewhere=self.held_elsewhere) for name in names
        }

    def held_elsewhere(self, asset: str, name: str) -> list[str]:
        others = [intake for other, intake in self.intakes.items() if other != name]
        return [price for intake in others for price in intake.held(asset, time.time_ns())]

    def trade(self, name: str, text: str) -> str:
        """Let one trade come; return the exchange's price on the board after it."""
        deliver(self.intakes[name], tick(text))
        return price(self.board, exchange=name)


def tick(price: str, *, symbol: str = "BTC-USD", ago_s: float = 0.0, trade_id: str = "") -> Tick:
    return Tick(symbol, price, time.time_ns() - int(ago_s * SECOND_NS), trade_id)


def deliver(intake: Intake, *ticks: Tick) -> int:
    """Let the ticks come, each in a read of its own."""
    return sum(intake.ticks([tick], time.time_ns(), time.monotonic_ns()) for tick in ticks)


def price(board: BoardWriter, asset: str = "BTC", exchange: str = "plain") -> str:
    found = board.get(asset, exchange)
    return found.price if found else ""


def test_tick_is_written_with_both_clocks() -> None:
    board = new_board()
    intake = new_intake(board)
    wall_ns, mono_ns = time.time_ns(), time.monotonic_ns()
    intake.ticks([Tick("BTC-USD", "1.50", wall_ns - 5, "7")], wall_ns, mono_ns)
    found = board.get("BTC", "plain")
    assert found is not None
    assert (found.price, found.source, found.quote) == ("1.50", "plain-ws", "USD")
    assert (found.traded_ns, found.received_ns, found.received_mono_ns) == (wall_ns - 5, wall_ns, mono_ns)
    assert intake.written == 1


def test_symbol_that_comes_back_in_another_case_is_the_same() -> None:
    board = new_board()
    deliver(new_intake(board), tick("1.5", symbol="btc-usd"))
    assert price(board) == "1.5"


def test_symbol_that_nobody_asked_for_is_ignored() -> None:
    intake = new_intake(new_board())
    deliver(intake, tick("1.5", symbol="NOPE-USD"))
    assert (intake.written, intake.refusals) == (0, {})


def test_ticks_of_use_are_counted() -> None:
    intake = new_intake(new_board())
    first = tick("1.5", trade_id="7")
    assert deliver(intake, first, first, tick("1.5", ago_s=3), tick("1.6"), tick("9", symbol="NOPE-USD")) == 2


def test_trade_of_long_ago_is_written_and_of_no_use() -> None:
    board = new_board()
    intake = new_intake(board)
    assert deliver(intake, tick("1.5", ago_s=3600), tick("1.6", ago_s=FRESH_NS / SECOND_NS + 1)) == 0
    assert (intake.written, price(board)) == (2, "1.6")
    assert deliver(intake, tick("1.7", ago_s=FRESH_NS / SECOND_NS - 1)) == 1


def test_trade_with_a_newer_one_in_its_frame_is_superseded_and_not_refused() -> None:
    """A snapshot begins with its newest trade; after a reconnection all of it is older than what is known."""
    board = new_board()
    intake = new_intake(board)
    snapshot = [tick("2.5", symbol="ETH-USD", ago_s=4), *(tick("1.5", ago_s=ago_s) for ago_s in (1, 2, 3))]
    assert intake.ticks(snapshot, time.time_ns(), time.monotonic_ns()) == 2
    assert (intake.superseded, intake.refusals, price(board)) == (2, {}, "1.5")
    deliver(intake, tick("1.6"))
    assert intake.ticks(snapshot, time.time_ns(), time.monotonic_ns()) == 1
    assert (intake.superseded, intake.refusals) == (4, {"older": 1})


def test_trade_of_the_same_instant_and_a_lower_id_is_superseded_too() -> None:
    intake = new_intake(new_board())
    traded_ns = time.time_ns()
    fills = [Tick("BTC-USD", "1.5", traded_ns, number) for number in (9, 8, 7)]
    intake.ticks(fills, traded_ns, time.monotonic_ns())
    assert (intake.written, intake.superseded, intake.refusals) == (1, 2, {})


def test_symbols_that_differ_only_in_case_are_not_both_followed() -> None:
    intake = Intake(feed_spec(), new_board())
    pair = [listing("BTC", symbol="btc-usd"), listing("XBT", symbol="BTC-USD")]
    assert intake.follow(pair) == (["btc-usd"], [])
    assert intake.homeless == {"BTC-USD": "differs from btc-usd only in case"}
    assert intake.follow(pair[1:]) == (["BTC-USD"], ["btc-usd"])
    assert intake.homeless == {}


def test_board_without_a_row_for_the_exchange_is_said_and_tried_again() -> None:
    board = new_board(slots=128)
    for number in range(MAX_EXCHANGES):
        new_intake(board, f"exchange{number}")
    intake = new_intake(board)
    assert "all 64 exchanges" in intake.problem
    assert intake.homeless == dict.fromkeys(["BTC-USD", "ETH-USD"], intake.problem)
    assert deliver(intake, tick("1.5")) == 0
    for asset in ("BTC", "ETH"):
        board.remove(asset, "exchange7")
    assert intake.follow([listing("BTC")]) == (["BTC-USD"], [])
    assert (intake.problem, deliver(intake, tick("1.5"))) == ("", 1)


def test_follow_says_what_is_new_and_what_is_gone() -> None:
    intake = Intake(feed_spec(), new_board())
    assert intake.follow([listing("BTC"), listing("ETH")]) == (["BTC-USD", "ETH-USD"], [])
    assert intake.follow([listing("ETH"), listing("SOL")]) == (["SOL-USD"], ["BTC-USD"])
    assert intake.assets == {"ETH", "SOL"}


def test_refusals_are_counted_and_the_last_of_each_reason_kept() -> None:
    intake = new_intake(new_board())
    deliver(intake, tick("1.5"))
    for number in range(50):
        deliver(intake, tick("1.5", ago_s=60 + number))
    deliver(intake, tick("1000", trade_id="9"))
    faults = Faults()
    for _ in range(500):
        faults.add(Fault("bad_price", "BTC-USD", "x" * 1000))
    intake.faults(faults, time.time_ns())
    assert intake.refusals == {"older": 50, "jump_held": 1, "bad_price": 500}
    kept = intake.recent_refusals()
    assert len(kept) == 2 * KEPT_PER_REASON + 1 <= RECENT_REFUSALS
    assert {one.reason for one in kept} == {"older", "jump_held", "bad_price"}
    assert max(len(one.detail) for one in kept) == TEXT_CHARACTERS


def test_price_of_another_exchange_confirms_a_jump() -> None:
    board = new_board()
    intake, other = new_intake(board), new_intake(board, "other")
    deliver(intake, tick("100", trade_id="1"))
    deliver(intake, tick("150", trade_id="2"))
    deliver(other, tick("101", trade_id="1"))
    assert price(board) == "100"
    deliver(other, tick("151", trade_id="2"), tick("152", trade_id="3"))
    intake.release_confirmed(time.time_ns(), time.monotonic_ns())
    assert price(board) == "150"


def test_crash_follows_within_two_trades_of_each_exchange() -> None:
    """All fall together: each would hold its first trade while the others still show the old price."""
    venues = Venues("first", "second", "third", "fourth")
    assert [venues.trade(name, "100") for name in venues.intakes] == ["100"] * 4
    assert [venues.trade(name, "50") for name in venues.intakes] == ["100", "50", "50", "50"]
    assert [venues.trade(name, "49") for name in venues.intakes] == ["49"] * 4
    assert [venues.trade(name, "20") for name in reversed(venues.intakes)] == ["20", "20", "20", "49"][::-1]


def test_held_price_is_written_once_another_exchange_has_it() -> None:
    venues = Venues("first", "second", "third")
    for text in ("100", "50"):
        for name in venues.intakes:
            venues.trade(name, text)
    assert price(venues.board, exchange="first") == "100"
    venues.intakes["first"].release_confirmed(time.time_ns(), time.monotonic_ns())
    assert price(venues.board, exchange="first") == "50"


def test_wick_of_one_exchange_stays_out_though_it_had_many_fills() -> None:
    venues = Venues("first", "second", "third", "fourth")
    for name in venues.intakes:
        venues.trade(name, "100")
    traded_ns = time.time_ns()
    fills = [Tick("BTC-USD", "50", traded_ns, number) for number in (2, 3, 4)]
    assert deliver(venues.intakes["first"], *fills) == 0
    assert venues.trade("first", "51") == "100"
    assert venues.trade("first", "101") == "101"


def test_old_price_of_another_exchange_confirms_nothing() -> None:
    board = new_board()
    intake, other = new_intake(board), new_intake(board, "other")
    deliver(intake, tick("100", trade_id="1"))
    deliver(other, tick("101", ago_s=130, trade_id="1"))
    deliver(other, tick("151", ago_s=121, trade_id="2"), tick("152", ago_s=120, trade_id="3"))
    assert price(board, exchange="other") == "152"
    deliver(intake, tick("150", trade_id="2"))
    assert price(board) == "100"


def test_closed_intake_lets_nothing_through_and_keeps_what_it_should() -> None:
    board = new_board()
    intake = new_intake(board)
    deliver(intake, tick("1.5"), tick("2.5", symbol="ETH-USD"))
    intake.close(keep={"ETH"})
    deliver(intake, tick("2.51", symbol="ETH-USD"), tick("1.51"))
    assert (price(board), price(board, "ETH")) == ("", "2.5")


def test_board_without_room_is_said_per_symbol() -> None:
    board = new_board(slots=1)
    intake = new_intake(board)
    assert list(intake.homeless) == ["ETH-USD"]
    deliver(intake, tick("1.5"), tick("2.5", symbol="ETH-USD"))
    assert price(board) == "1.5"


def test_asset_of_a_new_feed_is_not_stuck_at_once() -> None:
    board = new_board()
    intake, other = new_intake(board), new_intake(board, "other")
    deliver(other, tick("1.5"))
    mono_ns = time.monotonic_ns()
    minute = 60 * SECOND_NS

    def stuck(at_ns: int, *, peer_fresh_ns: int) -> list[str]:
        return intake.stuck_assets(at_ns, stuck_after_ns=minute, peer_fresh_ns=peer_fresh_ns)

    assert stuck(mono_ns, peer_fresh_ns=2 * minute) == []
    assert stuck(mono_ns + minute + SECOND_NS, peer_fresh_ns=2 * minute) == ["BTC"]
    assert stuck(mono_ns + minute + SECOND_NS, peer_fresh_ns=SECOND_NS) == [], "the other is silent as well"


def test_asset_of_which_only_old_trades_come_is_stuck() -> None:
    board = new_board()
    intake, other = new_intake(board), new_intake(board, "other")
    mono_ns, minute = time.monotonic_ns(), 60 * SECOND_NS

    def stuck() -> list[str]:
        return intake.stuck_assets(
            mono_ns + 2 * minute + SECOND_NS, stuck_after_ns=2 * minute, peer_fresh_ns=3 * minute
        )

    deliver(other, tick("1.5"))
    deliver(intake, tick("1.5", ago_s=3600))
    assert stuck() == ["BTC"]
    wall_ns = time.time_ns()
    intake.ticks([Tick("BTC-USD", "1.5", wall_ns)], wall_ns, mono_ns + minute)
    assert stuck() == []


def test_old_trades_of_others_make_nothing_stuck() -> None:
    board = new_board()
    intake, other = new_intake(board), new_intake(board, "other")
    deliver(other, tick("1.5", ago_s=3600))
    at_ns = time.monotonic_ns() + 61 * SECOND_NS
    assert intake.stuck_assets(at_ns, stuck_after_ns=60 * SECOND_NS, peer_fresh_ns=120 * SECOND_NS) == []
