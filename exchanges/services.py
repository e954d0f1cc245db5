"""What may be done to the two exchange tables: admin, JSON API, commands and seed all call these.

Every change is one transaction that first raises the revision. Its row is thereby locked, so that changes
come one after the other and what was validated still holds when it is saved. Errors are SpecError, with a
path for each message: `ws_url`, or `assets[3].symbol`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from simple_history.utils import bulk_create_with_history, bulk_update_with_history

from billing.authors import Author as Author
from billing.authors import Door as Door
from billing.connections import fresh_connection
from exchanges.batches import ASSET_COLUMNS, CHANGEABLE, Batch, Errors
from exchanges.exceptions import FeedNotFound
from exchanges.feed.spec import FEED_COLUMNS, SLUG, FeedSpec, Listing, SpecError, parse_feed
from exchanges.models import ExchangeAsset, ExchangeFeed, Revision
from pricing.catalogue import AssetInfo, Catalogue, ExchangeInfo, ListingInfo

_FEED_DEFAULTS: dict[str, Any] = {  # Any: JSON columns
    "enabled": True,
    "symbols_per_frame": 0,
    "ping_interval_s": 0,
    "ping_payload": "",
    "rest_url": "",
    "rest_price_path": "",
    "quirks": {},
}
MAX_ROWS = 10_000


# Feeds


@transaction.atomic
def save_feed(*, columns: Mapping[str, Any], author: Author) -> ExchangeFeed:  # Any: JSON
    """Create or change the feed that `columns["name"]` names; what is left out keeps its value or default."""
    _raise_revision()
    known = ExchangeFeed.objects.filter(pk=str(columns.get("name"))).first()
    complete = {**(known.columns() if known else _FEED_DEFAULTS), **columns}
    return _write_feed(known, complete, author)


@transaction.atomic
def toggle_feed(*, name: str, enabled: bool | None = None, author: Author) -> ExchangeFeed:
    """Enable or disable a feed, or turn it round. One whose row cannot work may be disabled, not enabled."""
    _raise_revision()
    feed = get_feed(name)
    enabled = not feed.enabled if enabled is None else enabled
    if feed.enabled == enabled:
        return feed
    if enabled:
        feed.to_spec()
    feed.enabled = enabled
    _save(feed, author)
    return feed


@transaction.atomic
def delete_feed(*, name: str, author: Author) -> None:
    """Delete a feed and its listings."""
    _raise_revision()
    feed = get_feed(name)
    delete_assets(listings=feed.listings.all(), author=author)
    _delete(feed, author)


def get_feed(name: str) -> ExchangeFeed:
    """Return the feed *name*, whatever text that is; FeedNotFound when there is none."""
    feed = ExchangeFeed.objects.filter(pk=name).first() if SLUG.fullmatch(name) else None
    if feed is None:
        raise FeedNotFound(name)
    return feed


def _write_feed(
    known: ExchangeFeed | None,
    columns: Mapping[str, Any],
    author: Author,  # Any: JSON
) -> ExchangeFeed:
    spec = parse_feed(columns)
    feed = known or ExchangeFeed()
    before = known.columns() if known else None
    for column in FEED_COLUMNS:  # as they were parsed: trimmed, and JSON that came as text as a value
        setattr(feed, column, getattr(spec, column))
    feed.quirks = _value(columns["quirks"])
    try:
        feed.full_clean(validate_unique=False)
    except ValidationError as error:
        raise SpecError(error.message_dict) from error
    if feed.columns() != before:
        _save(feed, author)
    return feed


def _value(column: Any) -> Any:  # Any: JSON, perhaps as text
    if isinstance(column, str):
        return json.loads(column) if column.strip() else {}
    return column or {}


# Assets


@transaction.atomic
def save_assets(
    *,
    rows: Sequence[Mapping[str, Any]],
    author: Author,
    exchange: str | None = None,  # Any: JSON
) -> list[ExchangeAsset]:
    """Create or change listings, all of them or none; fields left out keep their value, or its default.

    A row is named by its asset and its exchange, for which *exchange* stands in. An asset's home can be
    moved when the same batch takes it from the exchange that has it.
    """
    _raise_revision()
    if len(rows) > MAX_ROWS:
        raise SpecError({"assets": [f"must not be more than {MAX_ROWS:,} rows"]})
    batch = Batch(rows, exchange)
    if batch.errors:
        raise SpecError(batch.errors)
    try:
        with transaction.atomic():
            _save_batch(batch, author)
    except IntegrityError as error:
        # Rows that trade places pass the checks and clash in the table while only one of them is written.
        raise SpecError(
            {"assets": ["clash with one another while they are saved: save them one by one"]}
        ) from error
    return list(batch.listings.values())


def _save_batch(batch: Batch, author: Author) -> None:
    history = {"default_user": author.user, "default_change_reason": author.door.value}
    changed = [listing for listing in batch.listings.values() if listing.pk and batch.is_changed(listing)]
    # A home is given up before another listing takes it: the table holds one per asset at every instant.
    for group in ([row for row in changed if not row.home], [row for row in changed if row.home]):
        if group:
            bulk_update_with_history(group, ExchangeAsset, CHANGEABLE, batch_size=200, **history)
    if new := [listing for listing in batch.listings.values() if not listing.pk]:
        bulk_create_with_history(new, ExchangeAsset, batch_size=200, **history)


@transaction.atomic
def set_home(*, listing: ExchangeAsset, author: Author) -> None:
    """Make *listing* the one that answers for its asset, whichever did before."""
    rows = [
        {"asset": other.asset, "exchange": other.exchange_id, "home": other.pk == listing.pk}
        for other in ExchangeAsset.objects.filter(asset=listing.asset)
        if other.home or other.pk == listing.pk
    ]
    save_assets(rows=rows, author=author)


@transaction.atomic
def delete_assets(*, listings: Iterable[ExchangeAsset], author: Author) -> None:
    _raise_revision()
    for listing in listings:
        _delete(listing, author)


# Documents


@transaction.atomic
def import_document(*, document: object, author: Author) -> ExchangeFeed:
    """Make the rows of a document `{"feed": {…}, "assets": […]}`. Listings it does not name stay."""
    _raise_revision()
    feed, rows = split_document(document)
    known = ExchangeFeed.objects.filter(pk=str(feed.get("name"))).first()
    try:
        saved = _write_feed(known, feed, author)
    except SpecError as error:
        raise SpecError({f"feed.{column}": messages for column, messages in error.errors.items()}) from error
    save_assets(rows=rows, author=author, exchange=saved.name)
    return saved


def split_document(document: object) -> tuple[dict[str, Any], list[Any]]:  # Any: JSON
    """Return the two parts of a document; SpecError when it has not the shape of one."""
    if not isinstance(document, dict):
        raise SpecError({"document": ["must be a JSON object with the keys feed and assets"]})
    errors: Errors = {key: ["there is no such key"] for key in document if key not in ("feed", "assets")}
    feed, rows = document.get("feed"), document.get("assets", [])
    if not isinstance(feed, dict):
        errors["feed"] = ["must be an object with the 19 columns"]
    if not isinstance(rows, list):
        errors["assets"] = ["must be a list"]
    if errors:
        raise SpecError(errors)
    return feed, rows  # type: ignore[return-value]  # both were looked at just now


def export_document(*, name: str) -> dict[str, Any]:  # Any: JSON
    """Return the document of one exchange, as `import_document` takes it."""
    feed = get_feed(name)
    listings = [{field: getattr(one, field) for field in ASSET_COLUMNS} for one in feed.listings.all()]
    return {"feed": {column: _sorted(value) for column, value in feed.columns().items()}, "assets": listings}


def document_text(document: Mapping[str, Any]) -> str:  # Any: JSON
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _sorted(value: Any) -> Any:  # Any: JSON
    """Order the keys inside a JSON column: one of the two databases does not keep their order."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


