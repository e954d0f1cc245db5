"""Rows that an earlier version stored are ones that this version can use."""

from importlib import import_module

import pytest
from django.apps import apps
from django.db import connection

from exchanges.models import ExchangeAsset, ExchangeFeed
from tests.exchanges.rows import feed_row

REFUSAL = {"match": {"type": "error"}, "message_path": "message"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"symbol_pattern": "([A-Z0-9]+-[A-Z0-9]+)"}, {"symbol_before": " is not a valid product"}),
        ({"symbol_pattern": "([a-z0-9]+usdt)"}, {"symbol_after": "market.", "symbol_before": ".trade"}),
        ({"symbol_pattern": "(somebody's own)"}, {}),
        ({"symbol_path": "s"}, {"symbol_path": "s"}),
    ],
)
def test_pattern_of_a_refusal_becomes_words(before: dict[str, str], after: dict[str, str]) -> None:
    ExchangeFeed.objects.create(**feed_row(quirks={"refusals": [REFUSAL | before]}))
    import_module("exchanges.migrations.0002_refusal_words").say_it_by_words(apps, None)
    feed = ExchangeFeed.objects.get()
    assert feed.quirks == {"refusals": [REFUSAL | after]}
    assert feed.to_spec().quirks.refusals[0].symbol_before == after.get("symbol_before", "")


@pytest.mark.django_db
def test_of_symbols_that_differ_only_in_case_one_is_left_and_the_others_are_history() -> None:
    migration = import_module("exchanges.migrations.0003_symbols_alike")
    constraint = next(one for one in ExchangeAsset._meta.constraints if one.name == migration.NAME)
    with connection.schema_editor() as editor:
        editor.remove_constraint(ExchangeAsset, constraint)
    for name in ("plain", "other"):
        ExchangeFeed.objects.create(**feed_row(name=name))
    category = {"category": "Major Currencies"}
    alike = (("AAA", "btc-usd", False), ("BTC", "BTC-USD", True), ("XBT", "Btc-usd", True))
    for asset, symbol, prewarm in alike:
        row = {"asset": asset, "symbol": symbol, "prewarm": prewarm, **category}
        ExchangeAsset.objects.create(exchange_id="plain", **row)
    ExchangeAsset.objects.create(asset="BTC", exchange_id="other", symbol="btc-usd", **category)
    migration.drop_symbols_alike(apps, None)
    left = set(ExchangeAsset.objects.values_list("asset", "exchange_id"))
    assert left == {("BTC", "plain"), ("BTC", "other")}
    gone = ExchangeAsset.history.filter(history_type="-")
    assert set(gone.values_list("asset", "symbol")) == {("AAA", "btc-usd"), ("XBT", "Btc-usd")}
    connection.check_constraints()  # or PostgreSQL would not make the index within this transaction
    with connection.schema_editor() as editor:
        editor.add_constraint(ExchangeAsset, constraint)
