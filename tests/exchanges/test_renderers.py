import pytest

from exchanges.feed.status import FeedStatus
from exchanges.live import LiveFeed, LivePrice
from exchanges.models import ExchangeAsset
from exchanges.renderers import age_text, asset_cell, count_text, feed_cell, state_badge


@pytest.mark.parametrize(
    ("age_ms", "text"),
    [
        (None, "–"),
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1 s"),
        (59_999, "59 s"),
        (60_000, "1 min"),
        (3_600_000, "1 h"),
        (86_400_000, "1 d"),
        (200_000_000, "2 d"),
    ],
)
def test_age_is_written_as_people_say_it(age_ms: int | None, text: str) -> None:
    assert age_text(age_ms) == text


def test_count_has_its_thousands_marked() -> None:
    assert count_text(1_234_567) == "1,234,567"


def test_cells_carry_what_the_live_page_finds_them_by() -> None:
    assert 'data-feed="plain" data-field="ticks"' in feed_cell("plain", "ticks", "7")
    row = ExchangeAsset(asset="BTC", exchange_id="plain")
    assert 'data-asset="BTC" data-exchange="plain" data-field="price"' in asset_cell(row, "price", "1", None)


def test_what_an_exchange_said_is_escaped() -> None:
    feed = LiveFeed("refused", detail='<b>"no"</b>', status=FeedStatus(state="refused"))
    assert "<b>" not in state_badge("plain", feed)


@pytest.mark.parametrize(("fresh", "mark"), [(True, "tb-fresh"), (False, "tb-stale")])
def test_freshness_is_a_class(fresh: bool, mark: str) -> None:
    price = LivePrice("1", "plain-ws", 5, fresh)
    assert mark in asset_cell(ExchangeAsset(asset="BTC", exchange_id="plain"), "age_ms", "5 ms", price)
