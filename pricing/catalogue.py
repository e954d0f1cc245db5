"""What is listed where: both exchange tables at one instant, immutable, as the answers need them. Pure.

The composition root reads it from the database and hands every process a new one when rows change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec


class ExchangeInfo(msgspec.Struct, frozen=True):
    name: str
    display_name: str
    quote: str
    enabled: bool


class ListingInfo(msgspec.Struct, frozen=True):
    exchange: str
    symbol: str
    enabled: bool
    prewarm: bool


class AssetInfo(msgspec.Struct, frozen=True):
    asset: str
    category: str
    home: str | None
    listings: tuple[ListingInfo, ...]


class Catalogue(msgspec.Struct, frozen=True):
    exchanges: dict[str, ExchangeInfo]
    assets: dict[str, AssetInfo]

    def public(self) -> Catalogue:
        """Return what may be shown and asked for: enabled listings on enabled exchanges.

        An asset without one is left out, and a home that is not among an asset's listings is None.
        """
        exchanges = {name: row for name, row in self.exchanges.items() if row.enabled}
        assets = {}
        for name, row in self.assets.items():
            listings = tuple(one for one in row.listings if one.enabled and one.exchange in exchanges)
            if listings:
                home = row.home if any(one.exchange == row.home for one in listings) else None
                assets[name] = AssetInfo(row.asset, row.category, home, listings)
        return Catalogue(exchanges, assets)


EMPTY = Catalogue({}, {})


class PublicView:
    """The public part of whatever catalogue *source* returns, worked out once for each."""

    def __init__(self, source: Callable[[], Catalogue]) -> None:
        self._source = source
        self._seen = self._public = EMPTY
        self._exchanges: dict[str, tuple[str, ...]] = {}
        self._followed: tuple[str, ...] = ()

    def catalogue(self) -> Catalogue:
        whole = self._source()
        if whole is not self._seen:
            self._public = whole.public()
            self._exchanges = {name: _home_first(row) for name, row in self._public.assets.items()}
            self._followed = _followed(whole)
            self._seen = whole
        return self._public

    def followed(self) -> tuple[str, ...]:
        """Name the enabled exchanges that have a symbol subscribed live: they are expected to send trades."""
        self.catalogue()
        return self._followed

    def exchanges_of(self, asset: str) -> tuple[str, ...]:
        """Name the exchanges that list *asset*, home first; none for an unknown asset."""
        self.catalogue()
        return self._exchanges.get(asset, ())

    def listed(self) -> Mapping[str, tuple[str, ...]]:
        """Name for every asset the exchanges that list it, home first."""
        self.catalogue()
        return self._exchanges

    def home_of(self, asset: str) -> str | None:
        """Name the exchange that answers for *asset* by default, where there is one."""
        row = self.catalogue().assets.get(asset)
        return None if row is None else row.home


def _followed(whole: Catalogue) -> tuple[str, ...]:
    subscribed = {one.exchange for row in whole.assets.values() for one in row.listings if one.prewarm}
    return tuple(name for name, row in whole.exchanges.items() if row.enabled and name in subscribed)


def _home_first(row: AssetInfo) -> tuple[str, ...]:
    names = [one.exchange for one in row.listings]
    return tuple(sorted(names, key=lambda name: name != row.home))


def list_exchanges(catalogue: Catalogue, ages_ms: Mapping[str, int | None], ttl_ms: int) -> dict[str, object]:
    """Describe each exchange with the age of its newest price; live when that is at most *ttl_ms*."""
    counts = dict.fromkeys(catalogue.exchanges, 0)
    for asset in catalogue.assets.values():
        for listing in asset.listings:
            counts[listing.exchange] += 1
    rows = []
    for name, row in catalogue.exchanges.items():
        age_ms = ages_ms.get(name)
        rows.append(
            {
                "name": name,
                "display_name": row.display_name,
                "quote": row.quote,
                "assets": counts[name],
                "live": age_ms is not None and age_ms <= ttl_ms,
                "age_ms": age_ms,
            }
        )
    return {"exchanges": rows}


def list_categories(catalogue: Catalogue) -> dict[str, object]:
    counts: dict[str, int] = {}
    for asset in catalogue.assets.values():
        counts[asset.category] = counts.get(asset.category, 0) + 1
    return {"categories": [{"name": name, "assets": counts[name]} for name in sorted(counts)]}


def list_assets(catalogue: Catalogue, exchange: str | None, category: str | None) -> dict[str, object]:
    """Describe the assets by name: all, or those of one exchange, one category, or both."""
    return {
        "assets": [
            {
                "asset": name,
                "category": row.category,
                "home": row.home,
                "exchanges": [one.exchange for one in row.listings],
            }
            for name, row in sorted(catalogue.assets.items())
            if category in (None, row.category)
            and (exchange is None or any(one.exchange == exchange for one in row.listings))
        ]
    }
