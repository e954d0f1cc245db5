from __future__ import annotations

import mmap
import os
import time
from typing import Any

from exchanges.feed.decode import Fault
from exchanges.feed.intake import KEPT_PER_REASON, Intake
from exchanges.feed.status import RECENT_REFUSALS, TEXT_CHARACTERS
from pricing._board import BoardWriter, board_size, format_board
from pricing.tick import Tick
from tests.exchanges.rows import feed_spec, listing

SECOND_NS = 10**9


def new_board(slots: int = 64) -> BoardWriter:
    memory = mmap.mmap(-1, board_size(slots))
    format_board(memory, slots)
    return BoardWriter(memory, os.getpid(), time.monotonic_ns())


def new_intake(board: BoardWriter, name: str = "plain", **row: Any) -> Intake:  # Any: columns
    intake = Intake(feed_spec(name=name, **row), board)
    intake.follow([listing("BTC", name), listing("ETH", name)])
    return intake


def tick(price: str, *, symbol: str = "BTC-USD", ago_s: float = 0.0, trade_id: str = "") -> Tick:
    return Tick(symbol, price, time.time_ns() - int(ago_s * SECOND_NS), trade_id)


def deliver(intake: Intake, *ticks: Tick) -> None:
    intake.ticks(ticks, time.time_ns(), time.monotonic_ns())


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
    intake.faults([Fault("bad_price", "BTC-USD", "x" * 1000)], time.time_ns())
    assert intake.refusals == {"older": 50, "jump_held": 1, "bad_price": 1}
    kept = intake.recent_refusals()
    assert len(kept) == KEPT_PER_REASON + 2 <= RECENT_REFUSALS
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
