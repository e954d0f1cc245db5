"""What the keyring needs of the database, as functions that are handed in: `billing.database` has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it comes with Django's models
    from billing.rows import KeyRow


@dataclass(frozen=True, slots=True)
class Store:
    """One node's view of the database. Counts are totals by key id."""

    installation: Callable[[], Awaitable[str]]
    """The name of the database, which no other one has."""
    key_revision: Callable[[], Awaitable[int]]
    key_rows: Callable[[int], AsyncIterator[Sequence[KeyRow]]]
    """Those whose last change has a number above the one given, in pages."""
    load_counts: Callable[[int], Awaitable[dict[int, int]]]
    """What this node has counted in a month at least: as saved, or as its usage logs prove."""
    load_others: Callable[[int], Awaitable[dict[int, int]]]
    save_counts: Callable[[int, Mapping[int, int]], Awaitable[None]]
    save_logged: Callable[[int], Awaitable[object]]
    """Save, from a month on, what the usage logs of any node prove beyond what it had saved."""
    save_last_uses: Callable[[Mapping[int, datetime]], Awaitable[None]]
    now_ns: Callable[[], Awaitable[int | None]] | None = None
    """The database's clock, where it is not this machine's own; None when it cannot be read."""
