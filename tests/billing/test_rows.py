"""What the gate's writer reads."""

from datetime import UTC, datetime

import pytest
from pytest_django import DjangoAssertNumQueries

from billing import keys
from billing.models import Account, Installation
from billing.rows import KeyRow, installation, key_page, key_revision
from billing.services import revoke_key, rotate_key, save_plan, user_changed
from tests.billing.customers import AUTHOR, make_account, make_key

pytestmark = pytest.mark.usefixtures("plans")


def test_row_has_all_that_the_gate_needs() -> None:
    end = datetime(2031, 1, 1, tzinfo=UTC)
    made = make_key(scopes=["prices"], networks=["192.0.2.0/24", "::1"], expires_at=end)
    account = Account.objects.get()
    assert key_page() == [
        KeyRow(
            key_id=made.key.pk,
            digest=keys.digest(made.text),
            account_id=account.pk,
            plan_id=account.plan_id,
            revoked=False,
            revoked_s=None,
            partner=False,
            scope_prices=True,
            scope_reports=False,
            networks=("192.0.2.0/24", "::1/128"),
            shares_month=True,
            requests_per_second=10,
            burst=20,
            requests_per_month=50_000,
            expires_s=int(end.timestamp()),
            revision=made.key.revision,
        )
    ]


def test_row_of_a_partner_has_no_limits() -> None:
    make_key(make_account(plan="partner"))
    (row,) = key_page()
    assert (row.partner, row.requests_per_second, row.burst, row.requests_per_month) == (
        True,
        None,
        None,
        None,
    )


def test_key_of_the_node_itself_has_a_month_of_its_own() -> None:
    make_key(make_account("this-node-pro"))
    (row,) = key_page()
    assert not row.shares_month


def test_only_what_changed_is_read_again() -> None:
    one, other = make_key().key, make_key().key
    seen = key_revision()
    assert key_page(after=seen) == []
    revoke_key(key=one, author=AUTHOR)
    assert [(row.key_id, row.revoked) for row in key_page(after=seen)] == [(one.pk, True)]
    rotate_key(key=other, author=AUTHOR)
    assert {row.key_id for row in key_page(after=seen)} >= {one.pk, other.pk}
    assert [row.revision for row in key_page()] == sorted(row.revision for row in key_page())


def test_changed_plan_is_read_with_its_keys() -> None:
    make_key()
    seen = key_revision()
    save_plan(name="pro", columns={"requests_per_month": None}, author=AUTHOR)
    assert [row.requests_per_month for row in key_page(after=seen)] == [None]


def test_key_of_an_inactive_user_counts_as_revoked() -> None:
    user = make_key().key.account.user
    user.is_active = False
    user.save()
    user_changed(user=user)
    (row,) = key_page()
    assert row.revoked


def test_revision_before_the_first_key_is_0_or_the_seed_s() -> None:
    assert key_revision() == 6  # one for each plan


def test_database_has_a_name_that_no_other_has() -> None:
    name = installation()
    assert installation() == name
    Installation.objects.all().delete()
    assert installation() != name


def test_rows_are_one_query(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    account = make_account()
    for _ in range(5):
        make_key(account)
    with django_assert_num_queries(1):
        assert len(key_page()) == 5
