from __future__ import annotations

import threading

import pytest
from django.db import connections

from billing.models import Account, Plan, ReportCount
from billing.ratelimit import report_fields
from billing.reports import Allowance, look, take
from billing.services import change_account
from tests.billing.customers import AUTHOR, make_account

MONTH = 202611


@pytest.mark.usefixtures("plans")
def test_reports_are_counted_up_to_the_cap_of_the_plan() -> None:
    account = make_account()
    assert look(account_id=account.pk, month=MONTH) == Allowance(MONTH, 0, 10)
    for number in range(1, 11):
        assert take(account_id=account.pk, month=MONTH) == (True, Allowance(MONTH, number, 10))
    assert take(account_id=account.pk, month=MONTH) == (False, Allowance(MONTH, 10, 10))
    assert look(account_id=account.pk, month=MONTH).is_used_up
    assert ReportCount.objects.get().count == 10


@pytest.mark.usefixtures("plans")
def test_next_month_begins_anew_and_accounts_are_apart() -> None:
    one, other = make_account(), make_account("bob@example.com")
    for _ in range(10):
        take(account_id=one.pk, month=MONTH)
    assert take(account_id=one.pk, month=202612) == (True, Allowance(202612, 1, 10))
    assert take(account_id=other.pk, month=MONTH) == (True, Allowance(MONTH, 1, 10))


@pytest.mark.usefixtures("plans")
@pytest.mark.parametrize("plan", ["unlimited", "lifetime", "partner"])
def test_plans_without_a_cap_are_counted_and_not_limited(plan: str) -> None:
    account = make_account(plan=plan)
    for number in range(1, 13):
        assert take(account_id=account.pk, month=MONTH) == (True, Allowance(MONTH, number, None))
    assert not look(account_id=account.pk, month=MONTH).is_used_up


@pytest.mark.usefixtures("plans")
def test_add_on_takes_the_cap_away_at_once() -> None:
    account = make_account()
    for _ in range(10):
        take(account_id=account.pk, month=MONTH)
    change_account(account=account, plan=account.plan, report_addon=True, author=AUTHOR)
    assert take(account_id=account.pk, month=MONTH) == (True, Allowance(MONTH, 11, None))
    change_account(account=account, plan=account.plan, report_addon=False, author=AUTHOR)
    assert take(account_id=account.pk, month=MONTH) == (False, Allowance(MONTH, 11, 10))


@pytest.mark.usefixtures("plans")
def test_plan_with_no_reports_at_all_gives_none() -> None:
    account = make_account()
    Plan.objects.filter(pk=account.plan_id).update(reports_per_month=0)
    assert take(account_id=account.pk, month=MONTH) == (False, Allowance(MONTH, 0, 0))
    assert not ReportCount.objects.exists()


@pytest.mark.django_db
def test_account_that_does_not_exist_has_none() -> None:
    with pytest.raises(Account.DoesNotExist):
        take(account_id=4_711, month=MONTH)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("plans")
def test_no_two_take_the_last_one_both() -> None:
    account, begin = make_account(), threading.Barrier(8)
    taken: list[bool] = []

    def ask() -> None:
        begin.wait()
        for _ in range(3):
            taken.append(take(account_id=account.pk, month=MONTH)[0])
        connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), sum(taken)) == (24, 10)
    assert ReportCount.objects.get().count == 10


def test_fields_tell_what_is_left_and_until_when() -> None:
    fields = report_fields(used=3, cap=10, month=MONTH, left_s=600)
    assert fields == ('"reports";q=10;w=2592000', '"reports";r=7;t=600')
    assert report_fields(used=11, cap=10, month=MONTH, left_s=0)[1] == '"reports";r=0;t=1'
