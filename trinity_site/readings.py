"""What the pages show of the board, as rows of plain values. Sans-I/O: the clock is passed in.

A row holds no age but `at_ms`, when its trade was on the clock of `Clock.now_ms`: so it changes only when
something happens, and a page lets the age grow by itself.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from exchanges.feed.spec import CATEGORIES
from exchanges.live import Live, Place
from pricing.board import Board, ExchangeRow, PriceLike, choose
from pricing.catalogue import AssetInfo, Catalogue, PublicView
from pricing.health import since_ms
from pricing.parameters import MS, Parameters
from telemetry._counters import LATENCY_NAMES
from telemetry.rates import Rates

SHOWN_ASSETS = 12
LOOKED_FOR_FIRST = ("BTC", "ETH")
TRAIL_POINTS = 60

Row = dict[str, Any]  # Any: JSON values


class Clock:
    """Milliseconds since this object was made: pages need differences, and uptimes are nobody's affair."""

    def __init__(self, mono_ns: Callable[[], int]) -> None:
        self.mono_ns = mono_ns
        self._start_ns = mono_ns()

    def now_ms(self) -> int:
        return self.at_ms(self.mono_ns())

    def at_ms(self, mono_ns: int) -> int:
        return (mono_ns - self._start_ns) // MS


class PublicReading:
    """Prices of the shown assets, each with its trail of the last minute, and the state of every exchange."""

    def __init__(self, board: Board, view: PublicView, parameters: Parameters, clock: Clock) -> None:
        self._board = board
        self._view = view
        self._parameters = parameters
        self.clock = clock
        self.trails: dict[str, deque[str]] = {}

    def read(self) -> Mapping[str, Row]:
        """Return the rows `price/<asset>` and `exchange/<name>`, and let the trails grow by one point."""
        mono_ns = self.clock.mono_ns()
        prices = self.prices(mono_ns)
        self.trails = {asset: self.trails.get(asset) or deque(maxlen=TRAIL_POINTS) for asset in prices}
        for asset, row in prices.items():
            self.trails[asset].append(row["price"])
        rows = {f"price/{asset}": row for asset, row in prices.items()}
        exchanges = self.exchanges(mono_ns)
        rows |= {f"exchange/{name}": row for name, row in exchanges.items()}
        rows["headline"] = headline(exchanges.values())
        return rows

    def prices(self, mono_ns: int) -> dict[str, Row]:
        """Return the shown assets of which a price is known, however old it is."""
        catalogue = self._view.catalogue()
        exchanges = catalogue.exchanges
        rows: dict[str, Row] = {}
        for asset in shown_assets(catalogue):
            price = self._choose(asset, mono_ns)
            if price is not None:
                rows[asset] = {
                    "price": price.price,
                    "quote": price.quote,
                    "exchange": exchanges[price.exchange].display_name,
                    "source": price.source,
                    "at_ms": self.clock.at_ms(mono_ns - price.age_ns(mono_ns)),
                }
        return rows

    def exchanges(self, mono_ns: int) -> dict[str, Row]:
        """Return the enabled exchanges with the moment of their newest price, None before the first."""
        ticks = {row.name: row.last_tick_mono_ns for row in self._board.exchanges()}
        rows: dict[str, Row] = {}
        for name, info in self._view.catalogue().exchanges.items():
            then_ns = ticks.get(name, 0)
            state = state_of(since_ms(then_ns, mono_ns), self._parameters.price_ttl_ms)
            at_ms = self.clock.at_ms(then_ns) if then_ns else None
            rows[name] = {"name": info.display_name, "state": state, "at_ms": at_ms}
        return rows

    def _choose(self, asset: str, mono_ns: int) -> PriceLike | None:
        """Choose as /price does; where nothing is fresh, the least stale."""
        listed = self._view.exchanges_of(asset)
        prices = [price for price in self._board.all(asset) if price.exchange in listed]
        ttl_ns = self._parameters.price_ttl_ms * MS
        fresh = [price for price in prices if price.age_ns(mono_ns) <= ttl_ns]
        return choose(fresh, self._view.home_of(asset), mono_ns) or choose(prices, None, mono_ns)


def shown_assets(catalogue: Catalogue) -> list[str]:
    """Choose the assets of the home page: majors first, and of them those that most exchanges list."""

    def rank(row: AssetInfo) -> tuple[bool, bool, int, str]:
        return row.asset not in LOOKED_FOR_FIRST, row.category != CATEGORIES[0], -len(row.listings), row.asset

    return [row.asset for row in sorted(catalogue.assets.values(), key=rank)[:SHOWN_ASSETS]]


def state_of(age_ms: int | None, ttl_ms: int) -> str:
    """Name what an exchange's newest tick of that age means to a visitor."""
    if age_ms is None:
        return "silent"
    return "live" if age_ms <= ttl_ms else "delayed"


def headline(exchanges: Iterable[Row]) -> Row:
    """Say in one line how things are."""
    rows = list(exchanges)
    late = [row["name"] for row in rows if row["state"] != "live"]
    if len(late) == len(rows):
        return {"state": "silent", "text": "No live prices at the moment."}
    if late:
        return {"state": "delayed", "text": f"Prices are live; not from {', '.join(late)} at the moment."}
    return {"state": "live", "text": "All exchanges are live."}


