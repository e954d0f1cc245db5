"""Reports made of the database: a JSON page, lines piece by piece, a file whole.

All of it blocks, and is called within ``with reading:``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, NamedTuple

from telemetry.exceptions import TooManyRows
from telemetry.overview import Overview, make_overview
from telemetry.queries import Reading
from telemetry.renderers import FORMATS, RENDERERS, Pages, render_page
from telemetry.reports import (
    Column,
    Cursor,
    Question,
    Row,
    Value,
    Wanted,
    columns_of,
    figures,
    place_of,
    row_maker,
    seal,
)

KEPT_BYTES = 1 << 20
"""A file that is larger goes to the disk while it is made."""


class Page(NamedTuple):
    body: bytes
    following: str | None
    """The cursor of the next page."""


def make_page(wanted: Wanted, reading: Reading, secret: bytes) -> Page:
    """Make one page of JSON, its totals and rows as of one moment."""
    question, limit = wanted.question, wanted.limit or 0
    with reading.snapshot():
        read = reading.page(question, wanted.place, limit + 1)
        whole = figures(reading.totals(question)) if question.kind.is_summary else None
    following = None
    if len(read) > limit:
        place = _place(question, read[limit - 1])
        following = seal(Cursor(question, limit, wanted.made_s, place), secret)
    rows = map(row_maker(question), read[:limit])
    return Page(
        render_page(question, columns_of(question), rows, totals=whole, following=following), following
    )


def make_lines(wanted: Wanted, reading: Reading, *, page_rows: int) -> Iterator[bytes]:
    """Yield the report in pieces of so many rows."""
    pages = _pages(wanted, reading, page_rows)
    return RENDERERS[wanted.format](columns_of(wanted.question), pages)


def make_file(wanted: Wanted, reading: Reading, *, page_rows: int) -> IO[bytes]:
    """Make a whole file, all of it as of one moment. Raises TooManyRows."""
    most = FORMATS[wanted.format].most_rows or 0
    file = tempfile.SpooledTemporaryFile(KEPT_BYTES)  # noqa: SIM115  # the caller's, to be sent
    try:
        with reading.snapshot():
            if (wanted.limit is None or wanted.limit > most) and reading.count(wanted.question, most) > most:
                raise TooManyRows(wanted.format, most)
            overview = make_overview(wanted.question, reading.totals(wanted.question), reading.breakdown)
            pages = _pages(wanted, reading, page_rows)
            _writer(wanted.format)(file, overview, columns_of(wanted.question), pages)
    except BaseException:
        file.close()
        raise
    return file


def _writer(name: str) -> Callable[[IO[bytes], Overview, Sequence[Column], Pages], None]:
    """Their libraries take 30 MB and half a second: only where such a file is made."""
    if name == "xlsx":
        from telemetry.xlsx import write_workbook

        return write_workbook
    from telemetry.pdf import write_document

    return write_document


def _pages(wanted: Wanted, reading: Reading, page_rows: int) -> Iterator[list[Row]]:
    """Yield the rows page by page; at least one, which may be empty."""
    question, place = wanted.question, wanted.place
    make, left = row_maker(question), wanted.limit
    while True:
        reading.check()
        size = page_rows if left is None else min(page_rows, left)
        read = reading.page(question, place, size)
        yield list(map(make, read))
        left = None if left is None else left - len(read)
        if len(read) < size or left == 0:
            return
        place = _place(question, read[-1])


def _place(question: Question, read: Sequence[Value]) -> tuple[Value, ...]:
    """Return the place of a row that was read."""
    fields = place_of(question)
    return tuple(read[: len(fields)]) if question.kind.is_summary else (read[0], *read[-2:])
