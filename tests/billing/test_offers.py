"""The price list of the public page."""

import asyncio

import pytest
from django.db import DatabaseError

from billing import offers
from billing.authors import Author, Door
from billing.models import Plan
from billing.offers import Offer, Offers, load_offers
from billing.seeding import seed_plans
from billing.services import plan_columns, save_plan


@pytest.mark.django_db
def test_plans_are_told_in_their_order_without_those_of_partners() -> None:
    seed_plans()
    rows = load_offers()
    assert [row.title for row in rows] == ["Free", "Pro", "Enterprise", "Unlimited", "Lifetime"]
    assert rows[1] == Offer("Pro", "$30/month", 50_000, 10, 20)
    assert rows[4] == Offer("Lifetime", "$3,000 once", None, 100, 200)


@pytest.mark.django_db
def test_changed_plan_is_told() -> None:
    seed_plans()
    columns = plan_columns(Plan.objects.get(name="pro")) | {"price": "$31/month"}
    save_plan(name="pro", columns=columns, author=Author(Door.COMMAND))
    assert load_offers()[1].price == "$31/month"


async def test_plans_are_read_again_and_stay_when_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pro = Offer("Pro", "$30/month", 50_000, 10, 20)
    answers: list[tuple[Offer, ...] | Exception] = [(), DatabaseError("away"), (pro,), DatabaseError("away")]
    read = asyncio.Event()

    def load() -> tuple[Offer, ...]:
        if len(answers) == 1:
            loop.call_soon_threadsafe(read.set)
            raise DatabaseError("still away")
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(offers, "load_offers", load)
    monkeypatch.setattr(offers, "READ_EVERY_S", 0.0)
    monkeypatch.setattr(offers, "from_asyncio", lambda ask: lambda: asyncio.to_thread(ask))
    price_list = Offers()
    task = asyncio.create_task(price_list.run())
    await asyncio.wait_for(read.wait(), 10)
    task.cancel()
    await asyncio.wait([task])
    assert price_list.rows == (pro,)
