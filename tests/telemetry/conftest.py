"""Fixtures of the usage tests."""

import pytest

from telemetry import ledger


@pytest.fixture(autouse=True)
def fresh_looks() -> None:
    """Let the first write of a test see to days and folding: what another test has seen is gone."""
    ledger.looked.clear()
