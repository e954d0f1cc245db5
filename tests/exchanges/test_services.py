"""Every change validates, is one transaction, leaves a history and raises the revision."""

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from exchanges.exceptions import FeedNotFound
from exchanges.feed.spec import SpecError
from exchanges.models import ExchangeAsset, ExchangeFeed
from exchanges.services import (
    Author,
    Door,
    delete_assets,
    delete_feed,
    document_text,
    export_document,
    import_document,
    load_catalogue,
    load_exchanges,
    save_assets,
    save_feed,
    set_home,
    table_revision,
    toggle_feed,
)
from tests.exchanges.rows import feed_row

pytestmark = pytest.mark.django_db
AUTHOR = Author(Door.COMMAND)
BTC = {"asset": "BTC", "symbol": "BTC-USD", "category": "Major Currencies"}
ETH = {"asset": "ETH", "symbol": "ETH-USD", "category": "Major Currencies"}


def revision() -> int:
    return async_to_sync(table_revision)()


def errors_of(call: Any, **arguments: Any) -> dict[str, list[str]]:  # Any: a service and what it takes
    with pytest.raises(SpecError) as caught:
        call(**arguments, author=AUTHOR)
    return caught.value.errors


@pytest.fixture
def plain() -> ExchangeFeed:
    return save_feed(columns=feed_row(), author=AUTHOR)


@pytest.fixture
def other() -> ExchangeFeed:
    return save_feed(columns=feed_row(name="other"), author=AUTHOR)


# Feeds


def test_saved_feed_is_what_was_given(plain: ExchangeFeed) -> None:
    assert ExchangeFeed.objects.get().columns() == feed_row()


def test_new_feed_takes_defaults_for_what_is_left_out() -> None:
    columns = feed_row()
    for name in ("enabled", "quirks", "rest_url", "rest_price_path", "ping_interval_s", "ping_payload"):
        del columns[name]
    feed = save_feed(columns=columns, author=AUTHOR)
    assert (feed.enabled, feed.quirks, feed.rest_url, feed.ping_interval_s) == (True, {}, "", 0)


def test_known_feed_keeps_what_is_left_out(plain: ExchangeFeed) -> None:
    feed = save_feed(columns={"name": "plain", "display_name": "New"}, author=AUTHOR)
    assert feed.columns() == feed_row(display_name="New")


def test_feed_with_faults_is_refused_by_column_and_changes_nothing(plain: ExchangeFeed) -> None:
    errors = errors_of(save_feed, columns={"name": "plain", "price_path": "[", "colour": "red"})
    assert set(errors) == {"price_path", "colour"}
    assert ExchangeFeed.objects.get().price_path == "p"


def test_json_columns_may_come_as_text() -> None:
    columns = feed_row(trade_match='{"e": "trade"}', quirks='{"trade_id_path": "i"}')
    feed = save_feed(columns=columns, author=AUTHOR)
    assert (feed.trade_match, feed.quirks) == ({"e": "trade"}, {"trade_id_path": "i"})


def test_saving_the_same_again_leaves_no_history(plain: ExchangeFeed) -> None:
    save_feed(columns=feed_row(), author=AUTHOR)
    assert ExchangeFeed.history.count() == 1


def test_history_names_the_user_and_the_door(plain: ExchangeFeed) -> None:
    user = User.objects.create_user("operator")
    toggle_feed(name="plain", enabled=False, author=Author(Door.API, user))
    latest = ExchangeFeed.history.first()
    assert (latest.history_user, latest.history_change_reason, latest.enabled) == (user, "api", False)


def test_toggle_without_a_wish_turns_round(plain: ExchangeFeed) -> None:
    assert [toggle_feed(name="plain", author=AUTHOR).enabled for _ in range(2)] == [False, True]


def test_unusable_row_can_be_disabled_and_not_enabled(plain: ExchangeFeed) -> None:
    ExchangeFeed.objects.update(price_path="[")
    assert not toggle_feed(name="plain", enabled=False, author=AUTHOR).enabled
    assert "price_path" in errors_of(toggle_feed, name="plain", enabled=True)


