"""Frames made from templates."""

import pytest

from exchanges.feed.templates import Frame, Moment, TemplateError, check_ping, check_subscribe, fill, render

MOMENT = Moment(wall_ns=1_763_816_400_123_456_789, id=7, uuid="0000-1111")
LIST = '{"op":"subscribe","args":[{SYMBOLS}]}'


def frames(template: str, symbol: str, *symbols: str, join: str = ",") -> list[Frame]:
    return render(template, symbol, symbols, join=join, moment=lambda: MOMENT)


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ('{"time":{NOW_S}}', '{"time":1763816400}'),
        ('{"nonce":{NOW_MS}}', '{"nonce":1763816400123}'),
        ('{"id":"{ID}"}', '{"id":"7"}'),
        ("{UUID}", "0000-1111"),
        ("ping", "ping"),
        ('{"a":{"b":{}}}', '{"a":{"b":{}}}'),  # JSON's own braces
        ("{symbol}", "{symbol}"),
        ("{OTHER}", "{OTHER}"),
    ],
)
def test_placeholders_are_filled_and_braces_left(template: str, filled: str) -> None:
    assert fill(template, MOMENT) == filled


def test_symbol_that_looks_like_a_placeholder_is_not_filled_again() -> None:
    assert fill("{SYMBOL} {ID}", MOMENT, SYMBOL="{ID}") == "{ID} 7"


@pytest.mark.parametrize(
    ("symbol", "listed"),
    [
        ('"{SYMBOL}"', '["A","B"]'),
        ('"{SYMBOL}@trade"', '["A@trade","B@trade"]'),
        ('"publicTrade.{SYMBOL}"', '["publicTrade.A","publicTrade.B"]'),
        (
            '{"channel":"trades","instId":"{SYMBOL}"}',
            '[{"channel":"trades","instId":"A"},{"channel":"trades","instId":"B"}]',
        ),
    ],
)
def test_list_of_symbols(symbol: str, listed: str) -> None:
    assert frames(LIST, symbol, "A", "B") == [Frame(LIST.replace("[{SYMBOLS}]", listed), ("A", "B"))]


def test_comma_list_inside_a_string() -> None:
    template = '{"topic":"/market/match:{SYMBOLS}"}'
    assert (
        frames(template, "{SYMBOL}", "BTC-USDT", "ETH-USDT")[0].text
        == '{"topic":"/market/match:BTC-USDT,ETH-USDT"}'
    )
    assert frames(template, "{SYMBOL}", "A", "B", join="|")[0].text == '{"topic":"/market/match:A|B"}'


def test_one_frame_per_symbol() -> None:
    assert frames('{"sub":"live_{SYMBOL}"}', '"{SYMBOL}"', "a", "b") == [
        Frame('{"sub":"live_a"}', ("a",)),
        Frame('{"sub":"live_b"}', ("b",)),
    ]


def test_list_of_frames_is_sent_in_order_and_only_one_asks_for_the_symbols() -> None:
    template = '[ {"type":"subscribe","ids":[{SYMBOLS}]} , {"type":"subscribe","channel":"heartbeats"}]'
    assert frames(template, '"{SYMBOL}"', "A", "B") == [
        Frame('{"type":"subscribe","ids":["A","B"]}', ("A", "B")),
        Frame('{"type":"subscribe","channel":"heartbeats"}'),
    ]


def test_frame_that_is_itself_a_list() -> None:
    text = '[{"ticket":"0000-1111"},{"type":"trade","codes":["A"]}]'
    template = '[[{"ticket":"{UUID}"},{"type":"trade","codes":[{SYMBOLS}]}]]'
    assert frames(template, '"{SYMBOL}"', "A") == [Frame(text, ("A",))]


def test_template_without_symbols_asks_for_none() -> None:
    assert frames('{"all":true}', '"{SYMBOL}"', "A") == [Frame('{"all":true}')]
    assert frames("[]", '"{SYMBOL}"', "A") == []


@pytest.mark.parametrize(
    ("template", "symbol", "column"),
    [
        (LIST, '"x"', "symbol_template"),
        (LIST, "{SYMBOL}", "symbol_template"),
        (LIST, '"{SYMBOL}', "symbol_template"),
        (LIST, '"{SYMBOLL}{SYMBOL}"', "symbol_template"),
        ('{"op":"subscribe"}', '"{SYMBOL}"', "subscribe_template"),
        ('{"args":[{SYMBOLS}]', '"{SYMBOL}"', "subscribe_template"),
        ("{SYMBOLS} {NOW}", '"{SYMBOL}"', "subscribe_template"),
        ("[" * 100_000 + "{SYMBOLS}", '"{SYMBOL}"', "subscribe_template"),
    ],
)
def test_template_that_makes_no_frame_names_its_column(template: str, symbol: str, column: str) -> None:
    with pytest.raises(TemplateError) as caught:
        check_subscribe(template, symbol, in_url=False)
    assert caught.value.column == column
    assert str(caught.value)


def test_symbols_may_be_in_the_address_instead() -> None:
    check_subscribe('{"op":"start"}', '"{SYMBOL}"', in_url=True)


@pytest.mark.parametrize(
    "payload", ["", "ping", "PING", '{"op":"ping"}', '{"time":{NOW_S}}', '[{"id":{ID}}]']
)
def test_usable_pings(payload: str) -> None:
    check_ping(payload)


@pytest.mark.parametrize("payload", ['{"op":', "[1,]", "{NOW}", '{"time":{NOW_S}'])
def test_unusable_pings(payload: str) -> None:
    with pytest.raises(TemplateError) as caught:
        check_ping(payload)
    assert caught.value.column == "ping_payload"