def feed_rows(live: Live, exchanges: Iterable[ExchangeRow], clock: Clock) -> Mapping[str, Row]:
    """Return a row `feed/<name>` per feed, and under `node` whether the feed process reports."""
    last_ns = {row.name: row.last_tick_mono_ns for row in exchanges}
    rows: dict[str, Row] = {"node": {"reporting": live.reporting, "explanation": live.explanation}}
    for name, feed in live.feeds.items():
        then_ns = last_ns.get(name)
        rows[f"feed/{name}"] = {
            "state": feed.state,
            "detail": feed.detail,
            "at_ms": clock.at_ms(then_ns) if then_ns else None,
            "ticks": feed.ticks,
            "symbols": feed.status.symbols,
            "live": feed.status.live,
            "refused": len(feed.status.refused_symbols),
            "refused_ticks": feed.refused_ticks,
            "reconnects": feed.status.reconnects,
            "stuck": len(feed.status.stuck_assets),
            "troubles": feed.troubles,
        }
    return rows


class Figure(NamedTuple):
    """One figure of the command centre's first page; where there is no text it is an age, which grows."""

    key: str
    title: str
    text: str
    note: str
    age_ms: int | None = None


class Need(NamedTuple):
    """Something that needs a person, and the page where to begin."""

    state: str
    text: str
    link: str


def homes_of(catalogue: Catalogue) -> list[Place]:
    """Return each asset with the exchange that answers for it by default."""
    return [(name, row.home) for name, row in catalogue.assets.items() if row.home]


def figures(live: Live, catalogue: Catalogue) -> list[Figure]:
    """Sum up the feeds and the home prices that *live* holds."""
    feeds = [live.feed(name) for name in catalogue.exchanges]
    feeds_live = f"{sum(feed.is_live for feed in feeds)} / {len(feeds)}"
    fresh = f"{sum(price.fresh for price in live.prices.values())} / {len(homes_of(catalogue))}"
    rate = f"{sum(feed.status.ticks_per_s for feed in feeds):,.0f}" if live.reporting else "–"
    oldest = max(live.prices.items(), key=lambda item: item[1].age_ms, default=None)
    where = " at ".join(oldest[0]) if oldest else "no price yet"
    return [
        Figure("feeds_live", "Feeds live", feeds_live, "of those that are enabled"),
        Figure("assets_fresh", "Assets fresh", fresh, "at their home exchange"),
        Figure("ticks_per_s", "Ticks per second", rate, "written to the board"),
        Figure("oldest_home", "Oldest home price", "", where, oldest[1].age_ms if oldest else None),
    ]


def traffic_figures(lately: Rates, since_reset: Rates) -> list[Figure]:
    """Sum up what is answered now, and from where and what was lost since somebody reset the counts."""
    dropped = since_reset.counters["udp_packets_dropped"]
    reasons = [f"{loss.count:,} {name}" for name, loss in since_reset.drops.items() if loss.count]
    note = ", ".join(reasons) or "since the last reset"
    speeds = [_speed(protocol, lately) for protocol in LATENCY_NAMES]
    hits = {
        tier: "–" if share is None else f"{share:.3g} %" for tier, share in since_reset.hit_percent.items()
    }
    below = f"tier 2: {hits['tier2']}, neither: {hits['miss']}"
    tier1 = Figure("tier1_percent", "Prices from the board", hits["tier1"], below)
    return [*speeds, tier1, Figure("udp_dropped", "Datagrams dropped", f"{dropped:,}", note)]


def _speed(protocol: str, rates: Rates) -> Figure:
    per_s, p99_us = rates.answers_per_s[protocol], rates.latency_us[protocol].p99
    note = "no answer in the last seconds" if p99_us is None else f"99 % within {duration_text(p99_us)}"
    text = "–" if per_s is None else f"{per_s:,.1f}" if 0 < per_s < 10 else f"{per_s:,.0f}"
    return Figure(f"{protocol}_per_s", f"{protocol.upper()} answers per second", text, note)


def duration_text(us: float) -> str:
    """Write a duration to about three digits, with its unit."""
    for unit, size in (("s", 1_000_000), ("ms", 1_000), ("µs", 1)):
        if us >= size:
            return f"{us / size:.{0 if us >= 100 * size else 1}f} {unit}"
    return f"{us * 1_000:.0f} ns"


def figure_rows(figures: Iterable[Figure], clock: Clock) -> Mapping[str, Row]:
    """Return a row `figure/<key>` per figure."""
    now_ms = clock.now_ms()
    return {
        f"figure/{key}": {"text": text, "note": note, "at_ms": None if age_ms is None else now_ms - age_ms}
        for key, _, text, note, age_ms in figures
    }


def listing_rows(
    board: Board, listings: Iterable[tuple[str, str]], parameters: Parameters, clock: Clock
) -> Mapping[str, Row]:
    """Return a row `<asset>@<exchange>` per priced listing, and under `node` how long one is fresh."""
    mono_ns = clock.mono_ns()
    rows: dict[str, Row] = {"node": {"ttl_ms": parameters.price_ttl_ms}}
    for asset, exchange in listings:
        price = board.get(asset, exchange)
        if price is not None:
            at_ms = clock.at_ms(mono_ns - price.age_ns(mono_ns))
            rows[f"{asset}@{exchange}"] = {"price": price.price, "at_ms": at_ms}
    return rows
