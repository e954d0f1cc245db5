"""What the tests on real processes share."""

from pathlib import Path

import pytest

from tests.system.nodes import make_database


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and seed rows, to be copied."""
    return make_database(tmp_path_factory.mktemp("database"))
