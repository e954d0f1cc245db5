"""The formats of text; tests/telemetry/test_making.py compares all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, date, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.renderers import FORMATS, RENDERERS, render_csv, render_page, render_text, render_tsv, safe
from telemetry.reports import GROUPS, Column, Kind, Row
from tests.telemetry.reported import ask

COLUMNS = (
    Column("at", "moment", 27),
    Column("hour", "hour", 20),
    Column("day", "day", 10),
    Column("count", "number", 5),
    Column("name", "text", 6),
)
AT = datetime(2026, 11, 2, 3, 4, 5, 60, tzinfo=UTC)
ROW: Row = (AT, AT.replace(minute=0, second=0, microsecond=0), date(2026, 11, 2), 12, "BTC")
EMPTY: Row = (AT, None, None, 0, None)
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\x00=1", "＝1", "=cmd|' /C calc'!A0"]


def times(row: Row) -> Row:
    return (row[0], AT, AT.date(), *row[3:])


def pages() -> Iterator[list[Row]]:
    yield [ROW]
    yield [times(EMPTY)]


def test_csv_is_a_table_with_a_piece_for_each_page() -> None:
    first, second = render_csv(COLUMNS, pages())
    assert first == (
        b"at,hour,day,count,name\r\n2026-11-02T03:04:05.000060Z,2026-11-02T03:00:00Z,2026-11-02,12,BTC\r\n"
    )
    assert second.endswith(b",2026-11-02,0,\r\n")


def test_tsv_has_tabs_and_no_quotes() -> None:
    text = b"".join(render_tsv(COLUMNS[3:], [[(1, 'a"b\tc')], [(2, None)]]))
    assert text == b'count\tname\n1\ta"b c\n2\t\n'


def test_text_is_aligned_numbers_to_the_right() -> None:
    text = b"".join(render_text(COLUMNS[3:], [[(1, "BTC")], [(200_000, None), (3, "LONGERNAME")]])).decode()
    assert text == ("count  name\n-----  ------\n    1  BTC\n200000  -\n    3  LONGERNAME\n")


@pytest.mark.parametrize("name", RENDERERS)
def test_report_without_rows_has_its_columns(name: str) -> None:
    assert b"count" in b"".join(RENDERERS[name](COLUMNS, [[]]))


@pytest.mark.parametrize("name", RENDERERS)
def test_pieces_come_as_they_are_asked_for(name: str) -> None:
    asked = 0

    def endless() -> Iterator[list[Row]]:
        nonlocal asked
        while True:
            asked += 1
            yield [ROW]

    pieces = RENDERERS[name](COLUMNS, endless())
    for _ in range(3):
        next(pieces)
    assert asked == 3


@pytest.mark.parametrize("text", FORMULAS)
def test_text_that_would_be_a_formula_is_none(text: str) -> None:
    assert safe(text)[0] == "'"
    (cell,) = list(csv.reader(io.StringIO(b"".join(render_csv(COLUMNS[4:], [[(text,)]])).decode())))[1]
    assert cell[0] == "'"
    assert b"".join(render_tsv(COLUMNS[4:], [[(text,)]])).decode().splitlines()[1][0] == "'"


@given(st.text())
def test_no_text_begins_a_formula_or_breaks_a_line(text: str) -> None:
    shown = safe(text)
    assert shown[:1] not in set("=+-@＝＋－＠ \t\r\n")
    assert shown.isprintable() or not any(character < " " for character in shown)


@pytest.mark.parametrize("text", ["BTC", "coinbase-ws-sim", "67123.450", "reports/usage", "2026-11", "1INCH"])
def test_what_the_service_writes_is_not_changed(text: str) -> None:
    assert safe(text) == text


def test_page_tells_the_question_and_keeps_a_prices_digits() -> None:
    question = ask(Kind.SUMMARY, asset="BTC", group_by=("asset",))
    columns = (GROUPS["asset"], Column("price", "text", 5))
    body = render_page(question, columns, [("BTC", "1.50"), (None, None)], totals=range(8), following="next")
    assert msgspec.json.decode(body) == {
        "report": "summary",
        "from": "2026-11-01T00:00:00Z",
        "to": "2026-11-04T00:00:00Z",
        "filters": {"asset": "BTC"},
        "group_by": ["asset"],
        "totals": {
            "answers": 0,
            "counted": 1,
            "ok": 2,
            "refused": 3,
            "failed": 4,
            "assets": 5,
            "latency_mean_us": 6,
            "latency_max_us": 7,
        },
        "rows": [{"asset": "BTC", "price": "1.50"}, {"asset": None, "price": None}],
        "next": "next",
    }


def test_files_say_how_many_rows_they_hold() -> None:
    assert {name: row.most_rows for name, row in FORMATS.items() if row.is_file} == {
        "xlsx": 1_048_575,
        "pdf": 5_000,
    }
