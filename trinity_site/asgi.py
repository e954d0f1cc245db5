"""The ASGI entry point: prices are answered first, everything else by Django and Channels."""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trinity_site.settings.dev")
django_application = get_asgi_application()  # sets Django up: what follows needs its models

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.conf import settings  # noqa: E402

from trinity_site.roles import DEVELOPMENT_ROW  # noqa: E402
from trinity_site.routing import websocket_urlpatterns  # noqa: E402
from trinity_site.runtime import Runtime, open_runtime  # noqa: E402

Scope = MutableMapping[str, Any]  # Any: ASGI's own shape, as in the two lines below
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Application:
    """One process's application. Its runtime opens with the lifespan, or on the first request without one."""

    def __init__(self, *, row: int) -> None:
        self._row = row
        self._stack = AsyncExitStack()
        self._runtime: Runtime | None = None
        self._opening = asyncio.Lock()
        self._site = ProtocolTypeRouter(
            {
                "http": django_application,
                "websocket": AllowedHostsOriginValidator(URLRouter(websocket_urlpatterns)),
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        runtime = self._runtime or await self._opened()
        on_health_port = (scope.get("server") or (None, None))[1] == settings.TRINITY_HEALTH_PORT
        if scope["type"] == "http" and (on_health_port or runtime.api.handles(scope["path"])):
            await runtime.api(scope, receive, send)
        elif on_health_port:
            await send({"type": "websocket.close"})  # the pages have their own port
        else:
            scope.setdefault("state", {})["runtime"] = runtime
            await self._site(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # startup: the first event by the specification
        try:
            runtime = await self._opened()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        if "state" in scope:  # pricing.edge answers plain questions before this application sees them
            trusts_proxy = settings.ALLAUTH_TRUSTED_PROXY_COUNT > 0
            scope["state"].update(fast_path=runtime.fast_path, trusts_proxy=trusts_proxy)
        await send({"type": "lifespan.startup.complete"})
        await receive()  # shutdown
        await self._stack.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _opened(self) -> Runtime:
        async with self._opening:
            if self._runtime is None:
                opening = open_runtime(settings, row=self._row)
                self._runtime = await self._stack.enter_async_context(opening)
            return self._runtime


application = Application(row=DEVELOPMENT_ROW)
