"""The plans that anybody can choose, as the public page tells them: read now and then, never for a page."""

from __future__ import annotations

from typing import NamedTuple

from billing.connections import from_asyncio
from billing.models import Plan
from telemetry.running import repeat

READ_EVERY_S = 5.0


class Offer(NamedTuple):
    """A plan in the words of a price list; a limit of None is no limit."""

    title: str
    price: str
    requests_per_month: int | None
    requests_per_second: int | None
    burst: int | None


class Offers:
    """The price list as this process knows it; none until it was read once."""

    def __init__(self) -> None:
        self.rows: tuple[Offer, ...] = ()

    async def run(self) -> None:
        """Follow until cancelled. What was read before the database died stays on the page."""
        await repeat(self.refresh, READ_EVERY_S, "Reading the plans")

    async def refresh(self) -> None:
        self.rows = await from_asyncio(load_offers)()


def load_offers() -> tuple[Offer, ...]:
    """Return the plans in their order, without those that are agreed upon with partners."""
    rows = Plan.objects.filter(partner=False).values_list(*Offer._fields)
    return tuple(Offer._make(row) for row in rows)
