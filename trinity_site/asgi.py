"""The ASGI entry point: prices are answered first, everything else by Django and Channels."""

import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trinity_site.settings.dev")
django_application = get_asgi_application()  # sets Django up: what follows needs its models

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.conf import settings  # noqa: E402

from trinity_site.lifespan import Lifespan, Receive, Scope, Send  # noqa: E402
from trinity_site.roles import DEVELOPMENT_ROW  # noqa: E402
from trinity_site.routing import websocket_urlpatterns  # noqa: E402
from trinity_site.runtime import Runtime, open_runtime  # noqa: E402


class Application:
    """One process's application. Its runtime opens with the lifespan, or on the first request without one."""

    def __init__(self, *, row: int) -> None:
        self._lifespan = Lifespan(lambda: open_runtime(settings, row=row), tell)
        self._site = ProtocolTypeRouter(
            {
                "http": django_application,
                "websocket": AllowedHostsOriginValidator(URLRouter(websocket_urlpatterns)),
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan.live(scope, receive, send)
            return
        runtime = await self._lifespan.opened()
        on_health_port = (scope.get("server") or (None, None))[1] == settings.TRINITY_HEALTH_PORT
        if scope["type"] == "http" and (on_health_port or runtime.api.handles(scope["path"])):
            await runtime.api(scope, receive, send)
        elif on_health_port:
            await send({"type": "websocket.close"})  # the pages have their own port
        else:
            scope.setdefault("state", {})["runtime"] = runtime
            await self._site(scope, receive, send)


def tell(runtime: Runtime) -> dict[str, Any]:
    """Return what pricing.edge needs, which answers plain questions before this application sees them."""
    return {"fast_path": runtime.fast_path, "trusts_proxy": settings.ALLAUTH_TRUSTED_PROXY_COUNT > 0}


application = Application(row=DEVELOPMENT_ROW)
