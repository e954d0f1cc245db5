"""Which consumer answers which WebSocket path."""

from channels.auth import AuthMiddlewareStack
from django.urls import path, re_path

from trinity_site.consumers import live_feeds, live_listings, live_prices, nothing_here

websocket_urlpatterns = [
    path("live/prices", live_prices),  # type: ignore[arg-type]  # Channels routes ASGI applications
    path("admin/live/feeds", AuthMiddlewareStack(live_feeds)),  # a session is looked up only here
    path("admin/live/listings", AuthMiddlewareStack(live_listings)),
    re_path("", nothing_here),  # type: ignore[arg-type]  # as above
]