@pytest.mark.parametrize(
    "call", [lambda: toggle_feed(name="no", author=AUTHOR), lambda: delete_feed(name="no", author=AUTHOR)]
)
def test_feed_that_is_not_there_is_named(call: Any) -> None:  # Any: a call
    with pytest.raises(FeedNotFound, match="'no'"):
        call()


def test_deleted_feed_takes_its_listings_along_with_a_history_of_each(plain: ExchangeFeed) -> None:
    save_assets(rows=[BTC, ETH], exchange="plain", author=AUTHOR)
    delete_feed(name="plain", author=AUTHOR)
    assert not ExchangeAsset.objects.exists()
    gone = ExchangeAsset.history.filter(history_type="-")
    assert {entry.history_change_reason for entry in gone} == {"command"}
    assert gone.count() == 2


# Assets


def test_batch_creates_changes_and_leaves_the_rest(plain: ExchangeFeed) -> None:
    save_assets(rows=[BTC, ETH], exchange="plain", author=AUTHOR)
    save_assets(rows=[{"asset": "BTC", "exchange": "plain", "enabled": False}], author=AUTHOR)
    rows = {row.asset: row for row in ExchangeAsset.objects.all()}
    assert (rows["BTC"].enabled, rows["BTC"].symbol, rows["ETH"].enabled) == (False, "BTC-USD", True)
    assert [entry.asset for entry in ExchangeAsset.history.filter(history_type="~")] == ["BTC"]


@pytest.mark.parametrize(
    ("row", "path"),
    [
        ("text", "assets[1]"),
        ({}, "assets[1].asset"),
        ({**ETH, "asset": 7}, "assets[1].asset"),
        ({**ETH, "asset": "eth"}, "assets[1].asset"),
        ({**ETH, "asset": "E" * 21}, "assets[1].asset"),
        ({**ETH, "asset": "BTC"}, "assets[1].asset"),
        ({**ETH, "exchange": "nowhere"}, "assets[1].exchange"),
        ({**ETH, "exchange": None}, "assets[1].exchange"),
        ({**ETH, "exchange": ["plain"]}, "assets[1].exchange"),
        ({**ETH, "symbol": ""}, "assets[1].symbol"),
        ({**ETH, "symbol": 'BTC"}'}, "assets[1].symbol"),
        ({**ETH, "symbol": "S" * 41}, "assets[1].symbol"),
        ({**ETH, "symbol": "BTC-USD"}, "assets[1].symbol"),
        ({**ETH, "rest_symbol": "a b"}, "assets[1].rest_symbol"),
        ({**ETH, "category": "Stones"}, "assets[1].category"),
        ({"asset": "ETH", "symbol": "ETH-USD"}, "assets[1].category"),
        ({**ETH, "enabled": "yes"}, "assets[1].enabled"),
        ({**ETH, "home": 1}, "assets[1].home"),
        ({**ETH, "colour": "red"}, "assets[1].colour"),
    ],
)
def test_bad_row_is_named_by_place_and_field_and_nothing_is_saved(
    plain: ExchangeFeed, row: object, path: str
) -> None:
    assert path in errors_of(save_assets, rows=[BTC, row], exchange="plain")
    assert not ExchangeAsset.objects.exists()


def test_second_home_is_refused(plain: ExchangeFeed, other: ExchangeFeed) -> None:
    save_assets(rows=[{**BTC, "home": True}], exchange="plain", author=AUTHOR)
    errors = errors_of(save_assets, rows=[{**BTC, "home": True}], exchange="other")
    assert "plain" in errors["assets[0].home"][0]


