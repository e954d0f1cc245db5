import pytest

from billing.seeding import seed_plans


@pytest.fixture
def plans(db: None) -> None:
    seed_plans()
