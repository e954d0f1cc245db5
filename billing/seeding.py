"""The plans that the project comes with.

A plan belongs to the seed for as long as nobody else has changed it: then a newer seed improves it.
"""

from typing import Any

from django.db import transaction

from billing.authors import Author, Door
from billing.models import Plan
from billing.services import PLAN_COLUMNS, plan_columns, save_plan

AUTHOR = Author(Door.SEED)
# price, requests per month, per second, burst, reports per month, partner
PLANS: dict[str, tuple[str, int | None, int | None, int | None, int | None, bool]] = {
    "free": ("$0", 1_000, 1, 5, 10, False),
    "pro": ("$30/month", 50_000, 10, 20, 10, False),
    "enterprise": ("$100/month", 500_000, 50, 100, 10, False),
    "unlimited": ("$300/month", None, 100, 200, None, False),
    "lifetime": ("$3,000 once", None, 100, 200, None, False),
    "partner": ("free", None, None, None, None, True),
}


@transaction.atomic
def seed_plans() -> int:
    """Create or improve the seed's plans; return how many."""
    due = [name for name in PLANS if _is_due(name)]
    for name in due:
        save_plan(name=name, columns=_columns(name), author=AUTHOR)
    return len(due)


def _columns(name: str) -> dict[str, Any]:  # Any: column values
    price, *limits, partner = PLANS[name]
    values = (name.capitalize(), price, *limits, partner, list(PLANS).index(name))
    return dict(zip(PLAN_COLUMNS, values, strict=True))


def _is_due(name: str) -> bool:
    if Plan.history.filter(name=name).exclude(history_change_reason=Door.SEED.value).exists():
        return False
    plan = Plan.objects.filter(name=name).first()
    return plan is None or plan_columns(plan) != _columns(name)
