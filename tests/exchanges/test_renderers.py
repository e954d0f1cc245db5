import pytest

from exchanges.feed.status import FeedStatus
from exchanges.live import LiveFeed, LivePrice
from exchanges.models import ExchangeAsset
from exchanges.renderers import age_cell, count_text, feed_cell, last_tick_cell, price_cell, state_badge


def test_count_has_its_thousands_marked() -> None:
    assert count_text(1_234_567) == "1,234,567"


def test_cells_carry_what_the_live_page_finds_them_by() -> None:
    assert 'data-feed="plain" data-field="ticks"' in feed_cell("plain", "ticks", "7")
    row = ExchangeAsset(asset="BTC", exchange_id="plain")
    assert 'data-asset="BTC" data-exchange="plain" data-field="price"' in price_cell(row, None)


def test_what_an_exchange_said_is_escaped() -> None:
    feed = LiveFeed("refused", detail='<b>"no"</b>', status=FeedStatus(state="refused"))
    assert "<b>" not in state_badge("plain", feed)


@pytest.mark.parametrize(("fresh", "mark"), [(True, "tb-fresh"), (False, "tb-stale")])
def test_freshness_is_a_class(fresh: bool, mark: str) -> None:
    price = LivePrice("1", "plain-ws", 5, fresh)
    assert mark in age_cell(ExchangeAsset(asset="BTC", exchange_id="plain"), price)


@pytest.mark.parametrize(("age_ms", "carried"), [(5, 'data-age-ms="5"'), (None, 'data-age-ms=""')])
def test_age_is_carried_for_the_page_to_write(age_ms: int | None, carried: str) -> None:
    price = LivePrice("1", "plain-ws", age_ms, fresh=True) if age_ms else None
    assert carried in age_cell(ExchangeAsset(asset="BTC", exchange_id="plain"), price)
    assert carried in last_tick_cell("plain", age_ms)
