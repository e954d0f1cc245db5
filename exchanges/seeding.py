"""The rows that the project comes with: six exchanges and what they list.

A row belongs to the seed for as long as nobody else has touched it: then a newer fixture improves it. What an
operator has changed or deleted stays as it is.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import Model

from exchanges.models import ExchangeAsset, ExchangeFeed
from exchanges.services import Author, Door, save_assets, save_feed

FIXTURES = Path(__file__).parent / "fixtures"
AUTHOR = Author(Door.SEED)
# Every listing is subscribed live: cross-listings answer when the home is stale, and make the index.
PREWARM = True


class Seeded(NamedTuple):
    feeds: int
    listings: int


@transaction.atomic
def seed(fixtures: Path = FIXTURES) -> Seeded:
    """Create or improve the seed's rows; return how many of each kind."""
    feeds = [feed for feed in _feeds(fixtures) if _is_due_feed(feed)]
    for feed in feeds:
        save_feed(columns=feed, author=AUTHOR)
    rows = _due_rows(list(_rows(fixtures)))
    if rows:
        save_assets(rows=rows, author=AUTHOR)
    return Seeded(len(feeds), len(rows))


def _feeds(fixtures: Path) -> Iterator[dict[str, Any]]:  # Any: JSON columns
    for path in sorted((fixtures / "feeds").glob("*.json")):
        yield json.loads(path.read_bytes())["feed"]


def _rows(fixtures: Path) -> Iterator[dict[str, Any]]:  # Any: texts and flags
    with (fixtures / "assets.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {**row, "home": row["home"] == "1", "enabled": True, "prewarm": PREWARM}


def _is_due_feed(feed: dict[str, Any]) -> bool:  # Any: JSON columns
    if (feed["name"],) in _touched(ExchangeFeed, "name"):
        return False
    known = ExchangeFeed.objects.filter(pk=feed["name"]).first()
    return known is None or known.columns() != feed


def _due_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:  # Any: texts and flags
    """Return the rows that differ from the table and may be written to it."""
    touched = _touched(ExchangeAsset, "asset", "exchange")
    exchanges = set(ExchangeFeed.objects.values_list("name", flat=True))
    known = {(one.asset, one.exchange_id): one for one in ExchangeAsset.objects.all()}
    kept = [one for key, one in known.items() if key in touched]
    homes = {one.asset for one in kept if one.home}
    symbols = {(one.exchange_id, one.symbol.lower()) for one in known.values()}
    due = []
    for row in rows:
        key = (row["asset"], row["exchange"])
        if key in touched or row["exchange"] not in exchanges:
            continue
        if row["asset"] in homes:
            row["home"] = False
        listing = known.get(key)
        if listing is None:
            is_due = (row["exchange"], row["symbol"].lower()) not in symbols
        else:
            is_due = any(getattr(listing, field) != row[field] for field in _FIELDS)
        if is_due:
            due.append(row)
    return due


_FIELDS = ("symbol", "rest_symbol", "category", "enabled", "prewarm", "home")


def _touched(model: type[Model], *key: str) -> set[tuple[Any, ...]]:  # Any: key values
    """Return the keys of rows that somebody other than the seed wrote, changed or deleted."""
    history = model.history  # type: ignore[attr-defined]  # put there by simple_history
    others = set(history.exclude(history_change_reason=Door.SEED.value).values_list(*key))
    ours = set(history.filter(history_change_reason=Door.SEED.value).values_list(*key))
    return others | (set(model._default_manager.values_list(*key)) - ours)
