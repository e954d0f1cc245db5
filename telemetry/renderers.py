"""Reports as text: JSON pages, and CSV, TSV and plain tables in pieces. Sans-I/O.

Every format is made of the same rows (telemetry.reports); xlsx.py and pdf.py have the two of offices.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import msgspec

from telemetry.reports import FIGURES, Column, Question, Row, Value, render_hour, render_moment

Pages: TypeAlias = Iterable[Sequence[Row]]
Write: TypeAlias = Callable[[Value], Value]

ABSENT = "-"
"""In plain tables, where a value is missing."""
_HARMLESS = re.compile(r"[0-9A-Za-z][ -~]*", re.ASCII).fullmatch
_FORMULAS = "=+-@＝＋－＠ "
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class Format(NamedTuple):
    content_type: str
    is_file: bool = False
    """Made whole before it is sent."""
    most_rows: int | None = None


FORMATS = {
    "json": Format("application/json"),
    "csv": Format("text/csv; charset=utf-8; header=present"),
    "tsv": Format("text/tab-separated-values; charset=utf-8"),
    "text": Format("text/plain; charset=utf-8"),
    "xlsx": Format(
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", True, most_rows=1_048_575
    ),
    "pdf": Format("application/pdf", True, most_rows=5_000),
}


@lru_cache(maxsize=65_536)
def safe(text: str | None) -> str | None:
    """Return a text that no spreadsheet takes for a formula, and that breaks no line.

    What this service writes itself comes back as it is: it begins with a letter or a digit.
    """
    if text is None or _HARMLESS(text):
        return text
    text = _CONTROLS.sub(" ", text)
    return f"'{text}" if text[:1] in _FORMULAS else text


def writers(columns: Sequence[Column]) -> list[tuple[int, Write]]:
    """Return what turns values into text, by the place of the column."""
    by_kind: dict[str, Callable[..., Value]] = {
        "moment": render_moment,
        "hour": render_hour,
        "day": lambda day: day.isoformat(),
        "text": safe,
    }
    return [(place, by_kind[one.kind]) for place, one in enumerate(columns) if one.kind in by_kind]


def written(rows: Iterable[Row], columns: Sequence[Column]) -> Iterator[list[Value]]:
    """Write times and texts as text; numbers stay what they are, and None is a missing value."""
    makers = writers(columns)
    for row in rows:
        values = list(row)
        for place, write in makers:
            values[place] = write(values[place])
        yield values


def render_csv(columns: Sequence[Column], pages: Pages) -> Iterator[bytes]:
    """Yield CSV as RFC 4180 has it: a piece for each page, the first with the names of the columns."""
    return _separated(columns, pages, csv.excel)


class _Tabs(csv.excel):
    delimiter = "\t"
    lineterminator = "\n"
    quoting = csv.QUOTE_NONE  # a text has no tab and no end of line
    quotechar = None


def render_tsv(columns: Sequence[Column], pages: Pages) -> Iterator[bytes]:
    return _separated(columns, pages, _Tabs)


def _separated(columns: Sequence[Column], pages: Pages, dialect: type[csv.Dialect]) -> Iterator[bytes]:
    text = io.StringIO(newline="")
    table = csv.writer(text, dialect)
    table.writerow([column.name for column in columns])
    for rows in pages:
        table.writerows(written(rows, columns))
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()


def render_text(columns: Sequence[Column], pages: Pages) -> Iterator[bytes]:
    """Yield a table for people; a value wider than its column moves the rest of its line."""
    sides = [
        (">" if column.kind == "number" else "<", max(column.width, len(column.name))) for column in columns
    ]
    line = "  ".join(f"{{:{side}{width}}}" for side, width in sides).format
    head = [line(*(column.name for column in columns)), "  ".join("-" * width for _, width in sides)]
    for rows in pages:
        lines = [
            line(*(ABSENT if value is None else value for value in values))
            for values in written(rows, columns)
        ]
        yield "".join(f"{one.rstrip()}\n" for one in (*head, *lines)).encode()
        head = []


RENDERERS: dict[str, Callable[[Sequence[Column], Pages], Iterator[bytes]]] = {
    "csv": render_csv,
    "tsv": render_tsv,
    "text": render_text,
}

_encode = msgspec.json.Encoder().encode


def render_page(
    question: Question,
    columns: Sequence[Column],
    rows: Iterable[Row],
    *,
    totals: Sequence[int] | None,
    following: str | None,
) -> bytes:
    """Render one page; *following* is the cursor of the next one. Prices are text: no digit is lost."""
    names = [column.name for column in columns]
    document: dict[str, object] = {
        "report": question.kind.value,
        "from": render_hour(question.start),
        "to": render_hour(question.end),
        "filters": question.filters(),
        "group_by": question.group_by,
    }
    if totals is not None:
        document["totals"] = dict(zip((column.name for column in FIGURES), totals, strict=True))
    document["rows"] = [dict(zip(names, values, strict=True)) for values in json_values(rows, columns)]
    document["next"] = following
    return _encode(document)


def json_values(rows: Iterable[Row], columns: Sequence[Column]) -> Iterator[list[Value]]:
    times = [(place, write) for place, write in writers(columns) if columns[place].kind != "text"]
    for row in rows:
        values = list(row)
        for place, write in times:
            values[place] = write(values[place])
        yield values
