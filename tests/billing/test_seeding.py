import pytest

from billing.models import Plan
from billing.seeding import PLANS, seed_plans
from billing.services import save_plan
from tests.billing.customers import AUTHOR

pytestmark = pytest.mark.django_db


def test_seed_has_the_plans_of_the_design() -> None:
    assert seed_plans() == 6
    columns = (
        "name",
        "price",
        "requests_per_month",
        "requests_per_second",
        "burst",
        "reports_per_month",
        "partner",
    )
    assert list(Plan.objects.values_list(*columns)) == [
        ("free", "$0", 1_000, 1, 5, 10, False),
        ("pro", "$30/month", 50_000, 10, 20, 10, False),
        ("enterprise", "$100/month", 500_000, 50, 100, 10, False),
        ("unlimited", "$300/month", None, 100, 200, None, False),
        ("lifetime", "$3,000 once", None, 100, 200, None, False),
        ("partner", "free", None, None, None, None, True),
    ]


def test_second_seed_changes_nothing() -> None:
    seed_plans()
    assert seed_plans() == 0
    assert Plan.history.count() == len(PLANS)


def test_change_of_an_operator_outlives_the_seed() -> None:
    seed_plans()
    save_plan(name="pro", columns={"price": "$40/month"}, author=AUTHOR)
    save_plan(name="free", columns={"burst": 9}, author=AUTHOR)
    save_plan(name="free", columns={"burst": 5}, author=AUTHOR)
    assert seed_plans() == 0
    assert Plan.objects.get(name="pro").price == "$40/month"


def test_newer_seed_improves_what_nobody_has_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    seed_plans()
    monkeypatch.setitem(PLANS, "pro", ("$35/month", 60_000, 10, 20, 10, False))
    assert seed_plans() == 1
    assert Plan.objects.get(name="pro").requests_per_month == 60_000
