"""The rows that the project comes with, and that they never overwrite what an operator changed."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from exchanges.feed.spec import CATEGORIES
from exchanges.models import ExchangeAsset, ExchangeFeed, Revision
from exchanges.seeding import FIXTURES, seed
from exchanges.services import Author, Door, delete_assets, save_assets, save_feed, set_home, toggle_feed

OPERATOR = Author(Door.ADMIN)
SHARED = Path(__file__).resolve().parents[3] / "shared" / "exchanges" / "assets.csv"
EXCHANGES = {"coinbase", "gemini", "kraken", "gateio", "bybit", "okx"}


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def seeded() -> None:
    seed()


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A later version of the fixtures, for a test to change."""
    shutil.copytree(FIXTURES, tmp_path / "fixtures")
    return tmp_path / "fixtures"


# The file


def test_fixture_has_150_assets_of_one_category_each() -> None:
    categories: dict[str, set[str]] = {}
    for row in csv_rows(FIXTURES / "assets.csv"):
        categories.setdefault(row["asset"], set()).add(row["category"])
    assert len(categories) == 150
    assert all(len(of_asset) == 1 for of_asset in categories.values())
    assert set().union(*categories.values()) == set(CATEGORIES)


def test_fixture_gives_25_homes_to_each_exchange_and_one_to_each_asset() -> None:
    homes = [row for row in csv_rows(FIXTURES / "assets.csv") if row["home"] == "1"]
    assert Counter(row["exchange"] for row in homes) == dict.fromkeys(EXCHANGES, 25)
    assert len({row["asset"] for row in homes}) == len(homes) == 150


@pytest.mark.skipif(not SHARED.is_file(), reason=f"no list of assets at {SHARED}")
def test_fixture_lists_what_the_shared_file_lists() -> None:
    ours = [
        {name: row[name] for name in ("asset", "exchange", "symbol", "home")}
        for row in csv_rows(FIXTURES / "assets.csv")
    ]
    assert ours == csv_rows(SHARED)


# The rows


@pytest.mark.django_db
def test_seed_fills_empty_tables_and_does_nothing_twice() -> None:
    assert seed() == (6, 790)
    number = Revision.objects.get().number
    assert seed() == (0, 0)
    assert Revision.objects.get().number == number
    assert set(ExchangeFeed.objects.values_list("name", flat=True)) == EXCHANGES
    assert (ExchangeAsset.objects.count(), ExchangeAsset.objects.homes().count()) == (790, 150)


@pytest.mark.django_db
def test_every_seeded_row_is_valid(seeded: None) -> None:
    for feed in ExchangeFeed.objects.all():
        feed.full_clean(validate_unique=False)
        assert feed.to_spec().name == feed.name
    for listing in ExchangeAsset.objects.all():
        listing.clean_fields(exclude=["exchange"])
        listing.clean()


@pytest.mark.django_db
def test_seed_leaves_what_an_operator_changed(seeded: None, newer: Path) -> None:
    toggle_feed(name="kraken", enabled=False, author=OPERATOR)
    save_assets(rows=[{"asset": "BTC", "exchange": "okx", "prewarm": False}], author=OPERATOR)
    set_home(listing=ExchangeAsset.objects.get(asset="ETH", exchange="okx"), author=OPERATOR)
    for path in (newer / "feeds").glob("*.json"):
        document = json.loads(path.read_text())
        document["feed"]["display_name"] += " (new)"
        path.write_text(json.dumps(document))
    assert seed(newer) == (5, 0)
    kraken = ExchangeFeed.objects.get(pk="kraken")
    assert (kraken.enabled, kraken.display_name) == (False, "Kraken")
    assert ExchangeFeed.objects.get(pk="okx").display_name == "OKX (new)"
    assert not ExchangeAsset.objects.get(asset="BTC", exchange="okx").prewarm
    assert ExchangeAsset.objects.homes().get(asset="ETH").exchange_id == "okx"


@pytest.mark.django_db
def test_seed_does_not_bring_back_what_an_operator_deleted(seeded: None) -> None:
    delete_assets(listings=ExchangeAsset.objects.filter(asset="BTC", exchange="okx"), author=OPERATOR)
    assert seed() == (0, 0)
    assert not ExchangeAsset.objects.filter(asset="BTC", exchange="okx").exists()


@pytest.mark.django_db
def test_newer_fixture_improves_untouched_listings(seeded: None, newer: Path) -> None:
    path = newer / "assets.csv"
    path.write_text(
        path.read_text().replace("BTC,Major Currencies,okx,BTC-USDT", "BTC,Major Currencies,okx,BTC-USDC")
    )
    assert seed(newer) == (0, 1)
    assert ExchangeAsset.objects.get(asset="BTC", exchange="okx").symbol == "BTC-USDC"


@pytest.mark.django_db
def test_seed_steps_around_rows_that_an_operator_made_before_it() -> None:
    feed = json.loads((FIXTURES / "feeds" / "okx.json").read_text())["feed"]
    save_feed(columns={**feed, "display_name": "Mine"}, author=OPERATOR)
    mine = {
        "asset": "WRAPPED",
        "symbol": "btc-usdt",
        "category": "DeFi",
    }  # the symbol that the seed's BTC wants: case makes no difference
    save_assets(
        rows=[mine, {**mine, "asset": "ETH", "symbol": "E", "home": True}], exchange="okx", author=OPERATOR
    )
    assert seed() == (5, 788)
    assert ExchangeFeed.objects.get(pk="okx").display_name == "Mine"
    assert not ExchangeAsset.objects.filter(asset="BTC", exchange="okx").exists()
    assert ExchangeAsset.objects.homes().get(asset="ETH").symbol == "E"
