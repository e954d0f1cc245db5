"""Reports as workbooks: totals and charts, and the rows. Imported only where one is made."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime
from tempfile import TemporaryDirectory
from typing import IO, Any  # Any: no types are published

import xlsxwriter
from xlsxwriter.exceptions import FileCreateError

from telemetry.exceptions import NotWritten
from telemetry.overview import Breakdown, Overview
from telemetry.renderers import Pages, safe
from telemetry.reports import FIGURES, Column, Value

OPTIONS = {
    "constant_memory": True,  # rows go to a file as they come, from the first to the last
    "strings_to_formulas": False,
    "strings_to_numbers": False,
    "strings_to_urls": False,
}
CHART_COLUMN = len(FIGURES) + 2
LEAST_ROWS = 16
"""A chart is as high as so many rows."""
_TIMES = {"moment": "yyyy-mm-dd hh:mm:ss.000", "hour": "yyyy-mm-dd hh:mm", "day": "yyyy-mm-dd"}


def write_workbook(file: IO[bytes], overview: Overview, columns: Sequence[Column], pages: Pages) -> None:
    """Write a whole workbook into *file*. Times are UTC, to the millisecond: no spreadsheet has more.

    What fails, or is given up, ends at once: a workbook's own `with` would pack what there is first.
    """
    with TemporaryDirectory(prefix="workbook-") as folder:
        workbook = xlsxwriter.Workbook(file, {**OPTIONS, "tmpdir": folder})
        try:
            _write_overview(workbook, overview)
            _write_rows(workbook, columns, pages)
            workbook.close()
        except FileCreateError as error:  # what it makes of an OSError
            raise NotWritten(str(error)) from error
        finally:
            for sheet in workbook.worksheets():
                for part in (sheet.row_data_fh, sheet.fh):  # which a failure leaves open
                    with suppress(OSError):  # a full disk may say so again
                        part.close()


def _write_rows(workbook: Any, columns: Sequence[Column], pages: Pages) -> None:
    sheet = workbook.add_worksheet("Rows")
    bold = workbook.add_format({"bold": True})
    styles = {kind: workbook.add_format({"num_format": text}) for kind, text in _TIMES.items()}
    for place, column in enumerate(columns):
        sheet.set_column(place, place, max(column.width, len(column.name)) + 1)
    sheet.freeze_panes(1, 0)
    sheet.write_row(0, 0, [column.name for column in columns], bold)
    number = 0
    for rows in pages:
        for row in rows:
            number += 1
            for place, value in enumerate(row):
                _write(sheet, number, place, value, styles.get(columns[place].kind))
    sheet.autofilter(0, 0, number, len(columns) - 1)


def _write(sheet: Any, row: int, place: int, value: Value, style: Any = None) -> None:
    """Write a number, a time or a text: nothing here is ever a formula."""
    if isinstance(value, str):
        sheet.write_string(row, place, safe(value), style)
    elif isinstance(value, datetime):
        sheet.write_datetime(row, place, value.replace(tzinfo=None), style)
    elif isinstance(value, date):
        sheet.write_datetime(row, place, value, style)
    elif value is not None:
        sheet.write_number(row, place, value, style)


def _write_overview(workbook: Any, overview: Overview) -> None:
    sheet = workbook.add_worksheet("Summary")
    bold = workbook.add_format({"bold": True})
    sheet.set_column(0, CHART_COLUMN - 2, 17)
    sheet.write_string(0, 0, overview.title, workbook.add_format({"bold": True, "font_size": 16}))
    row = 1
    for name, value in overview.question.heading().items():
        _write(sheet, row, 0, name, bold)
        _write(sheet, row, 1, value)
        row += 1
    row += 1
    sheet.write_row(row, 0, [column.name for column in FIGURES], bold)
    for place, figure in enumerate(overview.totals):
        _write(sheet, row + 1, place, figure)
    row += 3
    for part in overview.breakdowns:
        row = _write_breakdown(workbook, sheet, row, part)


def _write_breakdown(workbook: Any, sheet: Any, row: int, part: Breakdown) -> int:
    """Write a table with its chart beside it; give the row below both."""
    bold, day = (
        workbook.add_format({"bold": True}),
        workbook.add_format({"num_format": _TIMES["day"], "align": "left"}),
    )
    sheet.write_row(row, 0, part.names, bold)
    for number, values in enumerate(part.rows, row + 1):
        for place, value in enumerate(values):
            _write(
                sheet,
                number,
                place,
                "none" if value is None else value,
                day if isinstance(value, date) else None,
            )
    if part.rows:
        last = row + len(part.rows)
        chart = workbook.add_chart({"type": "column" if part.group == "day" else "bar"})
        places = [sheet.get_name(), row + 1, 0, last, 0], [sheet.get_name(), row + 1, 1, last, 1]
        chart.add_series({"categories": places[0], "values": places[1], "name": "answers"})
        chart.set_title({"name": part.title, "name_font": {"size": 12}})
        chart.set_legend({"none": True})
        if part.group != "day":
            chart.set_y_axis({"reverse": True})  # the first row on top
        sheet.insert_chart(row, CHART_COLUMN, chart)
    return row + max(LEAST_ROWS, len(part.rows) + 2)
