"""What reports cost: one of the account's month each, counted in the database, so for all nodes alike."""

from __future__ import annotations

from typing import NamedTuple

from django.db import connection

from billing.models import Account, ReportCount

# One statement, so that no two of any number of nodes can take the last one both.
_TAKE = """
    INSERT INTO billing_report_count (account_id, month, count) VALUES (%s, %s, 1)
    ON CONFLICT (account_id, month) DO UPDATE SET count = billing_report_count.count + 1
    WHERE billing_report_count.count < %s
    RETURNING count
"""
_NO_CAP = 2**63 - 1


class Allowance(NamedTuple):
    """What an account has had of its reports in *month*; a *cap* of None is none."""

    month: int
    used: int
    cap: int | None

    @property
    def is_used_up(self) -> bool:
        return self.cap is not None and self.used >= self.cap


def look(*, account_id: int, month: int) -> Allowance:
    counted = ReportCount.objects.filter(account_id=account_id, month=month)
    return Allowance(month, counted.values_list("count", flat=True).first() or 0, _cap(account_id))


def take(*, account_id: int, month: int) -> tuple[bool, Allowance]:
    """Take one report, unless all have been had; say whether it was, and what is left then."""
    cap = _cap(account_id)
    if cap == 0:
        return False, Allowance(month, 0, cap)
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, (account_id, month, _NO_CAP if cap is None else cap))
        row = cursor.fetchone()
    if row is None:
        return False, look(account_id=account_id, month=month)
    return True, Allowance(month, row[0], cap)


def _cap(account_id: int) -> int | None:
    """Return how many reports an account may have in a month, None for any number. Raises DoesNotExist."""
    account = Account.objects.select_related("plan").only("report_addon", "plan__reports_per_month")
    return account.get(pk=account_id).reports_per_month
