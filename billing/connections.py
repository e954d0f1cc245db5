"""Database connections of processes that live long: asked from asyncio, given up when they have gone bad."""

import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

P = ParamSpec("P")
R = TypeVar("R")


def from_asyncio(ask: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """Return *ask* as a coroutine function, for processes that live as long as it is called."""
    return sync_to_async(fresh_connection(ask))


def fresh_connection(ask: Callable[P, R]) -> Callable[P, R]:
    """Drop a database connection that went bad or too old, before and after *ask*."""

    @functools.wraps(ask)
    def asker(*args: P.args, **kwargs: P.kwargs) -> R:
        _close_old_connections()
        try:
            return ask(*args, **kwargs)
        finally:
            _close_old_connections()

    return asker


def _close_old_connections() -> None:
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:  # a transaction around the caller is the caller's
            connection.close_if_unusable_or_obsolete()
