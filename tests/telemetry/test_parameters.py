"""What the tunables of telemetry may be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from telemetry._spool import HEADER_BYTES, MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES
from telemetry.parameters import ReportParameters, ShipperParameters, SpoolParameters


def test_defaults_are_as_stated() -> None:
    parameters = SpoolParameters()
    assert (parameters.segment_bytes, parameters.spool_bytes) == (16 * 2**20, 8 * 2**30)
    assert (parameters.warn_percent, parameters.sync_ms, parameters.full) == (80, 1_000, "refuse")


def test_parameters_are_those_of_the_settings() -> None:
    settings = SimpleNamespace(
        TRINITY_SPOOL_BYTES=2**30,
        TRINITY_SPOOL_SEGMENT_BYTES=2**20,
        TRINITY_SPOOL_SYNC_MS=50,
        TRINITY_SPOOL_FULL="shed",
    )
    expected = SpoolParameters(segment_bytes=2**20, spool_bytes=2**30, sync_ms=50, full="shed")
    assert SpoolParameters.of(settings) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("segment_bytes", MIN_SEGMENT_BYTES - HEADER_BYTES),
        ("segment_bytes", MIN_SEGMENT_BYTES + 1),
        ("segment_bytes", MAX_SEGMENT_BYTES + HEADER_BYTES),
        ("spool_bytes", 32 * 2**20 - 1),
        ("warn_percent", 0),
        ("warn_percent", 101),
        ("sync_ms", 0),
        ("sync_ms", 60_001),
        ("full", "drop"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        SpoolParameters(**{name: value})


@pytest.mark.parametrize("size", [MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES])
def test_bounds_themselves_are_allowed(size: int) -> None:
    assert SpoolParameters(segment_bytes=size, spool_bytes=2 * size).segment_bytes == size


def test_shipper_defaults_are_as_stated() -> None:
    parameters = ShipperParameters()
    assert (parameters.sqs_batch_size, parameters.sqs_flush_ms) == (5_000, 1_000)
    assert (parameters.sqs_buffer_size, parameters.sqs_timeout_ms) == (200_000, 5_000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sqs_batch_size", 0),
        ("sqs_batch_size", 65_537),
        ("sqs_flush_ms", 9),
        ("sqs_flush_ms", 60_001),
        ("sqs_buffer_size", 0),
        ("sqs_buffer_size", 4_999),
        ("sqs_buffer_size", 10_000_001),
        ("sqs_timeout_ms", 99),
        ("sqs_timeout_ms", 60_001),
    ],
)
def test_what_a_shipper_cannot_do_is_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^{name} must"):
        ShipperParameters(**{name: value})


def test_report_defaults_are_as_stated() -> None:
    parameters = ReportParameters()
    assert (parameters.at_once, parameters.at_once_of_account, parameters.page_rows) == (4, 2, 10_000)
    assert (parameters.piece_s, parameters.file_s, parameters.file_bytes) == (60, 600, 2**30)


@pytest.mark.parametrize("name", ReportParameters.__slots__)
def test_reports_bounded_by_nothing_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be above 0"):
        ReportParameters(**{name: 0})
