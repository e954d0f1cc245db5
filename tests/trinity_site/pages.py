"""What pages are made from in tests: a board in ordinary memory, a small catalogue, and the live part."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from exchanges.feed.status import FeedStatus
from pricing._board_writer import BoardWriter
from pricing.catalogue import AssetInfo, Catalogue, ExchangeInfo, ListingInfo, PublicView
from pricing.parameters import Parameters
from tests.exchanges.boards import make_board
from tests.telemetry.counted import CountedNode
from trinity_site.live import Live


def catalogue_of(*assets: str, disabled: str = "") -> Catalogue:
    """Return a catalogue in which two exchanges list every one of *assets*, at home on coinbase."""
    listings = tuple(ListingInfo(name, "X", enabled=True, prewarm=True) for name in ("coinbase", "kraken"))
    return Catalogue(
        {
            "coinbase": ExchangeInfo("coinbase", "Coinbase", "USD", enabled=disabled != "coinbase"),
            "kraken": ExchangeInfo("kraken", "Kraken", "USD", enabled=disabled != "kraken"),
        },
        {asset: AssetInfo(asset, "Major Currencies", "coinbase", listings) for asset in assets},
    )


def board_of(mono_ns: int) -> BoardWriter:
    return make_board(mono_ns, coinbase=FeedStatus(state="live"), kraken=FeedStatus(state="live"))


def runtime_of(board: BoardWriter, catalogue: Catalogue) -> Any:  # Any: stands for a Runtime
    """Return what requests find in their state."""
    view, parameters = PublicView(lambda: catalogue), Parameters()
    prices = SimpleNamespace(view=view, parameters=parameters)
    traffic, offers = CountedNode(Path("/nowhere")).traffic(), SimpleNamespace(rows=())
    live = Live(board, view, parameters, traffic)
    return SimpleNamespace(board=board, prices=prices, live=live, offers=offers, traffic=traffic)
