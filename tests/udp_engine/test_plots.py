"""Axes that enclose what they show, and SVG that is well-formed."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udp_engine.plots import Curve, decades, plot

POSITIVE = st.floats(min_value=1e-3, max_value=1e9)


@given(st.lists(POSITIVE, min_size=1, max_size=20))
def test_decades_enclose_the_values(values: list[float]) -> None:
    marks = decades(values)
    assert marks[0] <= min(values) * 1.000_01
    assert marks[-1] >= max(values) * 0.999_99
    assert len(marks) >= 2
    assert marks == sorted(marks)


@given(st.lists(POSITIVE, min_size=1, max_size=13), st.booleans())
def test_plot_stays_inside_its_frame(values: list[float], logarithmic: bool) -> None:
    across = [10 * (place + 1) for place in range(len(values))]
    svg = plot("T", across, [Curve("a", values)], label=str, logarithmic=logarithmic)
    circles = ElementTree.fromstring(svg).findall(".//circle")
    assert len(circles) == len(values)
    for circle in circles:
        assert 70 <= float(circle.attrib["cx"]) <= 700
        assert 10 <= float(circle.attrib["cy"]) <= 260


def test_higher_values_are_higher_up() -> None:
    svg = plot("T", [1, 10, 100], [Curve("a", [5.0, 50.0, 20.0])], label=str)
    ups = [float(circle.attrib["cy"]) for circle in ElementTree.fromstring(svg).findall(".//circle")]
    assert ups[0] > ups[2] > ups[1]


def test_labels_of_crowded_places_are_left_out_but_the_last() -> None:
    across = [30, 60, 12_000, 15_000, 18_000, 21_000]
    texts = ElementTree.fromstring(plot("T", across, [Curve("a", [1.0] * 6)], label=str)).findall(".//text")
    said = [text.text for text in texts]
    assert {"30", "60", "12,000", "21,000"} <= set(said)
    assert "18,000" not in said


def test_names_of_curves_that_end_together_do_not_overlap() -> None:
    curves = [Curve(name, [1.0, 2.0]) for name in ("p50", "p99", "p99.9")]
    texts = ElementTree.fromstring(plot("T", [1, 2], curves, label=str)).findall(".//text")
    places = sorted(float(text.attrib["y"]) for text in texts if "name" in text.attrib["class"])
    assert len(places) == 3
    assert places[1] - places[0] >= 15 <= places[2] - places[1]


def test_names_are_escaped() -> None:
    svg = plot("<T>", [1, 2], [Curve("<a>", [1, 2]), Curve("b&", [1, 2])], label=lambda value: "<&>")
    assert ElementTree.fromstring(svg).attrib["aria-label"].startswith("<T>")


@pytest.mark.parametrize("values", [[], [0.0, 0.0]])
def test_plot_of_nothing_says_so(values: list[float]) -> None:
    assert "Nothing was measured" in plot("T", [1, 2][: len(values)], [Curve("a", values)], label=str)
