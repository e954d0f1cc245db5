"""A row tried as this node would run it: with its simulator if it has one, and its rule about loopback."""

from collections.abc import Sequence

from django.conf import settings

from exchanges.feed.check import CheckReport, check_feed
from exchanges.feed.spec import FeedSpec


async def try_feed(spec: FeedSpec, symbols: Sequence[str], *, seconds: float) -> CheckReport:
    """Connect and subscribe apart from the running feed, listen, and report per symbol."""
    if settings.TRINITY_SIMULATOR_URL:
        spec = spec.simulated(settings.TRINITY_SIMULATOR_URL)
    allow_loopback = settings.TRINITY_ALLOW_LOOPBACK_EXCHANGES
    return await check_feed(spec, symbols, seconds=seconds, allow_loopback=allow_loopback)
