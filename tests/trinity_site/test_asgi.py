"""Who answers what: prices before Django, nothing but health on the health port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings

from trinity_site import asgi
from trinity_site.asgi import Application


class Recorder:
    """Stands for the price API, for the site, and for the runtime that is opened and closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.runtime: Any = SimpleNamespace(api=self, fast_path=object())
        self.broken = False
        monkeypatch.setattr(asgi, "open_runtime", self.open)

    def handles(self, path: str) -> bool:
        return path == "/price"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append(f"api {scope['path']}")

    async def site(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["state"]["runtime"] is self.runtime
        self.calls.append(f"site {scope['type']} {scope['path']}")

    @asynccontextmanager
    async def open(self, settings: Any, *, row: int) -> AsyncIterator[Any]:
        if self.broken:
            raise OSError("no memory left")
        self.calls.append(f"open {row}")
        await asyncio.sleep(0)  # long enough for a second request to come
        yield self.runtime
        self.calls.append("close")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


@pytest.fixture
def application(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Application:
    application = Application(row=7)
    monkeypatch.setattr(application, "_site", recorder.site)
    return application


async def nothing() -> dict[str, Any]:
    raise AssertionError("nobody asks for more")


async def ask(application: Application, path: str, *, kind: str = "http", port: int | None = 1) -> list[Any]:
    """Send one request; a port of None is a server on a Unix socket."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    server = None if port is None else ("127.0.0.1", port)
    await application({"type": kind, "path": path, "server": server}, nothing, send)
    return sent


async def test_prices_are_answered_before_django(application: Application, recorder: Recorder) -> None:
    await ask(application, "/price")
    assert recorder.calls == ["open 7", "api /price"]


@pytest.mark.parametrize("port", [1, None])
async def test_other_paths_are_the_sites(
    application: Application, recorder: Recorder, port: int | None
) -> None:
    await ask(application, "/admin/", port=port)
    await ask(application, "/live", kind="websocket", port=port)
    assert recorder.calls[1:] == ["site http /admin/", "site websocket /live"]


async def test_health_port_shows_no_page(application: Application, recorder: Recorder) -> None:
    port = settings.TRINITY_HEALTH_PORT
    await ask(application, "/admin/", port=port)
    assert await ask(application, "/live", kind="websocket", port=port) == [{"type": "websocket.close"}]
    assert recorder.calls[1:] == ["api /admin/"]


async def test_runtime_opens_once_for_requests_at_once(application: Application, recorder: Recorder) -> None:
    await asyncio.gather(*(ask(application, "/price") for _ in range(5)))
    assert recorder.calls.count("open 7") == 1


async def live(application: Application, **scope: Any) -> list[str]:
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await application({"type": "lifespan", **scope}, receive, send)
    return sent


async def test_lifespan_opens_and_closes_the_runtime(application: Application, recorder: Recorder) -> None:
    assert await live(application) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert recorder.calls == ["open 7", "close"]


async def test_connections_find_the_fast_path_in_the_lifespans_state(
    application: Application, recorder: Recorder
) -> None:
    state: dict[str, Any] = {}
    await live(application, state=state)
    assert state == {"fast_path": recorder.runtime.fast_path, "trusts_proxy": False}


async def test_failed_start_is_told_to_the_server(application: Application, recorder: Recorder) -> None:
    recorder.broken = True
    with pytest.raises(OSError, match="no memory"):
        await live(application)
