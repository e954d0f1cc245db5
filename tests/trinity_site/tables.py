"""The exchange tables as a process finds them in tests, and what is told of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from billing import offers
from exchanges.services import ExchangeTables
from pricing.catalogue import AssetInfo, Catalogue, ExchangeInfo, ListingInfo
from trinity_site import sources
from trinity_site.sources import TableFollower, cancelled

PATIENCE_S = 10.0
CATALOGUE = Catalogue(
    {"kraken": ExchangeInfo("kraken", "Kraken", "USD", enabled=True)},
    {"BTC": AssetInfo("BTC", "Major Currencies", "kraken", (ListingInfo("kraken", "BTC/USD", True, True),))},
)


class Tables:
    """The database as the follower sees it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.revision = 1
        self.catalogue = CATALOGUE
        self.feeds: tuple[Any, ...] = ()
        self.dead = False
        self.loads = 0
        monkeypatch.setattr(sources, "table_revision", self._revision)
        monkeypatch.setattr(sources, "load_exchanges", self._exchanges)
        monkeypatch.setattr(sources, "load_catalogue", self._catalogue)
        monkeypatch.setattr(sources, "POLL_S", 0.01)
        monkeypatch.setattr(offers, "load_offers", tuple)

    async def _revision(self) -> int:
        if self.dead:
            raise OSError("the database is gone")
        return self.revision

    async def _exchanges(self) -> ExchangeTables:
        self.loads += 1
        return ExchangeTables(self.feeds, (), {})

    async def _catalogue(self) -> Catalogue:
        return self.catalogue


class Rest:
    """Records what it was told to follow."""

    def __init__(self) -> None:
        self.followed: list[tuple[Any, ...]] = []

    def follow(self, specs: tuple[Any, ...], listings: tuple[Any, ...]) -> None:
        self.followed.append(specs)


@asynccontextmanager
async def following(follower: TableFollower) -> AsyncIterator[None]:
    task = asyncio.create_task(follower.run())
    try:
        yield
    finally:
        await cancelled(task)


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (the follower polls; there is no event)
            await asyncio.sleep(0.005)


def follower_of(rest: Rest, simulator_url: str = "") -> TableFollower:
    chosen: Any = rest
    return TableFollower(chosen, simulator_url)
