"""What is on its way to the database: read from a real spool and its ledger, and when somebody is told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import LazySettings

from telemetry.segments import find_segments
from telemetry.spool import Spool
from tests.telemetry.spooling import SMALL, make_log
from tests.trinity_site.test_books import ship
from trinity_site.spooled import TOO_LONG, Waiting, figures, look, needs, span

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
EMPTY = Waiting(0, 1 << 30, 80, None)


@pytest.fixture
def place(settings: LazySettings, tmp_path: Path) -> LazySettings:
    settings.TRINITY_DATA_DIR, settings.CLUSTER_NODE = tmp_path, "Books"
    return settings


@pytest.fixture
def spool(place: LazySettings) -> Iterator[Spool]:
    (place.TRINITY_DATA_DIR / "spool").mkdir()
    spool = Spool(place.TRINITY_DATA_DIR / "spool", node="Books", row=1, parameters=SMALL)
    spool.prepare()
    yield spool
    spool.close()


def append(spool: Spool, *times: datetime) -> None:
    for time in times:
        assert spool.appender.append(make_log(1, time_ns=int(time.timestamp()) * 10**9))


def test_nothing_waits_in_a_node_without_a_spool(place: LazySettings) -> None:
    waiting = look(place)
    assert waiting == (0, place.TRINITY_SPOOL_BYTES, 80, None)
    assert list(needs(waiting, NOW)) == []


def test_first_record_that_is_not_in_the_ledger_is_the_one_that_waits(
    place: LazySettings, spool: Spool
) -> None:
    append(spool, NOW, NOW + timedelta(seconds=10), NOW + timedelta(seconds=20))
    assert look(place).since == NOW
    ship(place, most=2)
    assert look(place).since == NOW + timedelta(seconds=20)
    ship(place)
    assert look(place).since is None
    assert look(place).used_bytes > 0


def test_oldest_of_all_segments_counts(place: LazySettings, spool: Spool) -> None:
    append(spool, NOW)
    ship(place)
    other = Spool(place.TRINITY_DATA_DIR / "spool", node="Books", row=2, parameters=SMALL)
    other.prepare()
    append(other, NOW - timedelta(hours=1), NOW)
    append(spool, NOW + timedelta(seconds=1))
    assert look(place).since == NOW - timedelta(hours=1)
    other.close()


def test_file_that_is_no_segment_keeps_nobody_from_looking(place: LazySettings, spool: Spool) -> None:
    append(spool, NOW)
    (path,) = find_segments(place.TRINITY_DATA_DIR / "spool")
    for name in ("00000000000000000001.seg", "nothing.seg"):
        path.with_name(name).write_bytes(b"no segment")
    assert look(place).since == NOW


@pytest.mark.parametrize(
    ("waiting", "states"),
    [
        (EMPTY, []),
        (EMPTY._replace(used_bytes=int(0.79 * 2**30)), []),
        (EMPTY._replace(used_bytes=int(0.81 * 2**30)), ["refused"]),
        (EMPTY._replace(since=NOW - TOO_LONG), []),
        (EMPTY._replace(since=NOW - TOO_LONG - timedelta(seconds=1)), ["quiet"]),
        (
            EMPTY._replace(used_bytes=2**30, since=NOW - timedelta(days=3)),
            ["refused", "quiet"],
        ),
    ],
)
def test_somebody_is_needed_only_for_what_is_wrong(waiting: Waiting, states: list[str]) -> None:
    assert [need.state for need in needs(waiting, NOW)] == states


def test_needs_say_how_much_how_long_and_where() -> None:
    waiting = EMPTY._replace(used_bytes=2**30, since=NOW - timedelta(days=3))
    spool, since = needs(waiting, NOW)
    assert spool.text == "The usage spool is nearly full: 1.0\xa0GB of 1.0\xa0GB"
    assert "for 3 d" in since.text


def test_figures() -> None:
    shown = {figure.title: figure.text for figure in figures(EMPTY._replace(used_bytes=2**28), NOW)}
    assert shown == {"Usage spool": "25 %", "Waits for the database": "nothing"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (119, "119 s"), (120, "2 min"), (7_199, "119 min"), (7_200, "2 h"), (172_800, "2 d")],
)
def test_span(seconds: int, text: str) -> None:
    assert span(timedelta(seconds=seconds)) == text
