"""The WebSockets of the site: pages only listen. Origins are checked before these are reached (`asgi.py`)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from django.contrib.auth.models import AnonymousUser, User

from billing.signin import SECOND_FACTOR_KEY, is_second_factor_missing
from trinity_site.live import Broadcast, TooManyWatchers

Scope = MutableMapping[str, Any]  # Any: ASGI's own shape, as in the two lines below
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# RFC 6455 section 7.4 and the registry of close codes.
POLICY_VIOLATION = 1008
SIGN_IN_AGAIN = 4000

STAFF_LIFETIME_S = 300.0
MOST_LISTINGS = 200  # as in command_centre.js


async def live_prices(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell anybody the prices and exchanges of the home page."""
    await receive()  # websocket.connect, by the specification
    await tell(scope["state"]["runtime"].live.prices, receive, send)


async def live_feeds(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell the staff how the feeds are, for five minutes: the page then comes back and is looked at again."""
    await receive()
    if not await may_view(scope, "exchangefeed"):
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        return
    await tell(scope["state"]["runtime"].live.feeds, receive, send, lifetime_s=STAFF_LIFETIME_S)


async def live_listings(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell the staff the prices of the listings that `?of=BTC@coinbase,…` names, as many as a page has."""
    await receive()
    listings = parse_listings(scope["query_string"])
    if not listings or not await may_view(scope, "exchangeasset"):
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        return
    async with scope["state"]["runtime"].live.listings(listings) as broadcast:
        await tell(broadcast, receive, send, lifetime_s=STAFF_LIFETIME_S)


def parse_listings(query: bytes) -> list[tuple[str, str]]:
    """Read (asset, exchange) pairs; nothing at all where the question is not as it must be."""
    names = parse_qs(query.decode("latin-1")).get("of", [""])[0].split(",")
    pairs = [(asset, exchange) for asset, at, exchange in (name.partition("@") for name in names) if at]
    return pairs if len(pairs) == len(names) <= MOST_LISTINGS else []


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a path that is nobody's: Channels would log an error for each."""
    await receive()
    await send({"type": "websocket.close"})


async def may_view(scope: Scope, model: str) -> bool:
    user: User | AnonymousUser = scope["user"]
    proof = await scope["session"].aget(SECOND_FACTOR_KEY) if "session" in scope else None
    if is_second_factor_missing(user, proof):
        return False
    return user.is_active and user.is_staff and await user.ahas_perm(f"exchanges.view_{model}")


async def tell(
    broadcast: Broadcast, receive: Receive, send: Send, *, lifetime_s: float | None = None
) -> None:
    """Pass a broadcast on until the page leaves, or speaks, or *lifetime_s* is over."""
    try:
        with broadcast.watch() as messages:
            await send({"type": "websocket.accept"})
            passing = asyncio.create_task(pass_on(messages, send), name="live")
            try:
                code = await listen(receive, lifetime_s)
            finally:
                passing.cancel()
                await asyncio.wait([passing])
            if code is not None:
                await send({"type": "websocket.close", "code": code})
    except TooManyWatchers:
        await send({"type": "websocket.close"})  # before accepting: the page asks /prices instead
    except OSError:
        return  # servers raise it for a send after the page has left


async def listen(receive: Receive, lifetime_s: float | None) -> int | None:
    """Wait for the end; return the code to close with, None when the page itself has left."""
    try:
        async with asyncio.timeout(lifetime_s):
            event = await receive()
    except TimeoutError:
        return SIGN_IN_AGAIN
    return POLICY_VIOLATION if event["type"] == "websocket.receive" else None


async def pass_on(messages: AsyncIterator[bytes], send: Send) -> None:
    with contextlib.suppress(OSError):
        async for message in messages:
            await send({"type": "websocket.send", "text": message.decode()})
