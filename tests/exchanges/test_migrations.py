"""Rows that an earlier version stored are ones that this version can use."""

from importlib import import_module

import pytest
from django.apps import apps

from exchanges.models import ExchangeFeed
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