# What running processes read, again whenever the revision has changed. They read the revision first: a change
# that comes while the rows are read then makes them read once more.


async def table_revision() -> int:
    """Return the number that rises with every change of the tables; 0 before the first."""
    return await sync_to_async(_read_revision)()


async def load_exchanges() -> "ExchangeTables":
    """Return both tables, typed; rows that cannot be used are left out and named."""
    return await sync_to_async(_read_exchanges)()


async def load_catalogue() -> Catalogue:
    """Return what is listed where, for the answers."""
    return await sync_to_async(_read_catalogue)()


class ExchangeTables(NamedTuple):
    feeds: tuple[FeedSpec, ...]
    listings: tuple[Listing, ...]
    invalid: dict[str, str]
    """Rows that cannot be used, and why: written past the services, or before a rule was made stricter."""


@fresh_connection
def _read_revision() -> int:
    return Revision.objects.filter(pk=1).values_list("number", flat=True).first() or 0


@fresh_connection
def _read_exchanges() -> ExchangeTables:
    feeds, invalid = [], {}
    for feed in ExchangeFeed.objects.all():
        try:
            feeds.append(feed.to_spec())
        except SpecError as error:
            invalid[feed.name] = str(error)
    listings = tuple(
        one.to_listing() for one in ExchangeAsset.objects.all() if one.exchange_id not in invalid
    )
    return ExchangeTables(tuple(feeds), listings, invalid)


@fresh_connection
def _read_catalogue() -> Catalogue:
    exchanges = {
        feed.name: ExchangeInfo(feed.name, feed.display_name, feed.quote_currency, feed.enabled)
        for feed in ExchangeFeed.objects.all()
    }
    assets: dict[str, list[ExchangeAsset]] = {}
    for one in ExchangeAsset.objects.all():
        assets.setdefault(one.asset, []).append(one)
    return Catalogue(exchanges, {asset: _asset_info(listings) for asset, listings in assets.items()})


def _asset_info(listings: list[ExchangeAsset]) -> AssetInfo:
    home = next((one for one in listings if one.home), None)
    return AssetInfo(
        asset=listings[0].asset,
        category=(home or listings[0]).category,
        home=home.exchange_id if home else None,
        listings=tuple(
            ListingInfo(one.exchange_id, one.symbol, one.enabled, one.prewarm) for one in listings
        ),
    )


# Shared


def _raise_revision() -> None:
    if not Revision.objects.filter(pk=1).update(number=F("number") + 1):
        Revision.objects.bulk_create([Revision(pk=1)], ignore_conflicts=True)
        Revision.objects.filter(pk=1).update(number=F("number") + 1)


def _save(feed: ExchangeFeed, author: Author) -> None:
    feed._history_user = author.user  # type: ignore[attr-defined]  # read by simple_history
    feed._change_reason = author.door.value  # type: ignore[attr-defined]
    feed.save()


def _delete(row: ExchangeFeed | ExchangeAsset, author: Author) -> None:
    row._history_user = author.user  # type: ignore[union-attr]  # read by simple_history
    row._change_reason = author.door.value  # type: ignore[union-attr]
    row.delete()
