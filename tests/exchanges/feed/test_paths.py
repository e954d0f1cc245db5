"""Paths: what they say, what they find, and JSON that keeps its digits."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchanges.feed.paths import ANY_KEY, EVERY, MISSING, Number, Path, PathError, load, parse

FRAME = {
    "events": [{"trades": [{"p": "1"}, {"p": "2"}]}, {"trades": [{"p": "3"}]}],
    "result": {"XXBTZUSD": {"c": ["30303.2", "0.1"]}},
    "topic": "spot.trades",
    "null": None,
}
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("$", ()),
        ("$.a", ("a",)),
        ("$[0]", (0,)),
        (" a.b ", ("a", "b")),
        ("a[*].b[-1]", ("a", EVERY, "b", -1)),
        ("result.*.c[0]", ("result", ANY_KEY, "c", 0)),
        ("*", (ANY_KEY,)),
        ("[*]", (EVERY,)),
        ("err-msg", ("err-msg",)),
        ("data[0][1]", ("data", 0, 1)),
    ],
)
def test_path_is_split_into_steps(text: str, steps: tuple[object, ...]) -> None:
    assert parse(text) == steps


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".a",
        "a.",
        "a..b",
        "a.[0]",
        "a[",
        "a[]",
        "a[x]",
        "a[1.5]",
        "a[٣]",
        "a b",
        "a*",
        "*a",
        "$a",
        "a$",
        "[0]a",
        "a[12345]",
        "a|b",
        "a" + ".a" * 12,
    ],
)
def test_typo_in_a_path_is_refused(text: str) -> None:
    with pytest.raises(PathError):
        parse(text)


@pytest.mark.parametrize("text", ["a|", "|a", "a||b", ""])
def test_empty_alternative_is_refused(text: str) -> None:
    with pytest.raises(PathError):
        Path(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("events[*].trades[*].p", ["1", "2", "3"]),
        ("events[0].trades[-1].p", ["2"]),
        ("events[-2].trades[0].p", ["1"]),
        ("result.*.c[0]", ["30303.2"]),
        ("result[*].XXBTZUSD.c[1]", ["0.1"]),  # [*] on an object: a list of one
        ("$.topic", ["spot.trades"]),
        ("null", [None]),
        ("nothing|topic", ["spot.trades"]),
        ("topic|null", ["spot.trades"]),
        ("events[2]", []),
        ("events[-3]", []),
        ("events.trades", []),
        ("topic[0]", []),
        ("topic.x", []),
        ("topic[*]", []),
        ("events.*", []),
        ("topic.*", []),
        ("nothing", []),
    ],
)
def test_path_finds(text: str, found: list[object]) -> None:
    assert Path(text).every(FRAME) == found
    assert Path(text).first(FRAME) == (found[0] if found else MISSING)


def test_document_itself() -> None:
    assert Path("$").first(FRAME) is FRAME
    assert Path("$").from_document
    assert not Path("topic").from_document


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("data", [{"p": 1}, {"p": 2}]),
        ("data[*]", [{"p": 1}, {"p": 2}]),
        ("one", [{"p": 3}]),
        ("one[*]", [{"p": 3}]),
        ("row", [[1, "te"]]),
        ("rows", [[1], [2]]),
        ("none", []),
        ("missing", []),
    ],
)
def test_rows_of_lists_and_single_objects(text: str, rows: list[object]) -> None:
    frame = {"data": [{"p": 1}, {"p": 2}], "one": {"p": 3}, "row": [1, "te"], "rows": [[1], [2]], "none": []}
    assert Path(text).rows(frame) == rows


@given(documents, st.sampled_from(["$", "a", "a.b", "a[*].b", "*.a", "[0]", "a[-1]|b", "[*][*]", "*.*"]))
def test_no_document_makes_a_path_raise(document: object, text: str) -> None:
    path = Path(text)
    every = path.every(document)
    first = path.first(document)
    assert (first is MISSING) is (not every)
    if every:
        assert first is every[0]
    path.rows(document)


@pytest.mark.parametrize(
    "digits", ["105944.20", "-0", "9.2E-7", "1.16539e8", "13834774380200032777", "1" * 5000]
)
def test_number_keeps_its_digits(digits: str) -> None:
    number = load(f"[{digits}]")[0]  # type: ignore[index]  # a list, as written
    assert isinstance(number, Number)
    assert str(number) == digits


def test_number_never_equals_a_string() -> None:
    assert Number("20051") == Number("20051")
    assert Number("20051") != "20051"
    assert "20051" != Number("20051")  # noqa: SIM300 - the other side's comparison
    assert Number("1") != Number("2")
    assert len({Number("1"), Number("1"), Number("2")}) == 2


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"pong",
        b"{",
        b"[1,]",
        b"{'a':1}",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"[01]",
        b"\xff",
        b'"\xed\xa0\x80"',
        b"1 2",
        '"\\ud83d"',
        '{"\\uDE00":1}',
        '["x","\\ud83d\\u0041"]',
        "[1".encode("utf-16"),
    ],
)
def test_what_is_no_json_is_a_value_error(frame: str | bytes) -> None:
    with pytest.raises(ValueError):
        load(frame)


def test_whole_surrogate_pair_is_text() -> None:
    assert load('["\\ud83d\\ude00"]') == ["😀"]


def test_deep_nesting_is_a_recursion_error() -> None:
    with pytest.raises(RecursionError):
        load("[" * 100_000)


@given(documents)
def test_load_agrees_with_json(document: Any) -> None:  # Any: JSON
    def numbers(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | list | dict):
            return value
        if isinstance(value, int):
            return Number(value)
        if isinstance(value, list):
            return [numbers(item) for item in value]
        return {key: numbers(item) for key, item in value.items()}

    text = json.dumps(document, ensure_ascii=False)
    assert load(text) == load(text.encode()) == numbers(document)
