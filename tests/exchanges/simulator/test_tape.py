"""One exchange's trades around the common walk."""

from decimal import Decimal

from exchanges.simulator.dialects import DIALECTS
from exchanges.simulator.tape import HISTORY, Notation, Tape
from exchanges.simulator.walk import Walk

NOW_NS = 1_795_000_000_000_000_000
SECOND_NS = 1_000_000_000


def tape(name: str = "coinbase", walk: Walk | None = None, seed: int = 1) -> Tape:
    return Tape(name, DIALECTS[name].NOTATION, walk or Walk(seed), seed=seed, first_id=100)


def test_exchanges_agree_to_a_few_basis_points() -> None:
    walk = Walk(1)
    dollar = Decimal(tape("coinbase", walk).last("USDT-USD", NOW_NS).price)
    prices = []
    for name, dialect in DIALECTS.items():
        one = tape(name, walk)
        price = Decimal(one.last(dialect.NOTATION.symbol("BTC"), NOW_NS).price)
        prices.append(price * dollar if one.quote == "USDT" else price)
    assert len(set(prices)) == len(prices)
    assert max(prices) / min(prices) < Decimal("1.0010")


def test_same_seed_trades_the_same() -> None:
    runs = [[tape(seed=seed).trade("BTC-USD", NOW_NS) for _ in range(3)] for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_trades_rise_in_id_and_time_and_do_not_lie_ahead() -> None:
    one = tape()
    trades = [trade for n in range(50) for trade in one.trade("BTC-USD", NOW_NS + n * SECOND_NS)]
    assert len(trades) > 50, "some orders trade in several fills"
    assert [t.trade_id for t in trades] == sorted({t.trade_id for t in trades})
    assert [t.time_ns for t in trades] == sorted(t.time_ns for t in trades)
    assert trades[-1].time_ns <= NOW_NS + 49 * SECOND_NS


def test_draw_gives_every_symbol_once_before_any_again() -> None:
    one = tape()
    symbols = {"BTC-USD", "ETH-USD", "SOL-USD"}
    rounds = [set(one.draw(symbols, 3)) for _ in range(5)]
    assert rounds == [symbols] * 5
    assert one.draw(set(), 10) == []


def test_draw_forgets_symbols_that_nobody_wants_any_more() -> None:
    one = tape()
    one.draw({"BTC-USD", "ETH-USD", "SOL-USD"}, 1)
    assert set(one.draw({"XRP-USD"}, 5)) == {"XRP-USD"}


def test_history_before_the_first_trade_is_minutes_of_invented_past() -> None:
    past = tape().history("BTC-USD", HISTORY, NOW_NS)
    assert len(past) == HISTORY
    assert [t.time_ns for t in past] == sorted(t.time_ns for t in past)
    assert NOW_NS - 600 * SECOND_NS < past[0].time_ns < past[-1].time_ns < NOW_NS


def test_last_moves_on_although_nobody_listens() -> None:
    one = tape()
    first = one.last("BTC-USD", NOW_NS)
    assert one.last("BTC-USD", NOW_NS + SECOND_NS) == first
    later = one.last("BTC-USD", NOW_NS + 60 * SECOND_NS)
    assert later.time_ns > NOW_NS + 59 * SECOND_NS and later.trade_id > first.trade_id


def test_refused_symbol_is_not_listed_while_refused() -> None:
    one = tape()
    one.refused.add("BTC-USD")
    assert (one.lists("BTC-USD"), one.lists("ETH-USD"), one.lists("NOPE-USD")) == (False, True, False)


def test_notation_writes_symbols_as_the_exchange_does() -> None:
    notation = Notation("{}USD", lower=True, renamed={"RENDER": "RNDR"})
    assert [notation.symbol(asset) for asset in ("BTC", "RENDER")] == ["btcusd", "rndrusd"]
    assert tape("kraken").symbol("BTC") == "BTC/USD"
    assert tape("okx").symbol("USDT") is None, "a coin is not quoted in itself"
