"""The table, the JSON document and the page tell the same figures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest

from udp_engine.report import HEADINGS, Level, Run, document, duration, page, percent, remarks, row
from udp_engine.stress import PAGE

TEMPLATE = PAGE.read_text(encoding="utf-8")
GOOD = Level(
    sockets=30,
    window=2,
    rate=0.0,
    seconds=5.0,
    sent=1_234_567,
    answered=1_234_567,
    lost=0,
    per_second=246_913.4,
    p50_us=143.2,
    p99_us=1_512.0,
    p999_us=20_480.0,
    longest_us=1_250_000.0,
)
BAD = replace(
    GOOD,
    sockets=21_000,
    window=1,
    sent=1_000,
    answered=900,
    errors={"rate_limited": 60, "stale": 1},
    lost=39,
    unsent=7,
    unexpected=2,
    reconnects=3,
)
RUN = Run(
    protocol="udp",
    target="127.0.0.1:2679",
    command="manage.py stress --seconds 5",
    machine="A <Machine> & more",
    started="2026-11-22 21:00:00 UTC",
    levels=(GOOD, BAD),
)


class Cells(HTMLParser):
    """Collects the table's cells, and every element that could load or run something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.loading: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe", "object") or any(
            name in ("src", "href") for name, _ in attrs
        ):
            self.loading.append(tag)
        if tag == "tr":
            self.rows.append([])
        self._inside = tag in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1].append(data)
            self._inside = False


def test_row_has_a_cell_for_each_heading() -> None:
    assert len(row(GOOD)) == len(HEADINGS)
    assert row(GOOD) == (
        *("60", "1,234,567", "1,234,567", "0", "0", "100 %", "246,913"),
        *("143 µs", "1.51 ms", "20.5 ms", "1.25 s"),
    )


def test_what_was_lost_or_never_sent_counts_as_missing() -> None:
    assert row(BAD)[1:6] == ("1,000", "900", "61", "46", "89.3744 %")
    assert not BAD.is_clean
    assert GOOD.is_clean
    assert not RUN.is_clean


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100 %"), (0.999_999_99, "99.9999 %"), (0.5, "50.0000 %"), (0.0, "0.0000 %")]
)
def test_only_all_is_a_hundred_percent(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("us", "text"), [(0.0, "0 µs"), (0.64, "0.64 µs"), (999.0, "999 µs"), (1_000.0, "1 ms"), (61e6, "61 s")]
)
def test_duration_has_three_digits(us: float, text: str) -> None:
    assert duration(us) == text


def test_level_without_requests_is_not_clean_and_divides_by_nothing() -> None:
    empty = replace(GOOD, sent=0, answered=0, per_second=0.0)
    assert empty.success == 0.0
    assert not empty.is_clean
    assert not replace(RUN, levels=()).is_clean
    page(replace(RUN, levels=(empty,)), TEMPLATE)
    page(replace(RUN, levels=()), TEMPLATE)


def test_document_is_json_with_every_figure() -> None:
    told = json.loads(json.dumps(document(RUN)))
    assert [level["sent"] for level in told["levels"]] == [1_234_567, 1_000]
    assert told["levels"][1]["errors"] == {"rate_limited": 60, "stale": 1}
    assert told["levels"][1]["refused"] == 61
    assert told["levels"][1]["success"] == 900 / 1_007
    assert told["clean"] is False
    assert (told["machine"], told["target"]) == (RUN.machine, RUN.target)


def test_page_tells_what_the_document_tells() -> None:
    cells = Cells(page(RUN, TEMPLATE))
    assert cells.rows[0] == list(HEADINGS)
    levels = json.loads(json.dumps(document(RUN)))["levels"]
    told = [Level(**{name: level[name] for name in Level.__dataclass_fields__}) for level in levels]
    assert cells.rows[1:] == [list(row(level)) for level in told]


def test_page_loads_and_runs_nothing() -> None:
    text = page(RUN, TEMPLATE)
    assert Cells(text).loading == []
    assert "http" not in re.sub(r"<dd>.*?</dd>", "", text).lower()
    assert "@import" not in text
    assert "url(" not in text


def test_page_names_machine_target_date_and_command_escaped() -> None:
    text = page(RUN, TEMPLATE)
    assert "<Machine>" not in text
    for fact in (RUN.machine, RUN.target, RUN.command, RUN.started):
        assert fact in unescape(text)


def test_page_has_a_plot_of_each_kind() -> None:
    text = page(RUN, TEMPLATE)
    assert text.count("<svg") == 3
    assert "46 missing" not in text
    assert "107 missing" in text
    assert "Every request was answered" in page(replace(RUN, levels=(GOOD,)), TEMPLATE)


def test_remarks_tell_what_has_no_column() -> None:
    said = " ".join(remarks(replace(RUN, notes=("Noted.",), interrupted=True)))
    for part in (
        "Noted.",
        "60 rate_limited, 1 stale",
        "7 requests were due",
        "2 replies",
        "3 sockets",
        "Interrupted",
    ):
        assert part in said
    assert "60 concurrent" not in said