@pytest.mark.parametrize("order", [1, -1])
def test_home_moves_when_one_batch_takes_and_gives_it(
    plain: ExchangeFeed, other: ExchangeFeed, order: int
) -> None:
    save_assets(rows=[{**BTC, "home": True}], exchange="plain", author=AUTHOR)
    save_assets(rows=[BTC], exchange="other", author=AUTHOR)
    moved = [
        {"asset": "BTC", "exchange": "plain", "home": False},
        {"asset": "BTC", "exchange": "other", "home": True},
    ]
    save_assets(rows=moved[::order], author=AUTHOR)
    assert ExchangeAsset.objects.homes().get().exchange_id == "other"


def test_set_home_moves_it(plain: ExchangeFeed, other: ExchangeFeed) -> None:
    save_assets(rows=[{**BTC, "home": True}], exchange="plain", author=AUTHOR)
    (listing,) = save_assets(rows=[BTC], exchange="other", author=AUTHOR)
    set_home(listing=listing, author=AUTHOR)
    assert ExchangeAsset.objects.homes().get().exchange_id == "other"


def test_rows_that_trade_symbols_are_refused_and_not_half_saved(plain: ExchangeFeed) -> None:
    save_assets(rows=[BTC, ETH], exchange="plain", author=AUTHOR)
    swapped = [{**BTC, "symbol": "ETH-USD"}, {**ETH, "symbol": "BTC-USD"}]
    try:
        save_assets(rows=swapped, exchange="plain", author=AUTHOR)
    except SpecError as error:
        assert list(error.errors) == ["assets"]
        expected = {"BTC": "BTC-USD", "ETH": "ETH-USD"}
    else:  # a database that looks at constraints after the statement lets them pass
        expected = {"BTC": "ETH-USD", "ETH": "BTC-USD"}
    assert dict(ExchangeAsset.objects.values_list("asset", "symbol")) == expected


def test_deleted_listing_is_in_the_history(plain: ExchangeFeed) -> None:
    delete_assets(listings=save_assets(rows=[BTC], exchange="plain", author=AUTHOR), author=AUTHOR)
    assert [entry.history_type for entry in ExchangeAsset.history.all()] == ["-", "+"]


# Documents


def document() -> dict[str, Any]:
    listed = {"rest_symbol": "", "enabled": True, "prewarm": True, "home": True}
    quirks = {"trade_id_path": "i", "rest": {"time_path": "T", "rate_per_s": 5}}
    return {"feed": feed_row(ping_interval_s=15, quirks=quirks), "assets": [{**BTC, **listed}]}


def test_document_comes_back_as_it_was_imported() -> None:
    import_document(document=document(), author=AUTHOR)
    assert export_document(name="plain") == document()
    text = document_text(export_document(name="plain"))
    import_document(document=export_document(name="plain"), author=AUTHOR)
    assert document_text(export_document(name="plain")) == text


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda given: [], "document"),
        (lambda given: {"assets": []}, "feed"),
        (lambda given: {**given, "assets": {}}, "assets"),
        (lambda given: {**given, "more": 1}, "more"),
        (lambda given: {**given, "feed": {**given["feed"], "price_path": "["}}, "feed.price_path"),
        (lambda given: {**given, "feed": {"name": "plain"}}, "feed.ws_url"),
        (lambda given: {**given, "assets": [{**BTC, "home": "no"}]}, "assets[0].home"),
    ],
)
def test_bad_document_is_refused_by_path_and_changes_nothing(change: Any, path: str) -> None:
    assert path in errors_of(import_document, document=change(document()))
    assert not ExchangeFeed.objects.exists()


# What processes read


def test_every_change_raises_the_revision(plain: ExchangeFeed) -> None:
    seen = [revision()]
    for change in (
        lambda: toggle_feed(name="plain", author=AUTHOR),
        lambda: save_feed(columns=feed_row(display_name="New"), author=AUTHOR),
        lambda: save_assets(rows=[BTC], exchange="plain", author=AUTHOR),
        lambda: set_home(listing=ExchangeAsset.objects.get(), author=AUTHOR),
        lambda: delete_assets(listings=ExchangeAsset.objects.all(), author=AUTHOR),
        lambda: import_document(document=document(), author=AUTHOR),
        lambda: delete_feed(name="plain", author=AUTHOR),
    ):
        change()
        seen.append(revision())
    assert seen == sorted(set(seen))


