"""What the tests on real processes share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.system.browser import first_administrator, open_browser
from tests.system.nodes import Node, make_database, started_node, wait_until


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and seed rows, to be copied."""
    return make_database(tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Node]:
    """A whole node with live prices; modules that need another one have their own."""
    with started_node(tmp_path_factory.mktemp("node"), database) as node:
        wait_until(node.is_live, lambda: node.said)
        yield node


@pytest.fixture(scope="module")
def administrator(node: Node) -> dict[str, str]:
    return first_administrator(node)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser
