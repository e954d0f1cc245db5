"""The keyring's store: rows and counts from Django's models, for asyncio."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import islice

from django.db import DatabaseError, connection

from billing.connections import from_asyncio
from billing.ratelimit import SECOND_NS
from billing.rows import CHUNK, KeyRow, key_revision, key_rows
from billing.store import Store
from billing.usage import load_counts, load_others, save_counts, save_last_uses


def open_store(node: str) -> Store:
    """Return the store of one node."""

    async def save(month: int, counts: Mapping[int, int]) -> None:
        await from_asyncio(save_counts)(node=node, month=month, counts=counts)

    async def save_uses(uses: Mapping[int, datetime]) -> None:
        await from_asyncio(save_last_uses)(uses=uses)

    return Store(
        key_revision=from_asyncio(key_revision),
        key_rows=_chunks_of_rows,
        load_counts=from_asyncio(lambda month: load_counts(node=node, month=month)),
        load_others=from_asyncio(lambda month: load_others(node=node, month=month)),
        save_counts=save,
        save_last_uses=save_uses,
        now_ns=from_asyncio(_now_ns) if connection.vendor == "postgresql" else None,
    )


async def _chunks_of_rows(after: int) -> AsyncIterator[Sequence[KeyRow]]:
    rows = key_rows(after=after)
    next_chunk = from_asyncio(partial(_take, rows))
    while chunk := await next_chunk():
        yield chunk


def _take(rows: Iterator[KeyRow]) -> list[KeyRow]:
    return list(islice(rows, CHUNK))


def _now_ns() -> int | None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
            (seconds,) = cursor.fetchone()
    except DatabaseError:
        return None
    return int(seconds * SECOND_NS)