def test_refused_change_leaves_the_revision(plain: ExchangeFeed) -> None:
    before = revision()
    errors_of(save_assets, rows=[{}], exchange="plain")
    assert revision() == before


def test_revision_before_the_first_change_is_zero() -> None:
    assert revision() == 0


def test_unusable_row_is_left_out_and_named_and_the_others_are_loaded(
    plain: ExchangeFeed, other: ExchangeFeed
) -> None:
    save_assets(rows=[BTC], exchange="plain", author=AUTHOR)
    save_assets(rows=[BTC], exchange="other", author=AUTHOR)
    ExchangeFeed.objects.filter(pk="plain").update(price_path="[")
    tables = async_to_sync(load_exchanges)()
    assert [spec.name for spec in tables.feeds] == ["other"]
    assert [listing.exchange for listing in tables.listings] == ["other"]
    assert "price_path" in tables.invalid["plain"]


def test_catalogue_holds_every_row_with_its_home(plain: ExchangeFeed, other: ExchangeFeed) -> None:
    save_assets(rows=[BTC, {**ETH, "enabled": False}], exchange="plain", author=AUTHOR)
    save_assets(rows=[{**BTC, "symbol": "XBT", "home": True}], exchange="other", author=AUTHOR)
    toggle_feed(name="plain", enabled=False, author=AUTHOR)
    catalogue = async_to_sync(load_catalogue)()
    assert catalogue.exchanges["plain"].enabled is False
    assert catalogue.assets["BTC"].home == "other"
    assert {one.symbol for one in catalogue.assets["BTC"].listings} == {"BTC-USD", "XBT"}
    assert catalogue.assets["ETH"].home is None
    assert list(catalogue.public().assets) == ["BTC"]


def test_symbol_of_an_asset_outside_the_batch_is_refused(plain: ExchangeFeed) -> None:
    save_assets(rows=[BTC], exchange="plain", author=AUTHOR)
    errors = errors_of(save_assets, rows=[{**ETH, "symbol": "BTC-USD"}], exchange="plain")
    assert errors == {"assets[0].symbol": ["BTC has this symbol at this exchange."]}


def test_symbol_that_differs_only_in_case_is_refused(plain: ExchangeFeed, other: ExchangeFeed) -> None:
    save_assets(rows=[BTC], exchange="plain", author=AUTHOR)
    save_assets(rows=[{**ETH, "symbol": "btc-usd"}], exchange="other", author=AUTHOR)
    message = "BTC has BTC-USD at this exchange: case makes no difference."
    errors = errors_of(save_assets, rows=[{**ETH, "symbol": "btc-Usd"}], exchange="plain")
    assert errors == {"assets[0].symbol": [message]}
    errors = errors_of(save_assets, rows=[ETH, {**BTC, "symbol": "eth-usd"}], exchange="plain")
    assert list(errors) == ["assets[0].symbol", "assets[1].symbol"]
    save_assets(rows=[{**BTC, "symbol": "btc-usd"}], exchange="plain", author=AUTHOR)
    assert ExchangeAsset.objects.get(exchange="plain").symbol == "btc-usd", (
        "of its own it may change the case"
    )


def test_saving_reads_only_the_rows_it_needs(plain: ExchangeFeed) -> None:
    save_assets(rows=[BTC, ETH], exchange="plain", author=AUTHOR)
    with CaptureQueriesContext(connection) as queries:
        save_assets(rows=[{"asset": "BTC", "prewarm": False}], exchange="plain", author=AUTHOR)
    read = [sql for query in queries if "exchange_asset_map" in (sql := query["sql"]) and "SELECT" in sql[:6]]
    assert read
    assert all("WHERE" in sql for sql in read)
