"""Customers and keys for tests."""

from typing import Any

from billing.authors import Author, Door
from billing.models import Account, ApiKey
from billing.services import NewKey, account_for, create_key

AUTHOR = Author(Door.COMMAND)


def make_account(email: str = "ada@example.com", plan: str = "pro") -> Account:
    return account_for(email=email, plan=plan, author=AUTHOR)


def make_key(account: Account | None = None, **options: Any) -> NewKey:  # Any: keywords of create_key
    return create_key(**{"account": account or make_account(), "name": "bot", "author": AUTHOR, **options})


def fresh(key: ApiKey) -> ApiKey:
    return ApiKey.objects.get(pk=key.pk)
