"""A wrong Host costs one line a minute, whoever sends it how often."""

import logging
from collections.abc import Iterator

import pytest
from django.test import AsyncClient

from trinity_site.logs import Seldom

LOGGER = logging.getLogger("django.security.DisallowedHost")


@pytest.fixture
def nothing_logged_yet() -> Iterator[None]:
    (configured,) = LOGGER.filters
    assert isinstance(configured, Seldom)
    fresh = Seldom()
    LOGGER.removeFilter(configured)
    LOGGER.addFilter(fresh)
    yield
    LOGGER.removeFilter(fresh)
    LOGGER.addFilter(configured)


async def test_wrong_host_is_logged_once_and_without_a_traceback(
    nothing_logged_yet: None, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        answer = await AsyncClient().get("/", headers={"host": "stranger.example"})
        assert answer.status_code == 400
    told = [record for record in caplog.records if record.name == LOGGER.name]
    assert [record.exc_info for record in told] == [None]
