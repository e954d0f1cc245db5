"""A batch of asset rows, judged together with the table it goes into before any of it is saved."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.db.models.functions import Lower

from exchanges.feed.spec import ASSET
from exchanges.models import ExchangeAsset, ExchangeFeed

ASSET_COLUMNS = ("asset", "symbol", "rest_symbol", "category", "enabled", "prewarm", "home")
CHANGEABLE = ASSET_COLUMNS[1:]
_FLAGS = ("enabled", "prewarm", "home")

Errors = dict[str, list[str]]


class Batch:
    """The rows of one request, read onto the listings they name and judged with those already there."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], exchange: str | None) -> None:  # Any: JSON
        self.errors: Errors = {}
        self.listings: dict[tuple[str, str], ExchangeAsset] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._exchanges = set(ExchangeFeed.objects.values_list("name", flat=True))
        self._known = {(one.asset, one.exchange_id): one for one in _of_same_assets(rows)}
        self._before = {key: _values(listing) for key, listing in self._known.items()}
        for number, row in enumerate(rows):
            self._read(number, row, exchange)
        if not self.errors:
            self._judge_homes()
            self._judge_symbols()

    def is_changed(self, listing: ExchangeAsset) -> bool:
        return self._before[listing.asset, listing.exchange_id] != _values(listing)

    def _read(self, number: int, row: object, exchange: str | None) -> None:
        if not isinstance(row, Mapping):
            self._error(number, "", "must be an object")
            return
        asset, where = row.get("asset"), row.get("exchange", exchange)
        if not isinstance(asset, str) or not asset:
            self._error(number, "asset", "is missing" if asset is None else "must be text")
            return
        if not isinstance(where, str) or where not in self._exchanges:
            self._error(number, "exchange", "is missing" if where is None else "There is no such exchange.")
            return
        if (asset, where) in self.listings:
            self._error(number, "asset", f"is there twice: see assets[{self._numbers[asset, where]}]")
            return
        listing = self._known.get((asset, where)) or ExchangeAsset(asset=asset, exchange_id=where)
        self._numbers[asset, where] = number
        self.listings[asset, where] = listing
        self._assign(number, listing, row)

    def _assign(self, number: int, listing: ExchangeAsset, row: Mapping[str, object]) -> None:
        sound = True
        for field, value in row.items():
            if field not in CHANGEABLE:
                if field not in ("asset", "exchange"):
                    self._error(number, field, "there is no such field")
            elif not isinstance(value, bool if field in _FLAGS else str):
                self._error(number, field, "must be true or false" if field in _FLAGS else "must be text")
                sound = False
            else:
                setattr(listing, field, value)
        if not sound:
            return
        try:
            listing.full_clean(exclude=["exchange"], validate_unique=False, validate_constraints=False)
        except ValidationError as error:
            for field, messages in error.message_dict.items():
                self._error(number, field, *messages)

    def _judge_homes(self) -> None:
        after = {**self._known, **self.listings}
        homes: dict[str, list[str]] = {}
        for (asset, exchange), listing in after.items():
            if listing.home:
                homes.setdefault(asset, []).append(exchange)
        for (asset, exchange), number in self._numbers.items():
            others = [name for name in homes.get(asset, ()) if name != exchange]
            if others and self.listings[asset, exchange].home:
                self._error(
                    number, "home", f"{asset} has its home at {', '.join(others)}: take it from there first."
                )

    def _judge_symbols(self) -> None:
        """Refuse symbols that another asset has at the same exchange, case aside: so are trades matched."""
        symbols = {listing.symbol.lower() for listing in self.listings.values()}
        known = ExchangeAsset.objects.annotate(folded=Lower("symbol")).filter(folded__in=symbols)
        after = {(one.asset, one.exchange_id): one for one in known} | self.listings
        owners: dict[tuple[str, str], list[ExchangeAsset]] = {}
        for (_, exchange), listing in after.items():
            owners.setdefault((exchange, listing.symbol.lower()), []).append(listing)
        for (asset, exchange), number in self._numbers.items():
            symbol = self.listings[asset, exchange].symbol
            others = [one for one in owners[exchange, symbol.lower()] if one.asset != asset]
            if others:
                self._error(number, "symbol", _taken(symbol, others))

    def _error(self, number: int, field: str, *messages: str) -> None:
        self.errors.setdefault(f"assets[{number}].{field}".rstrip("."), []).extend(messages)


def _taken(symbol: str, others: Sequence[ExchangeAsset]) -> str:
    names = ", ".join(one.asset for one in others)
    if any(one.symbol == symbol for one in others):
        return f"{names} has this symbol at this exchange."
    return f"{names} has {others[0].symbol} at this exchange: case makes no difference."


def _of_same_assets(rows: Sequence[object]) -> QuerySet[ExchangeAsset]:
    """Find every listing of the assets that the rows name: a home is one of all the exchanges'."""
    names = {row["asset"] for row in rows if isinstance(row, Mapping) and isinstance(row.get("asset"), str)}
    return ExchangeAsset.objects.filter(asset__in=filter(ASSET.fullmatch, names))


def _values(listing: ExchangeAsset) -> tuple[object, ...]:
    return tuple(getattr(listing, field) for field in CHANGEABLE)
