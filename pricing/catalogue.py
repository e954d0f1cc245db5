"""What is listed where: an immutable snapshot of the two exchange tables, as the answers need them. Pure.

The composition root reads it from the database and hands every process a new one when rows change.
"""

from __future__ import annotations

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
