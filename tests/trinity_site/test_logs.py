"""A wrong Host costs one line a minute, whoever sends it how often."""

import logging

import pytest
from django.test import AsyncClient

from trinity_site.logs import Seldom

LOGGER = logging.getLogger("django.security.DisallowedHost")


@pytest.fixture
def nothing_logged_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(isinstance(configured, Seldom) for configured in LOGGER.filters)
    assert LOGGER.filters  # two of them where Django has been set up twice, by `trinity_site.asgi`
    monkeypatch.setattr(LOGGER, "filters", [Seldom()])


async def test_wrong_host_is_logged_once_and_without_a_traceback(
    nothing_logged_yet: None, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        answer = await AsyncClient().get("/", headers={"host": "stranger.example"})
        assert answer.status_code == 400
    told = [record for record in caplog.records if record.name == LOGGER.name]
    assert [record.exc_info for record in told] == [None]
