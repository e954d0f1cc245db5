"""Reports as PDF: totals, charts, and the rows. Imported only where one is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import IO, Any
from xml.sax.saxutils import escape

from reportlab.graphics.charts.barcharts import HorizontalBarChart, VerticalBarChart
from reportlab.graphics.shapes import Drawing, String
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import LongTable, PageBreak, Paragraph, SimpleDocTemplate, Spacer, Table

from telemetry.overview import Breakdown, Overview
from telemetry.renderers import ABSENT, Pages, written
from telemetry.reports import FIGURES, Column, Row

GREEN, GREY, PALE = HexColor("#0b6b4b"), HexColor("#666666"), HexColor("#e6efeb")
CHART = (128 * mm, 58 * mm)
MOST_LABELS = 12
CHUNK = 200
"""Rows of one table: reportlab's time grows faster than a table does."""
_STYLES = getSampleStyleSheet()


def write_document(file: IO[bytes], overview: Overview, columns: Sequence[Column], pages: Pages) -> None:
    """Write a whole document into *file*; times are UTC."""
    title = f"The Trinity Beast: {overview.title}"
    document = SimpleDocTemplate(
        file,
        pagesize=landscape(A4),
        title=title,
        author="The Trinity Beast",
        **dict.fromkeys(("leftMargin", "rightMargin", "topMargin", "bottomMargin"), 14 * mm),
    )
    heading = " &nbsp; ".join(
        f"<b>{escape(name)}</b> {escape(value)}" for name, value in overview.question.heading().items()
    )
    story: list[Any] = [  # Any: no types are published
        Paragraph(title, _STYLES["Title"]),
        Paragraph(heading, _STYLES["BodyText"]),
        Spacer(0, 4 * mm),
        _table(FIGURES, [[f"{total:,}" for total in overview.totals]]),
        Spacer(0, 6 * mm),
    ]
    charts = [_chart(part) for part in overview.breakdowns if part.rows]
    if charts:
        story.append(Table([charts[place : place + 2] for place in range(0, len(charts), 2)]))
    story += [PageBreak(), *_rows(columns, pages)]
    document.build(story, onFirstPage=_number, onLaterPages=_number)


def _rows(columns: Sequence[Column], pages: Pages) -> Iterable[Any]:
    # In proportion to what their values usually take, over the whole width of a page.
    letters = [max(column.width, len(column.name)) for column in columns]
    widths = [(landscape(A4)[0] - 28 * mm) * one / sum(letters) for one in letters]
    for rows in pages:
        for start in range(0, len(rows), CHUNK):
            values = written(rows[start : start + CHUNK], columns)
            lines = [[ABSENT if value is None else value for value in line] for line in values]
            yield _table(columns, lines, widths)


def _table(
    columns: Sequence[Column], lines: Sequence[Sequence[Any]], widths: Sequence[float] | None = None
) -> Any:
    names = [column.name for column in columns]
    style = [
        *(("ALIGN", (at, 0), (at, -1), "RIGHT") for at, one in enumerate(columns) if one.kind == "number"),
        ("FONTSIZE", (0, 0), (-1, -1), 6.5 if widths else 9),
        ("FONTNAME", (0, 0), (-1, 0), "Helvetica-Bold"),
        ("BACKGROUND", (0, 0), (-1, 0), PALE),
        ("LINEBELOW", (0, 0), (-1, -1), 0.25, PALE),
        ("TOPPADDING", (0, 0), (-1, -1), 1),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
    ]
    kind = LongTable if widths else Table
    return kind([names, *lines], colWidths=widths, repeatRows=1, style=style, hAlign="LEFT")


def _chart(part: Breakdown) -> Drawing:
    """Draw the answers of a breakdown, in the order of its rows."""
    drawing, is_time = Drawing(*CHART), part.group == "day"
    rows: Sequence[Row] = part.rows if is_time else part.rows[:MOST_LABELS][::-1]  # the first one on top
    chart = VerticalBarChart() if is_time else HorizontalBarChart()
    chart.x, chart.y, chart.width, chart.height = 26 * mm, 10 * mm, 98 * mm, 40 * mm
    chart.data = [[row[1] for row in rows]]
    chart.categoryAxis.categoryNames = _labels([row[0] for row in rows])
    chart.categoryAxis.labels.fontSize = chart.valueAxis.labels.fontSize = 6.5
    chart.valueAxis.valueMin = 0
    chart.valueAxis.labelTextFormat = "{:,.0f}".format
    chart.bars[0].fillColor, chart.bars[0].strokeColor = GREEN, None
    drawing.add(chart)
    drawing.add(String(0, CHART[1] - 4 * mm, part.title, fontName="Helvetica-Bold", fontSize=9))
    return drawing


def _labels(names: Sequence[Any]) -> list[str]:
    """Name the bars; of many days only some, that no name covers another."""
    step = -(-len(names) // MOST_LABELS)
    return [
        (f"{name:%m-%d}" if isinstance(name, date) else "none" if name is None else str(name))
        if number % step == 0
        else ""
        for number, name in enumerate(names)
    ]


def _number(canvas: Any, document: Any) -> None:
    canvas.saveState()
    canvas.setFont("Helvetica", 7)
    canvas.setFillColor(GREY)
    canvas.drawRightString(landscape(A4)[0] - 14 * mm, 8 * mm, f"{document.page}")
    canvas.restoreState()
