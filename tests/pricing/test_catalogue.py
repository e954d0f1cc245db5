from __future__ import annotations

import msgspec

from pricing.catalogue import (
    EMPTY,
    Catalogue,
    PublicView,
    list_assets,
    list_categories,
    list_exchanges,
)
from tests.pricing.doubles import CATALOGUE

PUBLIC = CATALOGUE.public()


def test_public_part_has_no_disabled_exchange() -> None:
    assert list(PUBLIC.exchanges) == ["coinbase", "kraken", "okx"]


def test_public_part_has_no_disabled_listing_and_none_on_a_disabled_exchange() -> None:
    assert [one.exchange for one in PUBLIC.assets["BTC"].listings] == ["kraken", "coinbase", "okx"]
    assert [one.exchange for one in PUBLIC.assets["UNI"].listings] == ["coinbase", "kraken"]


def test_asset_without_a_public_listing_is_left_out() -> None:
    assert "GUSD" not in PUBLIC.assets


def test_home_that_is_not_public_is_no_home() -> None:
    assert PUBLIC.assets["BTC"].home == "coinbase"
    assert PUBLIC.assets["UNI"].home is None


def test_view_puts_home_first_and_knows_no_unknown_asset() -> None:
    view = PublicView(lambda: CATALOGUE)
    assert view.exchanges_of("BTC") == ("coinbase", "kraken", "okx")
    assert view.exchanges_of("UNI") == ("coinbase", "kraken")
    assert view.exchanges_of("GUSD") == view.exchanges_of("NOPE") == ()


def test_view_follows_the_source_and_works_once_per_snapshot() -> None:
    snapshots = [EMPTY]
    view = PublicView(lambda: snapshots[-1])
    assert view.catalogue().assets == {}
    snapshots.append(CATALOGUE)
    first = view.catalogue()
    assert first.assets == PUBLIC.assets
    assert view.catalogue() is first
    assert view.exchanges_of("ETH") == ("kraken",)


def test_exchange_without_a_live_symbol_is_expected_to_send_nothing() -> None:
    quiet = msgspec.structs.replace(CATALOGUE.assets["ETH"].listings[0], exchange="okx", prewarm=False)
    ether = msgspec.structs.replace(
        CATALOGUE.assets["ETH"], listings=(*CATALOGUE.assets["ETH"].listings, quiet)
    )
    assert PublicView(lambda: Catalogue(CATALOGUE.exchanges, {"ETH": ether})).followed() == ("kraken",)


def test_exchanges_are_listed_with_asset_counts_and_liveness() -> None:
    rows = list_exchanges(PUBLIC, {"coinbase": 42, "kraken": 13_001}, 13_000)["exchanges"]
    keys = ("name", "display_name", "quote", "assets", "live", "age_ms")
    assert isinstance(rows, list)
    assert [tuple(row) for row in rows] == [keys] * 3
    assert [tuple(row.values()) for row in rows] == [
        ("coinbase", "Coinbase", "USD", 2, True, 42),
        ("kraken", "Kraken", "USD", 3, False, 13_001),
        ("okx", "OKX", "USDT", 1, False, None),
    ]


def test_categories_are_sorted_and_counted() -> None:
    rows = list_categories(PUBLIC)["categories"]
    assert rows == [{"name": "DeFi", "assets": 1}, {"name": "Major Currencies", "assets": 2}]


def _named(catalogue: Catalogue, exchange: str | None, category: str | None) -> list[str]:
    rows = list_assets(catalogue, exchange, category)["assets"]
    assert isinstance(rows, list)
    return [row["asset"] for row in rows]


def test_assets_are_filtered_by_exchange_and_category() -> None:
    assert _named(PUBLIC, None, None) == ["BTC", "ETH", "UNI"]
    assert _named(PUBLIC, "coinbase", None) == ["BTC", "UNI"]
    assert _named(PUBLIC, None, "DeFi") == ["UNI"]
    assert _named(PUBLIC, "okx", "DeFi") == []


def test_asset_says_category_home_and_exchanges() -> None:
    assert list_assets(PUBLIC, "okx", None)["assets"] == [
        {
            "asset": "BTC",
            "category": "Major Currencies",
            "home": "coinbase",
            "exchanges": ["kraken", "coinbase", "okx"],
        }
    ]
