"""Charts as SVG: columns over time, bars by name, and what the axes of every plot are made of. Sans-I/O.

Colours come from the page's style, so that a chart follows light, dark and print; there is no script and no
style in it. Whoever cannot see it needs a table beside it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

MARKS = 5  # on the axis of values, about
EMPTY = '<p class="empty">Nothing was answered in this time.</p>'


@dataclass(frozen=True, slots=True)
class Scale:
    """Turns values into pixels."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._bend(self.low), self._bend(self.high)
        share = (self._bend(value) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)

    def _bend(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.logarithmic else value


def steps(values: Sequence[float], top: float | None = None) -> list[float]:
    """Return round marks that enclose *values*: from 0, or below a fixed *top* from just under the least."""
    if top is None:
        step = _round(max(values) / MARKS)
        return [step * number for number in range(math.ceil(max(values) / step) + 1)]
    step = _round(max(top - min(values), top / 1_000) / MARKS)
    count = max(math.ceil((top - min(values)) / step), 2)
    return [top - step * number for number in range(count, -1, -1)]


def whole_steps(most: int) -> list[float]:
    """Return round marks from 0 that enclose a count: none of them is a fraction."""
    return [mark for mark in steps([max(most, 1)]) if mark == int(mark)] if most > 1 else [0, 1]


def _round(step: float) -> float:
    """Return the least of 1, 2, 2.5, 5 times a power of ten that is no smaller than *step*."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= step * 0.999_999)


def grid_line(y: float, left: float, right: float, text: str) -> str:
    """Draw a line across at *y*, with what it stands for on its left."""
    return (
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>'
        f'<text class="axis" x="{left - 8}" y="{y + 4}" text-anchor="end">{html.escape(text)}</text>'
    )


# Columns over time

WIDTH, HEIGHT = 1_040, 280
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 12, 30
LABEL_PX = 52
EVERY = (1, 2, 3, 4, 6, 12, 24, 48, 96)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of every column; *kind* is its class in the page's style."""

    name: str
    kind: str
    values: Sequence[int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a column stands: *number* counts hours or days, so that labels fall on round ones."""

    number: int
    label: str
    name: str


def columns(title: str, places: Sequence[Place], parts: Sequence[Part]) -> str:
    """Return stacked columns, the first part at the bottom."""
    heights = [sum(values) for values in zip(*(part.values for part in parts), strict=True)]
    if not any(heights):
        return EMPTY
    marks = whole_steps(max(heights))
    bottom, width = HEIGHT - BOTTOM, (WIDTH - LEFT - RIGHT) / len(places)
    y = Scale(0, max(marks[-1], max(heights)), bottom, TOP)
    every = next((one for one in EVERY if one * width >= LABEL_PX), EVERY[-1])
    drawn = [grid_line(y(mark), LEFT, WIDTH - RIGHT, short(mark)) for mark in marks]
    for at, place in enumerate(places):
        left = LEFT + at * width
        drawn.append(_column(place, left, width, [(part, part.values[at]) for part in parts], y))
        if place.number % every == 0:
            drawn.append(_below(round(left + width / 2, 1), bottom, place.label))
    return _svg(title, WIDTH, HEIGHT, drawn)


def _column(place: Place, left: float, width: float, stacked: Sequence[tuple[Part, int]], y: Scale) -> str:
    if not any(value for _, value in stacked):
        return ""
    gap = min(3.0, width * 0.2)
    told = ", ".join(f"{value:,} {part.name}" for part, value in stacked if value)
    drawn, below = [f"<title>{html.escape(place.name)}: {html.escape(told)}</title>"], 0
    for part, value in stacked:
        if value:
            top, foot = y(below + value), y(below)
            drawn.append(
                f'<rect class="{part.kind}" x="{left + gap / 2:.1f}" y="{top}" '
                f'width="{width - gap:.1f}" height="{max(foot - top, 0.5):.1f}"/>'
            )
        below += value
    # What is seen of a small column is hard to point at: all of its place answers.
    whole = f'<rect class="touch" x="{left:.1f}" y="{TOP}" width="{width:.1f}" height="{y(0) - TOP:.1f}"/>'
    return f'<g class="column">{whole}{"".join(drawn)}</g>'


def _below(x: float, bottom: int, text: str) -> str:
    return (
        f'<line class="grid" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}"/>'
        f'<text class="axis" x="{x}" y="{bottom + 20}" text-anchor="middle">{html.escape(text)}</text>'
    )


# Bars by name

BAR_WIDTH, BAR_HEIGHT = 360, 28
BAR_LEFT, BAR_RIGHT = 176, 52
NAME_LETTERS = 24  # "503 Service Unavailable", "413 Content Too Large"


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    value: int
    kind: str = "ok"


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Return a bar for each row, in their order from above, each with its name and value in words."""
    most = max((row.value for row in rows), default=0)
    if not most:
        return EMPTY
    x = Scale(0, most, BAR_LEFT, BAR_WIDTH - BAR_RIGHT)
    return _svg(
        title, BAR_WIDTH, len(rows) * BAR_HEIGHT + 4, [_bar(at, row, x) for at, row in enumerate(rows)]
    )


def _bar(at: int, row: Bar, x: Scale) -> str:
    top, end = at * BAR_HEIGHT + 4, x(row.value)
    name = row.name if len(row.name) <= NAME_LETTERS else f"{row.name[: NAME_LETTERS - 1]}…"
    return (
        f"<g><title>{html.escape(row.name)}: {row.value:,}</title>"
        f'<text class="axis" x="{BAR_LEFT - 8}" y="{top + 15}" text-anchor="end">{html.escape(name)}</text>'
        f'<rect class="{row.kind}" x="{BAR_LEFT}" y="{top}" width="{max(end - BAR_LEFT, 1):.1f}" '
        f'height="{BAR_HEIGHT - 8}" rx="2"/>'
        f'<text class="value" x="{end + 6:.1f}" y="{top + 15}">{short(row.value)}</text></g>'
    )


def short(value: float) -> str:
    """Write a count in at most five characters or so: 950, 12,500, 1.25M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.3g}{unit}" if value < 1_000 * size else f"{value / size:,.0f}{unit}"
    return f"{value:,.0f}" if value < 100_000 else f"{value / 1_000:,.0f}k"


def _svg(title: str, width: int, height: int, drawn: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(drawn)}</svg>"
    )
