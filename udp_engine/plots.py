"""Plots as SVG: curves over concurrency, whose axis is logarithmic. Sans-I/O.

Colours come from the page's style, so that a plot follows light, dark and print.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from telemetry.plots import MARKS, Scale, grid_line, steps

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 64, 14, 44


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line; one value for each place on the horizontal axis."""

    name: str
    values: Sequence[float]


def plot(
    title: str,
    across: Sequence[float],
    curves: Sequence[Curve],
    *,
    label: Callable[[float], str],
    logarithmic: bool = False,
    marks: Sequence[str] = (),
    top: float | None = None,
    height: int = HEIGHT,
) -> str:
    """Return a plot. *label* writes a value; *marks* say more of each place; *top* is where the axis ends."""
    values = [value for curve in curves for value in curve.values]
    if not across or not any(values):
        return '<p class="empty">Nothing was measured.</p>'
    x = Scale(min(across), max(max(across), min(across) * 2), LEFT, WIDTH - RIGHT, True)
    ticks = decades(values) if logarithmic else steps(values, top)
    y = Scale(ticks[0], ticks[-1], height - BOTTOM, TOP, logarithmic)
    drawn = [grid_line(y(tick), LEFT, WIDTH - RIGHT, label(tick)) for tick in ticks]
    drawn += [_across(place, x(place), height - BOTTOM) for place in _apart(across, x)]
    for number, curve in enumerate(curves):
        drawn.append(_curve(number, curve, across, x, y, label, marks))
    names = _names(curves, y) if len(curves) > 1 else []
    name = html.escape(title)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{name} by concurrency">'
        + "".join([*drawn, *names])
        + f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 6}" text-anchor="middle">'
        + "concurrent requests</text></svg>"
    )


def decades(values: Sequence[float]) -> list[float]:
    """Return marks at 1, 2 and 5 times powers of ten that enclose the positive *values*."""
    positive = [value for value in values if value > 0]
    exponents = range(math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive))) + 1)
    marks = [10.0**exponent * factor for exponent in exponents for factor in (1, 2, 5)]
    below = max((mark for mark in marks if mark <= min(positive)), default=marks[0])
    above = min((mark for mark in marks if mark >= max(positive)), default=marks[-1])
    inside = [mark for mark in marks if below <= mark <= above]
    if len(inside) > 2 * MARKS:
        inside = [mark for mark in inside if math.log10(mark) % 1 < 1e-9 or mark in (below, above)]
    return inside if len(inside) > 1 else [below, below * 2]


def _apart(across: Sequence[float], x: Scale) -> list[float]:
    """Leave out labels that would touch the one after; the last one stays."""
    kept: list[float] = []
    for place in reversed(across):
        if not kept or x(kept[-1]) - x(place) >= 44:
            kept.append(place)
    return kept


def _across(place: float, x: float, bottom: int) -> str:
    return (
        f'<line class="grid" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}"/>'
        f'<text class="axis" x="{x}" y="{bottom + 18}" text-anchor="middle">{place:,.0f}</text>'
    )


def _curve(
    number: int,
    curve: Curve,
    across: Sequence[float],
    x: Scale,
    y: Scale,
    label: Callable[[float], str],
    marks: Sequence[str],
) -> str:
    points = [(x(place), y(value)) for place, value in zip(across, curve.values, strict=True)]
    told = marks or [""] * len(points)
    dots = [
        f'<circle cx="{left}" cy="{up}" r="3.5"><title>{place:,.0f} concurrent: {html.escape(curve.name)} '
        f"{html.escape(label(value))} {html.escape(mark)}</title></circle>"
        for (left, up), place, value, mark in zip(points, across, curve.values, told, strict=True)
    ]
    line = " ".join(f"{left},{up}" for left, up in points)
    return f'<g class="curve c{number}"><polyline points="{line}"/>{"".join(dots)}</g>'


def _names(curves: Sequence[Curve], y: Scale) -> list[str]:
    """Write each curve's name at its end, no two on top of each other."""
    ends = sorted((y(curve.values[-1]) + 4, number) for number, curve in enumerate(curves))
    places = [ends[0][0]]
    for (_, _), (wanted, _) in pairwise(ends):
        places.append(max(wanted, places[-1] + 15))
    return [
        f'<text class="name c{number}" x="{WIDTH - RIGHT + 10}" y="{up}">'
        f"{html.escape(curves[number].name)}</text>"
        for up, (_, number) in zip(places, ends, strict=True)
    ]
