"""What pages are shown: the prices that /price would answer, their true ages, and how the exchanges are."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchanges.feed.status import FeedStatus, RefusedTick
from exchanges.live import read_live
from pricing._board_writer import BoardWriter
from pricing.catalogue import AssetInfo, Catalogue, ListingInfo, PublicView
from pricing.parameters import Parameters
from telemetry._counters import (
    CACHE_MISSES,
    DROPPED_EMPTY,
    DROPPED_KERNEL,
    HTTP_LATENCY,
    SYNCMAP_HITS,
    UDP_LATENCY,
)
from tests.exchanges.boards import NOW_NS, WALL_NS, make_board, write_price
from tests.telemetry.counted import CountedNode
from tests.trinity_site.pages import board_of, catalogue_of
from trinity_site.readings import (
    SHOWN_ASSETS,
    TRAIL_POINTS,
    Clock,
    Figure,
    PublicReading,
    duration_text,
    feed_rows,
    figure_rows,
    figures,
    headline,
    homes_of,
    listing_rows,
    shown_assets,
    state_of,
    traffic_figures,
)

SECOND_NS = 1_000_000_000
LISTING = ListingInfo("x", "X", enabled=True, prewarm=True)


class Time:
    """CLOCK_MONOTONIC as the test sets it."""

    def __init__(self) -> None:
        self.ns = NOW_NS

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def now() -> Time:
    return Time()


@pytest.fixture
def board() -> BoardWriter:
    return board_of(NOW_NS)


def reading_of(board: BoardWriter, now: Time, catalogue: Catalogue | None = None) -> PublicReading:
    shown = catalogue or catalogue_of("BTC", "ETH")
    return PublicReading(board, PublicView(lambda: shown), Parameters(), Clock(now))


def test_home_exchange_is_shown_while_it_is_fresh(board: BoardWriter, now: Time) -> None:
    write_price(board, "BTC", "coinbase", "1.10", mono_ns=NOW_NS - 12 * SECOND_NS)
    write_price(board, "BTC", "kraken", "1.20")
    row = reading_of(board, now).read()["price/BTC"]
    assert row == {
        "price": "1.10",
        "quote": "USD",
        "exchange": "Coinbase",
        "source": "coinbase-ws",
        "at_ms": -12_000,
    }


def test_freshest_exchange_is_shown_when_the_home_is_stale(board: BoardWriter, now: Time) -> None:
    write_price(board, "BTC", "coinbase", "1.10", mono_ns=NOW_NS - 14 * SECOND_NS)
    write_price(board, "BTC", "kraken", "1.20", mono_ns=NOW_NS - 2 * SECOND_NS)
    row = reading_of(board, now).read()["price/BTC"]
    assert (row["price"], row["at_ms"]) == ("1.20", -2_000)


def test_freshest_exchange_is_shown_where_an_asset_has_no_home(board: BoardWriter, now: Time) -> None:
    write_price(board, "BTC", "coinbase", "1.10", mono_ns=NOW_NS - 12 * SECOND_NS)
    write_price(board, "BTC", "kraken", "1.20")
    catalogue = catalogue_of("BTC")
    homeless = msgspec.structs.replace(catalogue.assets["BTC"], home=None)
    row = reading_of(board, now, Catalogue(catalogue.exchanges, {"BTC": homeless})).read()["price/BTC"]
    assert (row["price"], row["exchange"]) == ("1.20", "Kraken")


def test_stale_price_is_shown_with_its_true_age(board: BoardWriter, now: Time) -> None:
    write_price(board, "BTC", "coinbase", "1.10", mono_ns=NOW_NS - 3600 * SECOND_NS)
    assert reading_of(board, now).read()["price/BTC"]["at_ms"] == -3_600_000


def test_price_of_an_exchange_that_is_taken_out_is_not_shown(board: BoardWriter, now: Time) -> None:
    write_price(board, "BTC", "kraken", "1.20")
    rows = reading_of(board, now, catalogue_of("BTC", disabled="kraken")).read()
    assert "price/BTC" not in rows
    assert "exchange/kraken" not in rows


def catalogue_by_category(**assets: tuple[str, int]) -> Catalogue:
    return Catalogue(
        {},
        {
            name: AssetInfo(name, category, None, (LISTING,) * count)
            for name, (category, count) in assets.items()
        },
    )


def test_majors_come_first_and_of_them_what_most_exchanges_list() -> None:
    majors = {"SOL": ("Major Currencies", 6), "ADA": ("Major Currencies", 5), "BTC": ("Major Currencies", 5)}
    catalogue = catalogue_by_category(AAVE=("DeFi", 6), **majors)
    assert shown_assets(catalogue) == ["BTC", "SOL", "ADA", "AAVE"]


def test_what_is_listed_is_shown_whatever_it_is_called() -> None:
    catalogue = catalogue_by_category(**{f"X{number}": ("Meme Coins", 1) for number in range(20)})
    assert len(shown_assets(catalogue)) == SHOWN_ASSETS


def test_row_stays_the_same_while_nothing_happens(board: BoardWriter, now: Time) -> None:
    write_price(board, "BTC", "coinbase", "1.10")
    reading = reading_of(board, now)
    before = reading.read()["price/BTC"]
    now.ns += 5 * SECOND_NS + 123_456
    assert reading.read()["price/BTC"] == before


def test_trail_keeps_the_last_minute(board: BoardWriter, now: Time) -> None:
    reading = reading_of(board, now)
    for number in range(TRAIL_POINTS + 5):
        write_price(board, "BTC", "coinbase", str(number))
        reading.read()
    trail = list(reading.trails["BTC"])
    assert (len(trail), trail[0], trail[-1]) == (TRAIL_POINTS, "5", "64")
    assert "ETH" not in reading.trails  # without a price there is no point


def test_exchange_is_delayed_when_its_newest_price_is_not_fresh(board: BoardWriter, now: Time) -> None:
    write_price(board, "BTC", "coinbase", "1", mono_ns=NOW_NS - 14 * SECOND_NS)
    write_price(board, "BTC", "kraken", "1")
    rows = reading_of(board, now).read()
    assert rows["exchange/coinbase"] == {"name": "Coinbase", "state": "delayed", "at_ms": -14_000}
    assert rows["exchange/kraken"]["state"] == "live"
    assert rows["headline"] == {
        "state": "delayed",
        "text": "Prices are live; not from Coinbase at the moment.",
    }


@pytest.mark.parametrize(
    ("age_ms", "state"), [(None, "silent"), (0, "live"), (13_000, "live"), (13_001, "delayed")]
)
def test_state_follows_the_age_of_the_newest_price(age_ms: int | None, state: str) -> None:
    assert state_of(age_ms, 13_000) == state


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ([], "silent"),
        (["silent", "delayed"], "silent"),
        (["live", "live"], "live"),
        (["live", "silent"], "delayed"),
    ],
)
def test_headline_over_all_exchanges(states: list[str], state: str) -> None:
    assert headline([{"name": "X", "state": one} for one in states])["state"] == state


def feed_rows_of(board: BoardWriter, now: Time) -> Any:  # Any: rows of JSON values
    live = read_live(board, (), mono_ns=now.ns, parameters=Parameters())
    return feed_rows(live, board.exchanges(), Clock(now))


def test_feed_row_tells_what_the_feed_process_reports(now: Time) -> None:
    status = FeedStatus(
        state="quiet", detail="no trades", ticks=5, symbols=3, live=2, reconnects=1,
        recent_refusals=[RefusedTick(WALL_NS, "X", "future", ""), RefusedTick(WALL_NS, "X", "older", "")],
        refused_symbols={"X": "no"}, refusals={"future": 2, "older": 3}, stuck_assets=["BTC"],
    )  # fmt: skip
    board = make_board(NOW_NS, kraken=status)
    write_price(board, "BTC", "kraken", "1", mono_ns=NOW_NS - SECOND_NS)
    rows = feed_rows_of(board, now)
    assert rows["node"]["reporting"] is True
    assert rows["feed/kraken"] == {
        "state": "quiet", "detail": "no trades", "at_ms": -1_000, "ticks": 5, "symbols": 3, "live": 2,
        "refused": 1, "refused_ticks": 5, "reconnects": 1, "stuck": 1, "troubles": ["future"],
    }  # fmt: skip


def test_last_words_of_a_dead_feed_process_are_not_shown_as_the_state(now: Time) -> None:
    board = make_board(NOW_NS, kraken=FeedStatus(state="live"))
    now.ns += 6 * SECOND_NS
    rows = feed_rows_of(board, now)
    assert (rows["feed/kraken"]["state"], rows["node"]["reporting"]) == ("silent", False)


def test_listing_rows_hold_the_asked_listings_that_have_a_price(board: BoardWriter, now: Time) -> None:
    write_price(board, "BTC", "kraken", "1.50")
    asked = [("BTC", "kraken"), ("ETH", "kraken"), ("BTC", "nowhere")]
    assert listing_rows(board, asked, Parameters(), Clock(now)) == {
        "node": {"ttl_ms": 13_000},
        "BTC@kraken": {"price": "1.50", "at_ms": 0},
    }


def figures_of(board: BoardWriter, now: Time, catalogue: Catalogue) -> Any:  # Any: rows of JSON values
    live = read_live(board, homes_of(catalogue), mono_ns=now.ns, parameters=Parameters())
    return figure_rows(figures(live, catalogue), Clock(now))


def test_figures_sum_up_feeds_and_home_prices(now: Time) -> None:
    live = FeedStatus(state="live", ticks_per_s=1_200.4)
    board = make_board(NOW_NS, coinbase=live, kraken=FeedStatus(state="backoff", ticks_per_s=30.0))
    write_price(board, "BTC", "coinbase", "1")
    write_price(board, "ETH", "coinbase", "1", mono_ns=NOW_NS - 60 * SECOND_NS)
    write_price(board, "ETH", "kraken", "1", mono_ns=NOW_NS - 90 * SECOND_NS)  # not its home
    rows = figures_of(board, now, catalogue_of("BTC", "ETH", "SOL"))
    assert {name: row["text"] for name, row in rows.items()} == {
        "figure/feeds_live": "1 / 2",
        "figure/assets_fresh": "1 / 3",
        "figure/ticks_per_s": "1,230",
        "figure/oldest_home": "",
    }
    assert (rows["figure/oldest_home"]["note"], rows["figure/oldest_home"]["at_ms"]) == (
        "ETH at coinbase",
        -60_000,
    )


def test_figures_do_not_tell_the_rate_of_a_dead_feed_process(now: Time) -> None:
    board = make_board(NOW_NS, coinbase=FeedStatus(state="live", ticks_per_s=9.0))
    now.ns += 6 * SECOND_NS
    rows = figures_of(board, now, catalogue_of("BTC"))
    assert (rows["figure/ticks_per_s"]["text"], rows["figure/feeds_live"]["text"]) == ("–", "0 / 2")
    assert rows["figure/oldest_home"] == {"text": "", "note": "no price yet", "at_ms": None}


def traffic_of(node: CountedNode, seconds: float) -> dict[str, Figure]:
    """Give 18 answers over HTTP and 25,000 over UDP, and tell of them after so many seconds."""
    traffic = node.traffic()
    traffic.look()
    node.forward(seconds)
    row = node.worker()
    row.latency(HTTP_LATENCY, 30_000, 18)
    row.latency(UDP_LATENCY, 2_000_000, 25_000)
    since_reset, _ = traffic.since_reset()
    return {figure.key: figure for figure in traffic_figures(traffic.lately(), since_reset)}


def test_traffic_is_told_by_protocol_with_what_99_percent_were_within(tmp_path: Path) -> None:
    figures = traffic_of(CountedNode(tmp_path), 5)
    http, udp = figures["http_per_s"], figures["udp_per_s"]
    assert (http.title, http.text, http.note) == ("HTTP answers per second", "3.6", "99 % within 30.7 µs")
    assert (udp.text, udp.note) == ("5,000", "99 % within 2.1 ms")


def test_share_of_the_board_is_told_with_those_of_the_others(tmp_path: Path) -> None:
    node = CountedNode(tmp_path)
    assert traffic_of(node, 1)["tier1_percent"][2:4] == ("–", "tier 2: –, neither: –")
    node.worker().add(SYNCMAP_HITS, 9_991)
    node.worker().add(CACHE_MISSES, 9)
    assert traffic_of(node, 1)["tier1_percent"][2:4] == ("99.9 %", "tier 2: 0 %, neither: 0.09 %")


def test_drops_are_told_by_reason_where_there_are_any(tmp_path: Path) -> None:
    node = CountedNode(tmp_path)
    assert traffic_of(node, 1)["udp_dropped"][2:4] == ("0", "since the last reset")
    node.worker().drop(DROPPED_KERNEL, 2_000)
    node.worker().drop(DROPPED_EMPTY)
    assert traffic_of(node, 1)["udp_dropped"][2:4] == ("2,001", "2,000 kernel, 1 empty")
    node.traffic().reset()
    assert traffic_of(node, 1)["udp_dropped"].text == "0"


def test_traffic_of_a_process_that_has_just_started_is_not_known_yet(tmp_path: Path) -> None:
    traffic = CountedNode(tmp_path).traffic()
    speed, *_ = traffic_figures(traffic.lately(), traffic.since_reset()[0])
    assert (speed.text, speed.note) == ("–", "no answer in the last seconds")


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0.144, "144 ns"),
        (1.0, "1.0 µs"),
        (30.72, "30.7 µs"),
        (999.9, "1000 µs"),
        (2_097.152, "2.1 ms"),
        (34_359_738.368, "34.4 s"),
    ],
)
def test_duration_is_written_with_its_unit(us: float, text: str) -> None:
    assert duration_text(us) == text
