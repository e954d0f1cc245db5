"""Large reports through a real worker, out of a PostgreSQL database of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest

from tests.benchmarks.bench_reports import MONTH, ask, most_mb, report_node

pytestmark = [pytest.mark.system, pytest.mark.timeout(1_800)]
MOST_MB = 200


@pytest.fixture
def database() -> Iterator[str]:
    server = os.environ["DATABASE_URL"]
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE report_drill")
        yield server.rpartition("/")[0] + "/report_drill"
        connection.execute("DROP DATABASE report_drill WITH (FORCE)")


@pytest.mark.parametrize("rows", [30_000, pytest.param(10_000_000, marks=pytest.mark.full)])
def test_worker_streams_any_number_of_rows_in_little_memory(rows: int, database: str) -> None:
    with report_node(rows, database, hours=False) as (node, pid, key):
        _, _, _, lines = ask(node, key, f"/reports/usage?{MONTH}&format=csv")
        assert lines == rows + 1
        assert most_mb(pid) < MOST_MB
