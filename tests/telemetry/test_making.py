"""Whole reports out of both kinds of database: all formats tell the same."""

from __future__ import annotations

import csv
import gc
import io
import os
import re
import resource
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import msgspec
import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from xlsxwriter import Workbook

from billing.connections import fresh_connection
from telemetry import making, renderers, xlsx
from telemetry._spool import UsageLog
from telemetry.exceptions import Cancelled, NotWritten, TooManyBytes, TooManyRows
from telemetry.making import is_file, make_lines, make_page
from telemetry.parameters import ReportParameters
from telemetry.queries import Reading
from telemetry.renderers import FORMATS
from telemetry.reports import DETAILS, FIGURES, Column, Kind, Question, Wanted, columns_of, unseal
from tests.telemetry.offices import charts, full_file, read_pages, read_sheet
from tests.telemetry.reported import ACCOUNT, ask, chosen, figures_of, make_usage, sums, write_usage

pytestmark = pytest.mark.django_db(databases=["default", "embedded"])
SECRET = b"s" * 32
NOW_S = 1_763_900_000
DAYS_FROM = datetime(1899, 12, 30, tzinfo=UTC)  # where spreadsheets count from


@pytest.fixture(params=["default", "embedded"])
def using(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def logs(using: str) -> list[UsageLog]:
    logs = make_usage()
    write_usage(logs, using)
    return logs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files; whatever is larger than a byte goes there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(making, "KEPT_BYTES", 1)
    return tmp_path


def files_in(folder: Path) -> list[str]:
    """Return all files there, those included that are open and have no name."""
    found = [str(path) for path in folder.rglob("*")]
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of this listing
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [path for path in found if path.startswith(f"{folder}/")]


def want(question: Question, name: str, limit: int | None = None, **changes: Any) -> Wanted:
    return Wanted(question, name, limit or (10_000 if name == "json" else None), NOW_S)._replace(**changes)


def make_file(
    wanted: Wanted, reading: Reading, *, page_rows: int, most_bytes: int = ReportParameters().file_bytes
) -> IO[bytes]:
    return making.make_file(wanted, reading, page_rows=page_rows, most_bytes=most_bytes)


def make(wanted: Wanted, using: str, page_rows: int = 50) -> bytes:
    reading = Reading(using)
    with reading:
        if wanted.format == "json":
            return make_page(wanted, reading, SECRET).body
        if is_file(wanted):
            with make_file(wanted, reading, page_rows=page_rows) as file:
                file.seek(0)
                return file.read()
        return b"".join(make_lines(wanted, reading, page_rows=page_rows))


def rows_of(question: Question, name: str, body: bytes) -> list[tuple[str, ...]]:
    """Read a report's rows out of its format, as the texts that CSV has."""
    columns = columns_of(question)
    if name == "json":
        rows = msgspec.json.decode(body)["rows"]
        return [tuple("" if one is None else str(one) for one in row.values()) for row in rows]
    if name in ("csv", "tsv"):
        dialect = csv.excel_tab if name == "tsv" else csv.excel
        return [tuple(row) for row in csv.reader(io.StringIO(body.decode()), dialect)][1:]
    if name == "text":
        lines = body.decode().splitlines()[2:]
        return [tuple("" if one == "-" else one for one in line.split()) for line in lines]
    if name == "xlsx":
        _, *rows = read_sheet(body, 2)
        return [sheet_texts(row, columns) for row in rows]
    names = tuple(column.name for column in columns)
    _, *pages = read_pages(body)  # the first one has the totals
    cells = ["" if text == "-" else text for _number, *texts in pages for text in texts]
    lines = [tuple(cells[at : at + len(names)]) for at in range(0, len(cells), len(names))]
    return [line for line in lines if line != names]


def sheet_texts(row: list[Any], columns: Sequence[Column]) -> tuple[str, ...]:
    values = [*row, *[None] * (len(columns) - len(row))]
    return tuple(sheet_text(value, column) for value, column in zip(values, columns, strict=True))


def sheet_text(value: Any, column: Column) -> str:
    if value is None:
        return ""
    if column.kind in ("moment", "hour", "day"):
        moment = DAYS_FROM + timedelta(milliseconds=round(value * 86_400_000))
        return {
            "moment": moment.isoformat(timespec="microseconds")[:26] + "Z",
            "hour": moment.isoformat()[:19] + "Z",
            "day": moment.date().isoformat(),
        }[column.kind]
    return f"{value:.0f}" if column.kind == "number" else str(value)


QUESTIONS = {
    "records": ask(),
    "of-btc": ask(asset="BTC", status=200),
    "totals": ask(Kind.SUMMARY),
    "by-day-and-source": ask(Kind.SUMMARY, group_by=("day", "source")),
    "by-hour-and-asset": ask(Kind.SUMMARY, group_by=("hour", "asset", "status")),
    "reports": ask(Kind.REPORT_USAGE),
    "nothing": ask(asset="NOPE"),
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=list(QUESTIONS))
def test_all_formats_tell_the_same_rows(question: Question, using: str, logs: list[UsageLog]) -> None:
    told = {name: rows_of(question, name, make(want(question, name), using)) for name in FORMATS}
    assert told["pdf"] == told["csv"]
    assert told["csv"] == told["json"] == told["tsv"] == told["text"]
    first = 0 if question.kind.is_summary else 1  # a spreadsheet's moments end at the millisecond
    assert [row[first:] for row in told["xlsx"]] == [row[first:] for row in told["csv"]]
    assert (told["csv"] == []) is (question.asset == "NOPE")


@pytest.mark.parametrize("name", FORMATS)
def test_figures_of_a_summary_are_the_records(name: str, using: str, logs: list[UsageLog]) -> None:
    expected = figures_of(chosen(logs))
    body = make(want(ask(Kind.SUMMARY), name), using)
    assert rows_of(ask(Kind.SUMMARY), name, body) == [tuple(map(str, expected))]


@pytest.mark.parametrize("kind", [Kind.USAGE, Kind.SUMMARY])
def test_totals_in_every_format_that_has_them_are_those_of_the_rows(
    kind: Kind, using: str, logs: list[UsageLog]
) -> None:
    expected = figures_of(chosen(logs))
    question = ask(kind, group_by=("asset",) if kind.is_summary else ())
    sheet = read_sheet(make(want(question, "xlsx"), using), 1)
    at = next(number for number, row in enumerate(sheet) if row[:1] == ["answers"])
    assert tuple(map(int, sheet[at + 1])) == expected
    texts, *_ = read_pages(make(want(question, "pdf"), using))
    at = texts.index("latency_max_us")
    assert tuple(texts[at + 1 : at + 1 + len(FIGURES)]) == tuple(f"{figure:,}" for figure in expected)
    if kind.is_summary:
        totals = msgspec.json.decode(make(want(question, "json", 1), using))["totals"]
        assert tuple(totals.values()) == expected


def test_workbook_has_charts_beside_their_figures(using: str, logs: list[UsageLog]) -> None:
    body = make(want(ask(), "xlsx"), using)
    assert charts(body) == 4
    sheet = read_sheet(body, 1)
    at = next(number for number, row in enumerate(sheet) if row[:2] == ["asset", "answers"])
    shown = {row[0]: tuple(map(int, row[1:])) for row in sheet[at + 1 : at + 4]}
    assert shown == sums(chosen(logs), lambda log: log.asset)


def test_pages_of_json_follow_one_another(using: str, logs: list[UsageLog]) -> None:
    for question in (ask(), ask(Kind.SUMMARY, group_by=("day", "asset", "status"))):
        rows, wanted = [], want(question, "json", 7)
        while True:
            page = make_page(wanted, Reading(using), SECRET)
            rows += rows_of(question, "json", page.body)
            if page.following is None:
                break
            cursor = unseal(page.following, SECRET, account_id=ACCOUNT, now_s=NOW_S)
            wanted = wanted._replace(question=cursor.question, place=cursor.place)
        assert rows == rows_of(question, "csv", make(want(question, "csv"), using))


def test_page_that_ends_with_the_last_row_has_no_next_one(using: str, logs: list[UsageLog]) -> None:
    count = len(chosen(logs))
    assert make_page(want(ask(), "json", count), Reading(using), SECRET).following is None
    assert make_page(want(ask(), "json", count - 1), Reading(using), SECRET).following is not None


@pytest.mark.parametrize("name", ["csv", "xlsx"])
def test_limit_is_kept_across_pages(name: str, using: str, logs: list[UsageLog]) -> None:
    for limit in (1, 50, 51):
        assert len(rows_of(ask(), name, make(want(ask(), name, limit), using))) == limit


@pytest.mark.parametrize("name", ["xlsx", "pdf"])
def test_file_that_cannot_hold_the_rows_is_refused(
    name: str, using: str, logs: list[UsageLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(chosen(logs))
    for most in (count, count - 1):
        monkeypatch.setitem(renderers.FORMATS, name, FORMATS[name]._replace(most_rows=most))
        if most == count:
            make(want(ask(), name), using)
        else:
            with pytest.raises(TooManyRows, match=f"may have {most} rows"):
                make(want(ask(), name), using)
            make(want(ask(), name, most), using)  # asked for no more than it holds


@pytest.mark.parametrize("name", ["csv", "tsv", "text"])
def test_file_may_have_so_many_bytes_and_not_one_more(
    name: str, using: str, logs: list[UsageLog], folder: Path
) -> None:
    wanted, reading = want(ask(Kind.SUMMARY, group_by=("hour", "asset")), name), Reading(using)
    length = len(make(wanted, using))
    with reading:
        with make_file(wanted, reading, page_rows=10, most_bytes=length) as file:
            assert file.seek(0, os.SEEK_END) == length
            assert files_in(folder)  # it is there, as long as it is open
        with pytest.raises(TooManyBytes, match=f"may have {length - 1} bytes"):
            make_file(wanted, reading, page_rows=10, most_bytes=length - 1)
    assert files_in(folder) == []


@pytest.mark.parametrize("name", ["xlsx", "pdf"])
def test_office_file_that_is_too_large_is_given_up(
    name: str, using: str, logs: list[UsageLog], folder: Path
) -> None:
    reading = Reading(using)
    with reading, pytest.raises(TooManyBytes):
        make_file(want(ask(), name), reading, page_rows=10, most_bytes=2_000)
    gc.collect()  # what is thrown away writes nothing either
    assert files_in(folder) == []


@pytest.mark.parametrize("name", ["csv", "xlsx", "pdf"])
def test_file_that_the_disk_has_no_room_for_is_said(
    name: str, using: str, logs: list[UsageLog], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", full_file)
    reading = Reading(using)
    with reading, pytest.raises(NotWritten, match="No space left"):
        make_file(want(ask(Kind.SUMMARY, group_by=("asset",)), name), reading, page_rows=10)
    gc.collect()
    assert files_in(folder) == []


def test_file_whose_last_byte_finds_no_room_is_not_taken_for_whole(
    using: str, logs: list[UsageLog], folder: Path
) -> None:
    wanted, reading = want(ask(Kind.SUMMARY, group_by=("hour", "asset")), "csv"), Reading(using)
    length = len(make(wanted, using))
    with reading, files_of_at_most(length - 1), pytest.raises(NotWritten, match="File too large"):
        make_file(wanted, reading, page_rows=10)
    assert files_in(folder) == []


@pytest.mark.parametrize("while_", ["rows", "packing"])
def test_workbook_whose_rows_find_no_room_leaves_nothing(
    while_: str, using: str, logs: list[UsageLog], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, reading, packed = Workbook.close, Reading(using), []

    def pack(workbook: Workbook) -> None:
        packed.append("workbook")
        with files_of_at_most(4_096):
            close(workbook)

    monkeypatch.setattr(Workbook, "close", pack)
    limit = files_of_at_most(4_096) if while_ == "rows" else nullcontext()
    with reading, limit, pytest.raises(NotWritten, match="File too large"):
        make_file(want(ask(), "xlsx"), reading, page_rows=10)
    assert len(packed) == (while_ == "packing")
    gc.collect()
    assert files_in(folder) == []


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the kernel refuse to make any file of this process larger, as a disk that is full."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


def test_report_that_was_given_up_reads_nothing_more(using: str, logs: list[UsageLog]) -> None:
    reading = Reading(using)
    lines = make_lines(want(ask(), "csv"), reading, page_rows=10)
    with reading:
        next(lines)
    reading.cancel()
    with pytest.raises(Cancelled):
        next(lines)


@pytest.mark.parametrize("name", ["csv", "tsv", "text", "xlsx"])
def test_summary_reads_its_groups_with_one_query(name: str, using: str, logs: list[UsageLog]) -> None:
    question = ask(Kind.SUMMARY, group_by=("hour", "asset"))
    asked = []
    for page_rows in (1_000, 10):
        with CaptureQueriesContext(connections[using]) as captured:
            rows = rows_of(question, name, make(want(question, name), using, page_rows))
        asked.append(len(captured))
    assert len(rows) > 100
    assert asked[0] == asked[1] <= (1 if name != "xlsx" else 8)


@pytest.mark.parametrize("limit", [1, 20, 25])
def test_limit_of_a_summary_is_kept(limit: int, using: str, logs: list[UsageLog]) -> None:
    question = ask(Kind.SUMMARY, group_by=("hour", "asset"))
    every = rows_of(question, "csv", make(want(question, "csv"), using))
    assert rows_of(question, "csv", make(want(question, "csv", limit), using, page_rows=10)) == every[:limit]


def test_summary_that_was_given_up_reads_nothing_more(
    using: str, logs: list[UsageLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, pieces = Reading(using), []

    def given_up(columns: Any, pages: Any) -> Any:
        for page in pages:
            pieces.append(page)
            reading.cancel()
            yield b"rows"

    monkeypatch.setitem(renderers.RENDERERS, "csv", given_up)
    wanted = want(ask(Kind.SUMMARY, group_by=("hour", "asset")), "csv")
    with pytest.raises(Cancelled), reading:
        make_file(wanted, reading, page_rows=10)
    assert [len(piece) for piece in pieces] == [10]


@pytest.mark.parametrize("while_", ["rows", "packing"])
def test_workbook_that_was_given_up_is_packed_no_further(
    while_: str, using: str, logs: list[UsageLog], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reading, packed = Reading(using), []
    close, pack = Workbook.close, ZipFile.write

    def closed(workbook: Workbook) -> None:
        assert while_ == "packing"
        close(workbook)

    def packing(file: ZipFile, *names: Any) -> None:
        packed.append(names)
        reading.cancel()
        pack(file, *names)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Workbook, "close", closed)
    monkeypatch.setattr(ZipFile, "write", packing)
    if while_ == "rows":
        monkeypatch.setattr(xlsx, "_write", lambda *_: reading.cancel())
    with pytest.raises(Cancelled), reading:
        make_file(want(ask(), "xlsx"), reading, page_rows=10)
    assert len(packed) == (while_ == "packing")
    assert list(tmp_path.iterdir()) == []  # nothing is left in the folder for temporary files
    gc.collect()  # and nothing is packed by what is thrown away


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fails", [False, True])
def test_summary_leaves_its_connection_as_it_was(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no transaction around, its own ends with it, whether or not it goes well."""
    write_usage(make_usage(), "default")
    wanted = want(ask(Kind.SUMMARY, group_by=("hour", "asset")), "csv")
    reading, seen = Reading(), []

    def seen_at_once(columns: Any, pages: Any) -> Any:
        for page in pages:
            seen.append(page)
            if len(seen) == 1:
                write_elsewhere()
            elif fails:
                raise OSError("no space")
            yield b"rows"

    def write_elsewhere() -> None:
        write = fresh_connection(lambda: write_usage(make_usage(), segment="1-2"))
        thread = threading.Thread(target=lambda: (write(), connections.close_all()))
        thread.start()
        thread.join()

    monkeypatch.setitem(renderers.RENDERERS, "csv", seen_at_once)
    with pytest.raises(NotWritten, match="no space") if fails else nullcontext(), reading:
        make_file(wanted, reading, page_rows=10).close()
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_cursors")
        assert cursor.fetchone() == (0,)
        assert cursor.connection.info.transaction_status.name == "IDLE"
    if not fails:  # what was written meanwhile is in none of the pieces
        assert sum(row[2] for page in seen for row in page) == len(chosen(make_usage()))
        with reading:
            assert reading.totals(wanted.question)[0] == 2 * len(chosen(make_usage()))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("kind", "meanwhile"), [(Kind.SUMMARY, "INTRANS"), (Kind.USAGE, "IDLE")])
def test_lines_hold_a_snapshot_for_a_summary_and_nothing_for_records(kind: Kind, meanwhile: str) -> None:
    write_usage(make_usage(), "default")
    question = ask(kind, group_by=("hour", "asset") if kind.is_summary else ())
    reading, info = Reading(), connections["default"].connection.info
    with reading, closing(make_lines(want(question, "csv"), reading, page_rows=10)) as lines:
        assert len(next(lines).splitlines()) == 11
        assert info.transaction_status.name == meanwhile
    assert info.transaction_status.name == "IDLE"  # though the rest was never asked for
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_cursors")
        assert cursor.fetchone() == (0,)


def test_prices_keep_their_digits_in_every_format(using: str, logs: list[UsageLog]) -> None:
    place = [column.name for column in DETAILS].index("price")
    question = ask(status=200, asset="BTC")
    for name in FORMATS:
        prices = {row[place] for row in rows_of(question, name, make(want(question, name), using))}
        assert "67123.4500" in prices
        assert all(re.fullmatch(r"(67123\.4500)?", price) for price in prices)


def test_days_are_those_of_utc(using: str) -> None:
    log = make_usage(1)[0]._replace(
        account_id=ACCOUNT,
        endpoint=0,
        time_ns=int(datetime(2026, 11, 2, tzinfo=UTC).timestamp()) * 10**9 - 1_000,
    )
    write_usage([log], using)
    for kind in (Kind.USAGE, Kind.SUMMARY):
        assert Reading(using).breakdown(ask(kind), "day", 9)[0][0] == date(2026, 11, 1)
