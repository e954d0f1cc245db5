"""Which consumer answers which WebSocket path."""

from channels.auth import AuthMiddlewareStack
from django.urls import path, re_path

from trinity_site.consumers import live_feeds, live_prices, nothing_here

websocket_urlpatterns = [
    path("live/prices", live_prices),  # type: ignore[arg-type]  # Channels routes ASGI applications
    path("admin/live/feeds", AuthMiddlewareStack(live_feeds)),  # only here is a session looked up
    re_path("", nothing_here),  # type: ignore[arg-type]  # as above
]
