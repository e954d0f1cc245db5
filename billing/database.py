"""The keyring's store: rows and counts from Django's models, for asyncio."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

from django.db import DatabaseError, connection

from billing.connections import from_asyncio
from billing.ratelimit import SECOND_NS
from billing.rows import KeyRow, installation, key_page, key_revision
from billing.store import Store
from billing.usage import load_others, load_own, save_counts, save_last_uses, save_logged


def open_store(node: str) -> Store:
    """Return the store of one node."""

    async def save(month: int, counts: Mapping[int, int]) -> None:
        await from_asyncio(save_counts)(node=node, month=month, counts=counts)

    async def save_uses(uses: Mapping[int, datetime]) -> None:
        await from_asyncio(save_last_uses)(uses=uses)

    return Store(
        installation=from_asyncio(installation),
        key_revision=from_asyncio(key_revision),
        key_rows=_pages_of_rows,
        load_counts=from_asyncio(lambda month: load_own(node=node, month=month)),
        load_others=from_asyncio(lambda month: load_others(node=node, month=month)),
        save_counts=save,
        save_logged=from_asyncio(lambda since: save_logged(since=since)),
        save_last_uses=save_uses,
        now_ns=from_asyncio(_now_ns) if connection.vendor == "postgresql" else None,
    )


async def _pages_of_rows(after: int) -> AsyncIterator[Sequence[KeyRow]]:
    read = from_asyncio(key_page)
    page = await read(after=after)
    while page:
        yield page
        page = await read(after=after, last=page[-1])


def _now_ns() -> int | None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
            (seconds,) = cursor.fetchone()
    except DatabaseError:
        return None
    return int(seconds * SECOND_NS)
