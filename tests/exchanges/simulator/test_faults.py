"""Each fault's own part: what it does to a trade, to a frame, to JSON."""

import json
import zlib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from exchanges.simulator import faults as f
from exchanges.simulator.dialects import DIALECTS
from exchanges.simulator.tape import Tape, Trade
from exchanges.simulator.walk import Walk
from exchanges.simulator.wire import close_json, cut_price

TRADE = Trade("BTC-USD", "83371.10", "0.1", "buy", 1_795_000_000_123_456_000, 995_098_700)
FRAME = '{"channel":"trade","data":[{"symbol":"BTC/USD","price":83371.10,"qty":0.1}]}'


@dataclass
class Read:
    """One WebSocket frame, taken apart."""

    fin: bool
    rsv1: bool
    opcode: int
    payload: bytes


def read(data: bytes) -> Read:
    length, start = data[1] & 0x7F, 2
    if length == 126:
        length, start = int.from_bytes(data[2:4], "big"), 4
    elif length == 127:
        length, start = int.from_bytes(data[2:10], "big"), 10
    assert len(data) == start + length
    return Read(bool(data[0] & 0x80), bool(data[0] & 0x40), data[0] & 0x0F, data[start:])


def test_every_kind_is_read_from_its_own_name() -> None:
    extra: dict[str, dict[str, object]] = {
        "redirect": {"url": "http://x/"},
        "quiet-symbols": {"symbols": ["A"]},
        "refused-symbol": {"symbols": ["A"]},
        "unknown-symbols": {"symbols": ["A"]},
    }
    for kind in f.KINDS:
        fault = f.parse_fault(json.dumps({"kind": kind, **extra.get(kind, {})}).encode())
        assert fault.kind == kind
        assert f.parse_fault(msgspec.json.encode(fault)) == fault
    assert len(set(f.KINDS)) == len(f.KINDS) == 28


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{}", "kind"),
        (b'{"kind":"sloth"}', "sloth"),
        (b'{"kind":"silence","pong":false}', "pong"),
        (b'{"kind":"silence","pongs":"no"}', "bool"),
        (b'{"kind":"quiet-symbols","symbols":[]}', "length"),
        (b'{"kind":"slow-drip","bytes_per_s":0}', ">= 1"),
        (b'{"kind":"wrong-unit","shift":1}', "shift"),
        (b'{"kind":"disconnect","code":1006}', "close code"),
        (b'{"kind":"accept-then-close","code":17}', "close code"),
        (b"not json", "malformed"),
        (b"", "truncated"),
    ],
)
def test_bad_order_says_what_is_wrong(body: bytes, said: str) -> None:
    with pytest.raises(msgspec.DecodeError, match=said):
        f.parse_fault(body)


@pytest.mark.parametrize(
    ("rule", "price"),
    [
        ("x1000", "83371100.00"),
        ("/1000", "83.3711"),
        ("x0.5", "41685.550"),
        ("x-1", "-83371.10"),
        ("0", "0"),
        ("NaN", "NaN"),
        ("1e400", "1e400"),
        ("/0", "/0"),
        ("x", "x"),
        ("9" * 50, "9" * 50),
    ],
)
def test_absurd_price_scales_or_replaces(rule: str, price: str) -> None:
    (changed,) = f.AbsurdPrice(price=rule).change(TRADE)
    assert changed == TRADE._replace(price=price)


def test_fills_of_an_absurd_order_share_their_instant_and_differ_in_their_ids() -> None:
    fills = f.AbsurdPrice(fills=3).change(TRADE)
    assert {fill.time_ns for fill in fills} == {TRADE.time_ns}
    assert len({fill.trade_id for fill in fills}) == 3


def test_wick_halves_one_trade() -> None:
    wick = f.Wick()
    assert (wick.count, Decimal(wick.change(TRADE)[0].price)) == (1, Decimal("41685.55"))


@pytest.mark.parametrize("shift", [-9, -6, -3, 3, 6, 9])
def test_wrong_unit_shifts_the_time_and_every_dialect_can_still_write_it(shift: int) -> None:
    (changed,) = f.WrongUnit(shift=shift).change(TRADE)  # type: ignore[arg-type] # one of the literals
    expected = Decimal(TRADE.time_ns).scaleb(shift)
    assert changed.time_ns == int(expected)
    for name, dialect in DIALECTS.items():
        tape = Tape(name, dialect.NOTATION, Walk(1), seed=1, first_id=1)
        session = dialect(tape, 1, dialect.LIMITS, 0)
        assert session.trades([changed], TRADE.time_ns)


