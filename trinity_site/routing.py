"""Which consumer answers which WebSocket path."""

from django.urls import URLPattern

websocket_urlpatterns: list[URLPattern] = []
