"""What every test may rely on; the servers are started before this file is read, by tests/services.py."""

import shutil

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    leave_out_full_sizes(config, items)
    skip_browser_tests_without_a_browser(items)


def leave_out_full_sizes(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run drills in their full size only when asked: `pytest -m full`."""
    if "full" in config.option.markexpr:
        return
    full = [item for item in items if item.get_closest_marker("full")]
    if full:
        config.hook.pytest_deselected(items=full)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


def skip_browser_tests_without_a_browser(items: list[pytest.Item]) -> None:
    if shutil.which("chromium") is None:
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.skip(reason="there is no chromium: apt-get install chromium"))