def test_old_and_future_times() -> None:
    assert f.OldTrades(age_s=60).change(TRADE)[0].time_ns == TRADE.time_ns - 60_000_000_000
    assert f.FutureTimes(ahead_s=0.5).change(TRADE)[0].time_ns == TRADE.time_ns + 500_000_000


def test_duplicates_repeat_the_trade() -> None:
    assert f.Duplicates(times=3).change(TRADE) == [TRADE] * 3


def test_out_of_order_appends_an_older_trade_at_another_price() -> None:
    new, old = f.OutOfOrder().change(TRADE)
    assert new == TRADE
    assert old.time_ns < new.time_ns and old.trade_id < new.trade_id and old.price != new.price


def test_trade_fault_of_some_symbols_spares_the_others() -> None:
    fault = f.OldTrades(symbols=("BTC-USD",))
    assert (fault.hits(TRADE), fault.hits(TRADE._replace(symbol="ETH-USD"))) == (True, False)
    assert f.OldTrades().hits(TRADE)


def test_garbage_is_a_text_frame_without_json() -> None:
    frame = read(f.Garbage().wire(FRAME))
    assert (frame.opcode, frame.fin) == (1, True)
    with pytest.raises(json.JSONDecodeError):
        json.loads(frame.payload)


def test_truncated_frame_does_not_parse() -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(read(f.Truncated().wire(FRAME)).payload)


@pytest.mark.parametrize("name", list(DIALECTS))
def test_truncated_and_closed_frame_parses_as_another_number(name: str) -> None:
    dialect = DIALECTS[name]
    tape = Tape(name, dialect.NOTATION, Walk(1), seed=1, first_id=1)
    symbol = dialect.NOTATION.symbol("BTC")
    (frame,) = dialect(tape, 1, dialect.LIMITS, 0).trades([TRADE._replace(symbol=symbol)], TRADE.time_ns)
    cut = read(f.Truncated(closed=True).wire(frame)).payload.decode()
    assert json.loads(cut)
    assert TRADE.price not in cut and TRADE.price[:2] in cut


@pytest.mark.parametrize(
    ("cut", "closed"),
    [
        ('{"a":[{"b":"12', '{"a":[{"b":"12"}]}'),
        ('{"a":"\\"', '{"a":"\\""}'),
        ('{"a":1}', '{"a":1}'),
        ('[{"a":1},{"b":2', '[{"a":1},{"b":2}]'),
    ],
)
def test_close_json_adds_what_is_missing(cut: str, closed: str) -> None:
    assert close_json(cut) == closed


def test_frame_without_a_price_is_not_cut() -> None:
    assert cut_price('{"a":1}') == '{"a":1}'


def test_oversized_frame_has_the_asked_size_and_still_parses() -> None:
    payload = read(f.Oversized(size_bytes=100_000).wire(FRAME)).payload
    assert len(payload) == 100_000
    assert json.loads(payload) == json.loads(FRAME)


def test_endless_fragments_never_say_fin() -> None:
    fault = f.EndlessFragments(size_bytes=10)
    first, more = read(fault.wire(FRAME)), read(fault.more())
    assert (first.opcode, first.fin, more.opcode, more.fin, len(more.payload)) == (1, False, 0, False, 10)


def test_deflate_bomb_is_small_and_unpacks_to_the_asked_size() -> None:
    size = 5 * 2**20 + 17
    frame = read(f.DeflateBomb(size_bytes=size).wire(FRAME))
    assert frame.rsv1 and len(frame.payload) < 10_000
    unpacked = zlib.decompressobj(-15).decompress(frame.payload + b"\x00\x00\xff\xff")
    assert len(unpacked) == size


def test_bad_utf8_is_not_utf8() -> None:
    with pytest.raises(UnicodeDecodeError):
        read(f.BadUtf8().wire(FRAME)).payload.decode()


def test_tiny_frames_precede_the_real_one() -> None:
    assert f.TinyFrames(frames=3).wire("x") == b"\x81\x00" * 3 + b"\x81\x01x"


def test_every_fault_and_its_fields_are_documented() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "simulator.md").read_text()
    for fault in get_args(f.AnyFault):
        (row,) = [
            line for line in page.splitlines() if line.startswith(f"| `{fault.__struct_config__.tag}` |")
        ]
        assert all(f"`{field}`" in row for field in fault.__struct_fields__)
