"""The WebSockets: who may listen, to what, and how it ends."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.db import connection

from tests.exchanges.boards import write_price
from tests.trinity_site.pages import board_of, catalogue_of, runtime_of
from trinity_site import consumers
from trinity_site.asgi import Application
from trinity_site.consumers import (
    MOST_LISTINGS,
    POLICY_VIOLATION,
    SIGN_IN_AGAIN,
    live_feeds,
    live_listings,
    live_prices,
    parse_listings,
)
from trinity_site.live import Broadcast, running

SITE = b"http://testserver"


class Socket:
    """One end of a WebSocket at a consumer, as a server would hold it."""

    def __init__(self, consumer: Callable[..., Any], runtime: Any, **scope: Any) -> None:
        self._received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        whole = {"type": "websocket", "query_string": b"", "state": {"runtime": runtime}, **scope}
        self.task = asyncio.create_task(consumer(whole, self._received.get, self._sent.put))
        self.tell(type="websocket.connect")

    def tell(self, **event: Any) -> None:
        self._received.put_nowait(event)

    async def event(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return await self._sent.get()

    async def rows(self) -> dict[str, Any]:
        event = await self.event()
        assert event["type"] == "websocket.send", event
        rows: dict[str, Any] = json.loads(event["text"])["rows"]
        return rows

    async def leave(self) -> None:
        self.tell(type="websocket.disconnect", code=1001)
        await self.end()

    async def end(self) -> None:
        async with asyncio.timeout(5):
            await self.task


@pytest.fixture
def runtime() -> Any:
    board = board_of(time.monotonic_ns())
    write_price(board, "BTC", "coinbase", "1.10", mono_ns=time.monotonic_ns())
    return runtime_of(board, catalogue_of("BTC", "ETH"))


STAFF = User(username="staff", is_staff=True, is_superuser=True)


async def test_anybody_is_told_the_prices_and_then_their_changes(runtime: Any) -> None:
    runtime.live.prices.refresh()
    socket = Socket(live_prices, runtime)
    assert await socket.event() == {"type": "websocket.accept"}
    assert (await socket.rows())["price/BTC"]["price"] == "1.10"
    write_price(runtime.board, "BTC", "coinbase", "1.20", mono_ns=time.monotonic_ns())
    runtime.live.prices.refresh()
    assert (await socket.rows())["price/BTC"]["price"] == "1.20"
    await socket.leave()
    assert runtime.live.prices.watchers == 0


async def test_page_that_leaves_takes_its_task_with_it(runtime: Any) -> None:
    before = asyncio.all_tasks()
    socket = Socket(live_prices, runtime)
    await socket.event()
    await socket.leave()
    assert asyncio.all_tasks() == before


async def test_cancelled_socket_gives_its_place_back(runtime: Any) -> None:
    before = asyncio.all_tasks()
    socket = Socket(live_prices, runtime)
    await socket.event()
    socket.task.cancel()
    await asyncio.wait([socket.task])
    assert (runtime.live.prices.watchers, asyncio.all_tasks()) == (0, before)


async def test_page_that_speaks_is_sent_away(runtime: Any) -> None:
    socket = Socket(live_prices, runtime)
    await socket.event()
    await socket.rows()
    socket.tell(type="websocket.receive", text="{}")
    assert await socket.event() == {"type": "websocket.close", "code": POLICY_VIOLATION}
    await socket.end()


async def test_page_too_many_is_refused_before_it_is_accepted(runtime: Any) -> None:
    runtime.live.prices = Broadcast(dict, lambda: 0, limit=0)
    socket = Socket(live_prices, runtime)
    assert await socket.event() == {"type": "websocket.close"}
    await socket.end()


async def test_send_to_a_page_that_has_left_ends_quietly(runtime: Any) -> None:
    async def gone(event: dict[str, Any]) -> None:
        raise OSError("the client has disconnected")

    async def connect() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    scope: Any = {"state": {"runtime": runtime}}
    await live_prices(scope, connect, gone)
    assert runtime.live.prices.watchers == 0


async def test_staff_is_told_the_feeds(runtime: Any) -> None:
    socket = Socket(live_feeds, runtime, user=STAFF)
    assert await socket.event() == {"type": "websocket.accept"}
    rows = await socket.rows()
    assert rows["feed/kraken"]["state"] == "live"
    assert rows["node"]["reporting"] is True
    await socket.leave()


async def test_staff_is_told_the_listings_of_its_page(runtime: Any) -> None:
    socket = Socket(live_listings, runtime, user=STAFF, query_string=b"of=BTC%40coinbase,ETH%40kraken")
    await socket.event()
    rows = await socket.rows()
    assert (set(rows), rows["BTC@coinbase"]["price"]) == ({"node", "BTC@coinbase"}, "1.10")
    await socket.leave()


@pytest.mark.parametrize(
    "user",
    [AnonymousUser(), User(is_superuser=True), User(is_staff=True, is_superuser=True, is_active=False)],
    ids=["nobody", "no staff", "switched off"],
)
@pytest.mark.parametrize("consumer", [live_feeds, live_listings])
async def test_others_are_refused_before_they_are_accepted(runtime: Any, consumer: Any, user: Any) -> None:
    socket = Socket(consumer, runtime, user=user, query_string=b"of=BTC@coinbase")
    assert await socket.event() == {"type": "websocket.close", "code": POLICY_VIOLATION}
    await socket.end()


@pytest.fixture
async def shared_thread() -> AsyncIterator[None]:
    """Close the connection of the thread that asynchronous queries run in: it would outlive the test."""
    yield
    await sync_to_async(lambda: connection.close())()  # looked up in that thread


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("shared_thread")
async def test_staff_needs_the_permission_to_view_feeds(runtime: Any) -> None:
    user = await User.objects.acreate(username="clerk", is_staff=True)
    socket = Socket(live_feeds, runtime, user=user)
    assert (await socket.event())["type"] == "websocket.close"
    await user.user_permissions.aadd(await Permission.objects.aget(codename="view_exchangefeed"))
    socket = Socket(live_feeds, runtime, user=await User.objects.aget(pk=user.pk))
    assert (await socket.event())["type"] == "websocket.accept"
    await socket.leave()


async def test_session_is_looked_at_again_after_a_while(
    runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "STAFF_LIFETIME_S", 0.01)
    socket = Socket(live_feeds, runtime, user=STAFF)
    await socket.event()
    await socket.rows()
    assert await socket.event() == {"type": "websocket.close", "code": SIGN_IN_AGAIN}
    await socket.end()


@pytest.mark.parametrize(
    ("query", "listings"),
    [
        (b"of=BTC@coinbase", [("BTC", "coinbase")]),
        (b"of=BTC%40coinbase%2CETH%40okx", [("BTC", "coinbase"), ("ETH", "okx")]),
        (b"", []),
        (b"of=", []),
        (b"of=BTC", []),
        (b"of=BTC@coinbase,", []),
        (b"of=%ff%fe", []),
        (b"of=" + b",".join([b"A@b"] * MOST_LISTINGS), [("A", "b")] * MOST_LISTINGS),
        (b"of=" + b",".join([b"A@b"] * (MOST_LISTINGS + 1)), []),
    ],
)
def test_listings_of_a_page(query: bytes, listings: list[tuple[str, str]]) -> None:
    assert parse_listings(query) == listings


def communicator(path: str, runtime: Any, *, origin: bytes | None) -> Any:  # Any: Channels has no types
    site = Application(row=7)._site
    headers = [] if origin is None else [(b"origin", origin)]
    talk = WebsocketCommunicator(site, path, headers=headers)
    talk.scope["state"] = {"runtime": runtime}
    return talk


async def test_page_of_this_site_may_listen(runtime: Any) -> None:
    async with running(runtime.live.prices):
        talk = communicator("/live/prices", runtime, origin=SITE)
        accepted, _ = await talk.connect()
        assert accepted
        assert "price/BTC" in json.loads(await talk.receive_from())["rows"]
        await talk.disconnect()


@pytest.mark.parametrize("path", ["/live/prices", "/admin/live/feeds", "/admin/live/listings"])
@pytest.mark.parametrize("origin", [b"http://elsewhere.example", b"null", None])
async def test_page_of_another_site_is_refused(runtime: Any, path: str, origin: bytes | None) -> None:
    accepted, _ = await communicator(path, runtime, origin=origin).connect()
    assert not accepted


async def test_path_that_is_nobodys_is_refused_without_a_log(
    runtime: Any, caplog: pytest.LogCaptureFixture
) -> None:
    accepted, _ = await communicator("/live/nothing", SimpleNamespace(), origin=SITE).connect()
    assert (accepted, caplog.text) == (False, "")
