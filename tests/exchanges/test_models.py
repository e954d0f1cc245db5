"""What the database itself refuses, in both kinds of database, whoever writes to it."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connections, transaction

from exchanges.feed.spec import FEED_COLUMNS
from exchanges.models import ExchangeAsset, ExchangeFeed, Revision
from tests.exchanges.rows import feed_row

pytestmark = pytest.mark.django_db(databases=["default", "embedded"])
both = pytest.mark.parametrize("database", ["default", "embedded"])


def write_feed(database: str, **changes: Any) -> ExchangeFeed:  # Any: column values
    feed = ExchangeFeed(**feed_row(**changes))
    ExchangeFeed.objects.using(database).bulk_create([feed])  # as raw SQL would: past every validation
    return feed


def write_asset(database: str, **changes: Any) -> None:  # Any: column values
    row = {"asset": "BTC", "exchange_id": "plain", "symbol": "BTC-USD", "category": "Major Currencies"}
    ExchangeAsset.objects.using(database).bulk_create([ExchangeAsset(**{**row, **changes})])


@both
def test_feed_table_has_exactly_the_19_columns(database: str) -> None:
    with connections[database].cursor() as cursor:
        columns = connections[database].introspection.get_table_description(cursor, "exchange_feeds")
    assert [column.name for column in columns] == list(FEED_COLUMNS)


@both
def test_asset_table_has_the_columns_of_the_design(database: str) -> None:
    with connections[database].cursor() as cursor:
        columns = connections[database].introspection.get_table_description(cursor, "exchange_asset_map")
    names = {"id", "asset", "exchange", "symbol", "rest_symbol", "category", "enabled", "prewarm", "home"}
    assert {column.name for column in columns} == names


@both
@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "Upper"},
        {"name": "has space"},
        {"name": "newline\n"},
        {"display_name": ""},
        {"ws_url": ""},
        {"subscribe_template": ""},
        {"symbol_template": ""},
        {"trades_path": ""},
        {"symbol_path": ""},
        {"price_path": ""},
        {"timestamp_path": ""},
        {"quote_currency": "EUR"},
        {"timestamp_format": "unix"},
        {"symbols_per_frame": -1},
        {"ping_interval_s": -1},
        {"rest_price_path": ""},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_database_refuses_a_feed_that_breaks_a_constraint(database: str, changes: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic(database):
        write_feed(database, **changes)


@both
def test_database_refuses_a_second_feed_of_the_same_name(database: str) -> None:
    write_feed(database)
    with pytest.raises(IntegrityError), transaction.atomic(database):
        write_feed(database)


@both
@pytest.mark.parametrize(
    "changes",
    [
        {"symbol": "OTHER"},  # the same asset at the same exchange
        {"asset": "ETH"},  # the same symbol at the same exchange
        {"asset": "ETH", "symbol": "btc-usd"},  # which is the same in any case
        {"asset": "btc", "symbol": "x"},
        {"asset": "", "symbol": "x"},
        {"asset": "ETH", "symbol": ""},
        {"asset": "ETH", "symbol": "has space"},
        {"asset": "ETH", "symbol": "x", "category": "Stones"},
    ],
)
def test_database_refuses_a_listing_that_breaks_a_constraint(database: str, changes: dict[str, Any]) -> None:
    write_feed(database)
    write_asset(database)
    with pytest.raises(IntegrityError), transaction.atomic(database):
        write_asset(database, **changes)


@both
def test_database_refuses_a_second_home_and_allows_many_others(database: str) -> None:
    for name in ("plain", "second", "third"):
        write_feed(database, name=name)
    write_asset(database, home=True)
    write_asset(database, exchange_id="second")
    write_asset(database, asset="ETH", symbol="ETH-USD", home=True)
    with pytest.raises(IntegrityError), transaction.atomic(database):
        write_asset(database, exchange_id="third", home=True)


@both
def test_database_refuses_a_second_revision(database: str) -> None:
    with pytest.raises(IntegrityError), transaction.atomic(database):
        Revision.objects.using(database).create(pk=2)


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("wss://10.0.0.1/", True),
        ("wss://169.254.169.254/", True),
        ("wss://[::ffff:10.0.0.1]/", True),
        ("wss://stream.plain.example:22/", True),
        ("ws://stream.plain.example/", True),  # not encrypted
        ("wss://stream.plain.example/{SYMBOLS}", False),
        ("ws://127.0.0.1:9000/", False),  # a setting may allow it
        ("wss://localhost/", False),
    ],
)
def test_address_that_can_never_be_connected_to_is_refused(url: str, refused: bool) -> None:
    feed = ExchangeFeed(**feed_row(ws_url=url))
    if not refused:
        feed.clean()
        return
    with pytest.raises(ValidationError) as caught:
        feed.clean()
    assert set(caught.value.message_dict) == {"ws_url"}


def test_clean_names_every_column_that_cannot_work() -> None:
    feed = ExchangeFeed(**feed_row(ws_url="http://x", price_path="a[", trade_match={}))
    with pytest.raises(ValidationError) as caught:
        feed.clean()
    assert set(caught.value.message_dict) == {"ws_url", "price_path", "trade_match"}


def test_spec_of_a_row_is_the_row() -> None:
    spec = ExchangeFeed(**feed_row()).to_spec()
    assert (spec.name, spec.quote_currency, spec.ping_interval_s) == ("plain", "USD", 0)


@pytest.mark.parametrize(("kept", "shown"), [(15.0, 15), (1.5, 1.5), (0, 0)])
def test_ping_interval_is_written_as_people_write_it(kept: float, shown: float) -> None:
    written = ExchangeFeed(**feed_row(ping_interval_s=kept)).columns()["ping_interval_s"]
    assert (written, type(written)) == (shown, type(shown))


def test_listing_carries_every_field() -> None:
    row = ExchangeAsset(
        asset="BTC",
        exchange_id="kraken",
        symbol="BTC/USD",
        rest_symbol="XBTUSD",
        category="Major Currencies",
        enabled=False,
        prewarm=False,
        home=True,
    )
    listing = row.to_listing()
    assert listing.asked_by_rest == "XBTUSD"
    assert (listing.exchange, listing.enabled, listing.prewarm, listing.home) == (
        "kraken",
        False,
        False,
        True,
    )


def test_counts_of_a_feed_are_annotated() -> None:
    write_feed("default")
    write_asset("default", home=True)
    write_asset("default", asset="ETH", symbol="ETH-USD")
    (feed,) = ExchangeFeed.objects.with_asset_counts()
    assert (feed.asset_count, feed.home_count) == (2, 1)
