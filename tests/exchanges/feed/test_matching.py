"""Conditions on a frame."""

from typing import Any

import pytest

from exchanges.feed.matching import MatchError, compile_match, cut_symbol, literal_of
from exchanges.feed.paths import Number, load

FRAME = load(
    '{"e":"trade","n":200,"f":1.5,"ok":true,"no":false,"nil":null,"id":"200","a":[{"s":"up"},{"s":"down"}],"o":{}}'
)


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        ({"e": "trade"}, True),
        ({"e": "trades"}, False),
        ({"n": 200}, True),
        ({"n": "200"}, False),  # a number is not its text
        ({"id": 200}, False),
        ({"id": "200"}, True),
        ({"f": 1.5}, True),
        ({"ok": True}, True),
        ({"ok": 1}, False),
        ({"n": True}, False),
        ({"no": False}, True),
        ({"nil": None}, True),
        ({"nil": False}, False),
        ({"missing": None}, False),
        ({"e": {"starts_with": "tra"}}, True),
        ({"e": {"starts_with": "x"}}, False),
        ({"n": {"starts_with": "20"}}, False),
        ({"a": {"starts_with": "x"}}, False),
        ({"nil": {"present": True}}, True),
        ({"nil": {"present": False}}, False),
        ({"missing": {"present": False}}, True),
        ({"missing": {"present": True}}, False),
        ({"e": "trade", "n": 200}, True),
        ({"e": "trade", "n": 201}, False),
        ({"a[*].s": "down"}, True),  # any of many
        ({"a[*].s": {"starts_with": "do"}}, True),
        ({"a[0].s": "down"}, False),
        ({"o.x|e": "trade"}, True),
        ({}, False),
    ],
)
def test_match(match: dict[str, Any], holds: bool) -> None:
    assert compile_match(match)(FRAME) is holds


@pytest.mark.parametrize("document", [[], "pong", None, True, Number("1"), {"e": {"e": "trade"}}])
def test_any_document_can_be_asked(document: object) -> None:
    assert not compile_match({"e": "trade"})(document)
    assert compile_match({"e[0]": {"present": False}})(document)


@pytest.mark.parametrize(
    "match",
    [
        {"a..b": "x"},
        {"": "x"},
        {"a": {}},
        {"a": []},
        {"a": {"starts_with": ""}},
        {"a": {"starts_with": 5}},
        {"a": {"starts_with": "x", "present": True}},
        {"a": {"present": 1}},
        {"a": {"present": "true"}},
        {"a": {"ends_with": "x"}},
    ],
)
def test_condition_that_cannot_be_read_names_its_path(match: dict[str, Any]) -> None:
    with pytest.raises(MatchError, match=next(iter(match)).replace(".", r"\.") or "''"):
        compile_match(match)


def test_literals_are_as_load_decodes_them() -> None:
    assert [literal_of(value) for value in (5, 1.5, True, None, "5")] == [
        Number("5"),
        Number("1.5"),
        True,
        None,
        "5",
    ]


@pytest.mark.parametrize(
    ("message", "after", "before", "symbol"),
    [
        ("Invalid symbol :[publicTrade.NOPEUSDT]", "publicTrade.", "", "NOPEUSDT"),
        ("error:already subscribed,topic:publicTrade.AUSDT", "publicTrade.", "", "AUSDT"),
        ("channel:trades,instId:NO-USDT doesn't exist.", "instId:", "", "NO-USDT"),
        ("unknown currency pair GIBBERISH_USD", "currency pair ", "", "GIBBERISH_USD"),
        ("not supported XBT/USD.", "supported ", "", "XBT/USD"),
        ("Invalid stream name: nousd@trade", "", "@", "nousd"),
        ("Sorry, NO-USD is not a valid product", "", " is not a valid", "NO-USD"),
        ("invalid topic market.nousdt.trade.detail", "market.", ".trade", "nousdt"),
        ("the symbol: ", "symbol: ", "", ""),
        ("no such words here", "symbol: ", "", ""),
        ("no such words here", "", "@", ""),
        ("before symbol: A", "symbol: ", "before", ""),
        ("@", "", "@", ""),
        ("A", "", "", ""),
        ("", "a", "b", ""),
    ],
)
def test_symbol_is_the_word_beside_a_text(message: str, after: str, before: str, symbol: str) -> None:
    assert cut_symbol(message, after=after, before=before) == symbol
