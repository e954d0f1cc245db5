"""The lifespan of an ASGI application: what it needs is opened with the server, or with the first request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Generic, TypeVar

Scope = MutableMapping[str, Any]  # Any: ASGI's own shape, as in the two lines below
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

T = TypeVar("T")


class Lifespan(Generic[T]):
    """Opens once what *open_it* opens, and puts what *tell* says of it into the server's state."""

    def __init__(
        self, open_it: Callable[[], AbstractAsyncContextManager[T]], tell: Callable[[T], dict[str, Any]]
    ) -> None:
        self._open = open_it
        self._tell = tell
        self._stack = AsyncExitStack()
        self._opened: T | None = None
        self._opening = asyncio.Lock()

    async def opened(self) -> T:
        if self._opened is not None:
            return self._opened
        async with self._opening:
            if self._opened is None:
                self._opened = await self._stack.enter_async_context(self._open())
            return self._opened

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the two events of the protocol."""
        await receive()  # startup: the first event by the specification
        try:
            opened = await self.opened()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        if "state" in scope:
            scope["state"].update(self._tell(opened))
        await send({"type": "lifespan.startup.complete"})
        await receive()  # shutdown
        await self._stack.aclose()
        await send({"type": "lifespan.shutdown.complete"})
