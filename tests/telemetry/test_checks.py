"""The checks of the usage spool's room."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.core.checks import run_checks

SEGMENT = 65_536


class Disk(NamedTuple):
    free: int


@pytest.fixture(autouse=True)
def spool(settings: Any, tmp_path: Path) -> Path:  # Any: the plugin's wrapper of Django's settings
    settings.TRINITY_DATA_DIR = tmp_path
    settings.TRINITY_SPOOL_SEGMENT_BYTES, settings.TRINITY_SPOOL_BYTES = SEGMENT, 10 * SEGMENT
    settings.TRINITY_HTTP_WORKERS = settings.TRINITY_UDP_WORKERS = settings.TRINITY_REPORT_WORKERS = 1
    folder = tmp_path / "spool" / "1"
    folder.mkdir(parents=True)
    return folder


def found() -> dict[str, str]:
    return {str(one.id): one.msg for one in run_checks() if str(one.id).startswith("telemetry")}


def fill(folder: Path, segments: int) -> None:
    for number in range(segments):
        (folder / f"{number}.seg").write_bytes(bytes(SEGMENT))


def test_spool_with_room_is_fine(spool: Path) -> None:
    fill(spool, 7)
    assert found() == {}


def test_spool_that_nears_its_bound_is_a_warning(spool: Path) -> None:
    fill(spool, 8)
    assert found() == {"telemetry.W001": "The usage spool is nearly full: 524,288 of 655,360 bytes."}


@pytest.mark.parametrize(("free", "warned"), [(7 * SEGMENT, False), (7 * SEGMENT - 1, True)])
def test_disk_that_could_not_hold_the_spool_is_a_warning(
    spool: Path, monkeypatch: pytest.MonkeyPatch, free: int, warned: bool
) -> None:
    fill(spool, 3)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(free))
    assert ("telemetry.W002" in found()) is warned


@pytest.mark.parametrize(
    ("server", "workers"),
    [("APP_SERVER", 5 + 7), ("REPORT_SERVER", 3 + 1), ("APP_REPORT_SERVER", 5 + 7 + 3 + 1)],
)
def test_bound_that_leaves_workers_without_a_segment_is_a_warning(
    settings: Any, server: str, workers: int
) -> None:
    settings.SERVER_TYPE = server
    settings.TRINITY_HTTP_WORKERS, settings.TRINITY_UDP_WORKERS, settings.TRINITY_REPORT_WORKERS = 5, 7, 3
    settings.TRINITY_SPOOL_BYTES = 2 * workers * SEGMENT
    assert "telemetry.W003" not in found()
    settings.TRINITY_SPOOL_BYTES -= 1
    assert f"for {2 * workers - 1} segments, and {workers} workers" in found()["telemetry.W003"]


def test_spool_that_cannot_be_is_an_error_that_names_what_is_wrong(settings: Any) -> None:
    settings.TRINITY_SPOOL_BYTES = 2 * SEGMENT - 1
    what = "spool_bytes must be at least two segments, not 131071"
    assert found() == {"telemetry.E001": f"There can be no such usage spool: {what}."}
