"""Reports made of the database: a JSON page, lines piece by piece, a file whole.

All of it blocks, and is called within ``with reading:``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext, suppress
from typing import IO, Any, NamedTuple

from telemetry.exceptions import NotWritten, TooManyBytes, TooManyRows
from telemetry.overview import Overview, make_overview
from telemetry.queries import Pieces, Reading
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


def is_file(wanted: Wanted) -> bool:
    """Say whether it is made whole before it is sent: offices want it so, and sums that come of one query.

    Otherwise that query would have to stay open for as long as the client reads.
    """
    question = wanted.question
    return FORMATS[wanted.format].is_file or (question.kind.is_summary and wanted.format in RENDERERS)


def make_lines(wanted: Wanted, reading: Reading, *, page_rows: int) -> Generator[bytes, None, None]:
    """Yield the report in pieces of so many rows; all of a summary within one snapshot.

    That stays open from the first piece to the last: whoever stops before closes this, in the same thread.
    """
    snapshot = reading.snapshot() if wanted.question.kind.is_summary else nullcontext()
    with snapshot, closing(_pages(wanted, reading, page_rows)) as pages:
        yield from RENDERERS[wanted.format](columns_of(wanted.question), pages)


def make_file(wanted: Wanted, reading: Reading, *, page_rows: int, most_bytes: int) -> IO[bytes]:
    """Make a whole file, all of it as of one moment. Raises TooManyRows, TooManyBytes and NotWritten."""
    file = tempfile.SpooledTemporaryFile(KEPT_BYTES)  # noqa: SIM115  # the caller's, to be sent
    watched = Watched(file, reading.check, most_bytes)
    try:
        with reading.snapshot(), closing(_pages(wanted, reading, page_rows)) as pages:
            _write(watched, wanted, reading, pages)
        file.flush()  # whoever sends it only reads: a full disk is met here
    except OSError as error:
        watched.give_up()
        raise NotWritten(str(error)) from error
    except BaseException:
        watched.give_up()
        raise
    return file


def _write(watched: Watched, wanted: Wanted, reading: Reading, pages: Pages) -> None:
    if wanted.format in RENDERERS:
        for piece in RENDERERS[wanted.format](columns_of(wanted.question), pages):
            watched.write(piece)
    else:
        _write_office(watched, wanted, reading, pages)


def _write_office(file: Any, wanted: Wanted, reading: Reading, pages: Pages) -> None:  # Any: see Watched
    question, most = wanted.question, FORMATS[wanted.format].most_rows or 0
    if (wanted.limit is None or wanted.limit > most) and reading.count(question, most) > most:
        raise TooManyRows(wanted.format, most)
    overview = make_overview(question, reading.totals(question), reading.breakdown)
    _writer(wanted.format)(file, overview, columns_of(question), pages)


class Watched:
    """As much of a file as is used here, bounded; writing ends with what *check* raises.

    Packing a workbook takes seconds. What a library still writes while such an end passes through it, or
    when it is thrown away later, goes nowhere.
    """

    def __init__(self, file: IO[bytes], check: Callable[[], None], most_bytes: int) -> None:
        self._file = file
        self._check = check
        self._most_bytes = most_bytes
        self._has_ended = False
        self._place = 0  # what is sought after the end: a zip file reckons with it

    def give_up(self) -> None:
        self._has_ended = True
        with suppress(OSError):  # a full disk may say so again
            self._file.close()

    def write(self, data: bytes) -> int:
        if self._has_ended:
            return len(data)
        try:
            self._check()
            if self._file.tell() + len(data) > self._most_bytes:
                raise TooManyBytes(self._most_bytes)
            return self._file.write(data)
        except BaseException:
            self._has_ended = True
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        if self._has_ended:
            self._place = offset
            return offset
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._place if self._has_ended else self._file.tell()

    def flush(self) -> None:
        if not self._has_ended:
            self._file.flush()


def _writer(name: str) -> Callable[[IO[bytes], Overview, Sequence[Column], Pages], None]:
    """Their libraries take 30 MB and half a second: only where such a file is made."""
    if name == "xlsx":
        from telemetry.xlsx import write_workbook

        return write_workbook
    from telemetry.pdf import write_document

    return write_document


def _pages(wanted: Wanted, reading: Reading, page_rows: int) -> Generator[list[Row], None, None]:
    """Yield the rows page by page; at least one, which may be empty."""
    question, make = wanted.question, row_maker(wanted.question)
    pieces = (
        reading.groups(question, wanted.limit, page_rows)
        if question.kind.is_summary
        else _records(wanted, reading, page_rows)
    )
    with closing(pieces):
        reading.check()
        for page in pieces:
            yield list(map(make, page))
            reading.check()


def _records(wanted: Wanted, reading: Reading, page_rows: int) -> Pieces:
    question, place, left = wanted.question, wanted.place, wanted.limit
    while True:
        size = page_rows if left is None else min(page_rows, left)
        read = reading.page(question, place, size)
        yield read
        left = None if left is None else left - len(read)
        if len(read) < size or left == 0:
            return
        place = _place(question, read[-1])


def _place(question: Question, read: Sequence[Value]) -> tuple[Value, ...]:
    """Return the place of a row that was read."""
    fields = place_of(question)
    return tuple(read[: len(fields)]) if question.kind.is_summary else (read[0], *read[-2:])
