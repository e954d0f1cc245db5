"""Frames of the exchanges without recordings, in the shapes of their documentation, and spoilt frames."""

import random
from collections.abc import Iterator

from exchanges.feed.paths import Number, load
from tests.exchanges.feed.replay import OWN, SHARED, recorded

TRADES = {
    "bitfinex": [
        "[17470,[[401597393,1574694475039,0.005,7245.30],[401597394,1574694475040,-0.1,7245.3]]]",
        '[17470,"te",[401597395,1574694478808,0.005,7245.4]]',
    ],
    "bitstamp": [
        '{"data":{"id":217321044,"timestamp":"1643640186","amount":0.02,"price":38145.119999999995,"price_str":"38145.12",'
        '"type":0,"microtimestamp":"1643640186364517"},"channel":"live_trades_btcusd","event":"trade"}',
    ],
    "cryptocom": [
        '{"id":-1,"method":"subscribe","code":0,"result":{"channel":"trade","instrument_name":"BTC_USDT","data":['
        '{"d":"4611686018427387905","t":1790000000124,"p":"83000.10","q":"0.001","s":"BUY","i":"BTC_USDT"},'
        '{"d":"4611686018427387904","t":1790000000123,"p":83000.1,"q":"0.001","s":"SELL","i":"BTC_USDT"}]}}',
    ],
    "htx": [
        '{"ch":"market.btcusdt.trade.detail","ts":1630994963175,"tick":{"id":137005445109,"ts":1630994963173,"data":['
        '{"id":137005445109359286410323767,"ts":1630994963173,"tradeId":102523573487,"amount":0.1,"price":52648.70},'
        '{"id":137005445109359286410323766,"ts":1630994963173,"tradeId":102523573486,"amount":0.1,"price":52648.62}]}}',
    ],
    "kucoin": [
        '{"type":"message","topic":"/market/match:BTC-USDT","subject":"trade.l3match","data":{"price":"7245.30",'
        '"sequence":"1545896669145","size":"0.1","symbol":"BTC-USDT","time":"1545913818099033203","tradeId":"5c24c5da"}}',
    ],
    "upbit": [
        '{"type":"trade","code":"USDT-BTC","trade_timestamp":1730336862047,"trade_price":1.16539E8,"trade_volume":1e-5,'
        '"sequential_id":17303368620470000,"stream_type":"REALTIME"}',
    ],
}

_ODD = [
    "",
    "x",
    "0",
    "-1",
    "1e5",
    "1E-9",
    "NaN",
    "\\",
    '"',
    "😀",
    "é",
    None,
    True,
    False,
    {},
    [],
    [[]],
    [{}],
    {"x": 1},
]
_NUMBERS = [
    Number(text) for text in ("0", "-0", "1", "-5", "1.5", "1e3", "1E400", "18446744073709551616", "9" * 60)
]
_CHUNKS = [
    "{",
    "}",
    "[",
    "]",
    '"',
    ",",
    ":",
    "0",
    "null",
    "\\u0041",
    "\\ud800",
    "\\q",
    "\x00",
    "٣",
    "\ud800",
    "NaN",
    "e9",
]
_BYTES = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00", b"\xf0\x9f\x98\x80", b"\xef\xbb\xbf", b"\x1f\x8b"]


def incoming() -> dict[str, list[str]]:
    """Return every frame there is that came from an exchange, by the row's name."""
    frames = {name: list(trades) for name, trades in TRADES.items()}
    for line in [*recorded(SHARED), *recorded(OWN)]:
        if line.line["direction"] == "in" and line.line["kind"] != "ticker_rest":
            frames.setdefault(line.name, []).append(line.line["text"])
    return frames


def spoilt(frame: str, rng: random.Random) -> str | bytes:
    """Return the frame with one to three things wrong with it; sometimes as bytes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        frame = rng.choice((_spoil_value, _spoil_value, _spoil_text))(frame, rng)
    if rng.random() < 0.1:
        data = frame.encode("utf-8", "surrogatepass")
        at = rng.randrange(len(data) + 1)
        return data[:at] + rng.choice(_BYTES) + data[at:]
    return frame


def _spoil_text(frame: str, rng: random.Random) -> str:
    at = rng.randrange(len(frame) + 1)
    match rng.randrange(6):
        case 0:
            return frame[:at]
        case 1:
            return frame[:at] + frame[at + rng.randrange(1, 4) :]
        case 2:
            return frame[:at] + frame
        case 3:
            return frame + frame[at:]
        case 4:
            depth = rng.choice((3, 50, 900, 2000))
            return frame[:at] + "[" * depth + "]" * rng.choice((0, depth)) + frame[at:]
        case _:
            return frame[:at] + rng.choice(_CHUNKS) + frame[at:]


def _spoil_value(frame: str, rng: random.Random) -> str:
    """Replace, drop or double one value at any depth."""
    try:
        document = load(frame)
    except (ValueError, RecursionError):
        return _spoil_text(frame, rng)
    places = list(_places(document, 0))
    if not places:
        return _spoil_text(frame, rng)
    inside, key = rng.choice(places)
    odd = rng.choice(_ODD + _NUMBERS)
    match rng.randrange(4):
        case 0:
            del inside[key]
        case 1 if isinstance(inside, dict):
            inside[_Again(key)] = odd
        case 2:
            inside[key] = [inside[key]]
        case _:
            inside[key] = odd
    try:
        return _written(document)
    except RecursionError:  # spoilt by nesting before
        return frame


class _Again(str):
    """A key that is there already: equal to no other, so that a dict takes it a second time."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _places(value: object, depth: int) -> Iterator[tuple[dict | list, str | int]]:  # type: ignore[type-arg]  # JSON
    if not isinstance(value, dict | list) or depth > 40:
        return
    for key, child in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        yield from _places(child, depth + 1)


def _written(value: object) -> str:
    match value:
        case Number():
            return str(value)
        case dict():
            return "{" + ",".join(f"{_text(key)}:{_written(child)}" for key, child in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_written, value)) + "]"
        case str():
            return _text(value)
    return {None: "null", True: "true", False: "false"}[value]  # type: ignore[index]  # what else JSON has


def _text(value: str) -> str:
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
