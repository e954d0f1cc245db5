"""A test client whose requests carry lifespan state, as a server's do."""

from typing import Any

from django.test import AsyncClient


class StatefulClient(AsyncClient):
    def __init__(self, *, state: dict[str, Any], **options: Any) -> None:  # Any: ASGI's and Django's own
        super().__init__(**options)
        self._state = state

    def _base_scope(self, **request: Any) -> dict[str, Any]:
        return {**super()._base_scope(**request), "state": self._state}
