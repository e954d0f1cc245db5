import pytest

from exchanges.feed.status import FeedStatus
from exchanges.live import SILENT, UNKNOWN, Live, read_live
from tests.exchanges.boards import NOW_NS, make_board, write_price

SECOND = 10**9


def test_price_is_shown_with_its_source_age_and_freshness() -> None:
    board = make_board(plain=FeedStatus(state="live"))
    write_price(board, "BTC", "plain", "67123.45")
    live = read_live(board, [("BTC", "plain"), ("ETH", "plain")], mono_ns=NOW_NS + 42_000_000)
    assert list(live.prices) == [("BTC", "plain")]
    price = live.prices["BTC", "plain"]
    assert (price.price, price.source, price.age_ms, price.fresh) == ("67123.45", "plain-ws", 42, True)


def test_price_older_than_the_ttl_is_not_fresh() -> None:
    board = make_board(plain=FeedStatus(state="live"))
    write_price(board, "BTC", "plain", "1")
    live = read_live(board, [("BTC", "plain")], mono_ns=NOW_NS + 14 * SECOND)
    assert not live.prices["BTC", "plain"].fresh


def test_feed_is_shown_as_it_reports() -> None:
    status = FeedStatus(state="backoff", detail="refused", ticks=7, reconnects=3)
    board = make_board(plain=status)
    write_price(board, "BTC", "plain", "1")
    feed = read_live(board, [], mono_ns=NOW_NS + 2 * SECOND).feed("plain")
    assert (feed.state, feed.detail, feed.ticks, feed.status.reconnects) == ("backoff", "refused", 7, 3)
    assert (feed.last_tick_age_ms, feed.is_live) == (2_000, False)


def test_feed_without_a_tick_has_no_last_one() -> None:
    live = read_live(make_board(plain=FeedStatus(state="live")), [], mono_ns=NOW_NS)
    assert live.feed("plain").last_tick_age_ms is None


def test_feed_that_is_not_reported_is_unknown() -> None:
    assert read_live(make_board(), [], mono_ns=NOW_NS).feed("plain").state == UNKNOWN


@pytest.mark.parametrize(("later_s", "state"), [(4, "live"), (6, SILENT)])
def test_feeds_of_a_process_that_stopped_beating_are_silent(later_s: int, state: str) -> None:
    board = make_board(plain=FeedStatus(state="live"))
    live = read_live(board, [], mono_ns=NOW_NS + later_s * SECOND)
    assert live.feed("plain").state == state
    assert live.reporting is (state == "live")
    assert bool(live.explanation) is (state == SILENT)


def test_without_a_board_nothing_is_known_and_it_is_said() -> None:
    assert "no price board" in Live().explanation
    assert Live().feed("plain").state == UNKNOWN
