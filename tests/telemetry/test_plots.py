"""Axes that enclose what they show, columns and bars as high as they should be, and SVG for strict pages."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.plots import (
    EMPTY,
    HEIGHT,
    LEFT,
    WIDTH,
    Bar,
    Part,
    Place,
    bars,
    columns,
    short,
    steps,
    whole_steps,
)

POSITIVE = st.floats(min_value=1e-3, max_value=1e9)
COUNTS = st.lists(st.integers(0, 10**12), min_size=1, max_size=200)
HOSTILE = '"><script>alert(1)</script>'


def places(count: int) -> list[Place]:
    return [Place(number, f"{number}", f"hour {number}") for number in range(count)]


def rects(svg: str, kind: str) -> list[ElementTree.Element]:
    return [one for one in ElementTree.fromstring(svg).iter("rect") if one.attrib["class"] == kind]


@given(st.lists(POSITIVE, min_size=1, max_size=20))
def test_steps_start_at_zero_and_enclose_the_values(values: list[float]) -> None:
    marks = steps(values)
    assert marks[0] == 0
    assert marks[-1] >= max(values) * 0.999_99
    assert 2 <= len(marks) <= 8


@given(st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=20))
def test_steps_below_a_top_end_there_and_enclose_the_values(values: list[float]) -> None:
    marks = steps(values, 100.0)
    assert marks[-1] == 100
    assert marks[0] <= min(values) + 1e-6
    assert marks == sorted(marks)
    assert len(marks) <= 8


@given(st.integers(0, 10**15))
def test_marks_of_a_count_are_whole_and_enclose_it(count: int) -> None:
    marks = whole_steps(count)
    assert marks[0] == 0 and marks[-1] >= count
    assert all(mark == int(mark) for mark in marks)
    assert 2 <= len(marks) <= 8


@given(COUNTS, COUNTS)
def test_columns_stay_inside_their_frame(ok: list[int], failed: list[int]) -> None:
    count = min(len(ok), len(failed))
    parts = [Part("answered", "ok", ok[:count]), Part("failed", "failed", failed[:count])]
    svg = columns("T", places(count), parts)
    if svg == EMPTY:
        assert not any(ok[:count]) and not any(failed[:count])
        return
    drawn = rects(svg, "ok") + rects(svg, "failed")
    assert len(drawn) == sum(value > 0 for part in parts for value in part.values)
    for rect in drawn:
        x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= LEFT and x + width <= WIDTH and width > 0
        assert y >= 0 and y + height <= HEIGHT


def test_parts_of_a_column_stand_on_one_another_in_proportion() -> None:
    svg = columns("T", places(1), [Part("answered", "ok", [300]), Part("failed", "failed", [100])])
    (ok,), (failed,) = rects(svg, "ok"), rects(svg, "failed")
    assert float(ok.attrib["height"]) == pytest.approx(3 * float(failed.attrib["height"]), abs=0.5)
    assert float(failed.attrib["y"]) + float(failed.attrib["height"]) == pytest.approx(float(ok.attrib["y"]))


def test_column_says_its_figures_and_leaves_out_what_is_none() -> None:
    svg = columns("T", places(1), [Part("answered", "ok", [1_234]), Part("failed", "failed", [0])])
    assert "hour 0: 1,234 answered</title>" in svg


@pytest.mark.parametrize(("count", "every"), [(6, 1), (24, 2), (90, 6), (168, 12)])
def test_labels_fall_on_round_places_and_do_not_touch(count: int, every: int) -> None:
    svg = columns("T", places(count), [Part("answered", "ok", [1] * count)])
    texts = [one for one in ElementTree.fromstring(svg).iter("text") if one.attrib["text-anchor"] == "middle"]
    assert [int(one.text or "") for one in texts] == list(range(0, count, every))


def test_bars_are_as_long_as_their_values() -> None:
    svg = bars("T", [Bar("BTC", 400), Bar("ETH", 100, "refused"), Bar("nothing", 0)])
    (btc, nothing), (eth,) = rects(svg, "ok"), rects(svg, "refused")
    assert float(btc.attrib["width"]) == pytest.approx(4 * float(eth.attrib["width"]), abs=0.5)
    assert float(nothing.attrib["width"]) == 1
    assert ">400</text>" in svg


def test_long_name_is_cut_and_told_whole() -> None:
    svg = bars("T", [Bar("a-very-long-exchange-rest-sim", 4)])
    assert ">a-very-long-exchange-re…</text>" in svg
    assert "a-very-long-exchange-rest-sim: 4</title>" in svg


@pytest.mark.parametrize("rows", [[], [Bar("BTC", 0)]])
def test_nothing_is_said_instead_of_drawn(rows: list[Bar]) -> None:
    assert bars("T", rows) == EMPTY


@pytest.mark.parametrize(
    "svg",
    [
        bars(HOSTILE, [Bar(HOSTILE, 1)]),
        columns(HOSTILE, [Place(0, HOSTILE, HOSTILE)], [Part(HOSTILE, "ok", [1])]),
    ],
)
def test_text_stays_text_and_no_style_or_script_is_in_it(svg: str) -> None:
    elements = list(ElementTree.fromstring(svg).iter())
    assert {one.tag for one in elements} <= {"svg", "g", "title", "text", "rect", "line"}
    assert not any(name == "style" or name.startswith("on") for one in elements for name in one.attrib)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (12_500, "12,500"), (250_000, "250k"), (1_250_000, "1.25M"), (3e12, "3T")],
)
def test_short_number(value: float, text: str) -> None:
    assert short(value) == text
