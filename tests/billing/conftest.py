import pytest
from django.test import Client

from billing.models import Account
from billing.seeding import seed_plans
from tests.billing.customers import make_account


@pytest.fixture
def plans(db: None) -> None:
    seed_plans()


@pytest.fixture
def account(db: None, plans: None) -> Account:
    return make_account()


@pytest.fixture
def customer(account: Account) -> Client:
    """The browser of the one who has *account*, signed in."""
    client = Client()
    client.force_login(account.user)
    return client
