"""What the gate's writer reads: keys with the limits of their plans, all of them or those that changed."""

from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Q

from billing.models import ApiKey, Installation, KeyRevision

PAGE = 2_000  # rows of one query: they fit in memory


class KeyRow(NamedTuple):
    """A key as the gate needs it; None is no limit, and no end."""

    key_id: int
    digest: bytes
    account_id: int
    plan_id: int
    revoked: bool
    """Revoked, or its user is not active."""
    revoked_s: int | None
    partner: bool
    scope_prices: bool
    scope_reports: bool
    networks: tuple[str, ...]
    shares_month: bool
    """Its cap is its account's: a customer's keys together. Keys that nobody signs in for have their own."""
    requests_per_second: int | None
    burst: int | None
    requests_per_month: int | None
    expires_s: int | None
    revision: int


_COLUMNS = (
    "id",
    "digest",
    "account_id",
    "account__plan_id",
    "revoked_at",
    "account__user__is_active",
    "account__plan__partner",
    "scope_prices",
    "scope_reports",
    "networks",
    "account__user__email",
    "account__plan__requests_per_second",
    "account__plan__burst",
    "account__plan__requests_per_month",
    "expires_at",
    "revision",
)


def key_revision() -> int:
    """Return the number that rises with every change of a key; 0 before the first. Read it first."""
    return KeyRevision.objects.filter(pk=1).values_list("number", flat=True).first() or 0


def installation() -> str:
    """Return the name that this database has and no other; it gets one when first asked."""
    return Installation.objects.get_or_create(pk=1)[0].name


def key_page(*, after: int = 0, last: KeyRow | None = None, size: int = PAGE) -> list[KeyRow]:
    """Return the keys whose last change has a number above *after*, by that number, page by page.

    *last* is the last row of the page before. Each page is a query of its own, so that connections may change
    between two of them. What is changed meanwhile has a higher number: it comes on a later page.
    """
    rows = ApiKey.objects.filter(revision__gt=after)
    if last is not None:
        beyond = Q(revision=last.revision, id__gt=last.key_id) | Q(revision__gt=last.revision)
        rows = ApiKey.objects.filter(beyond)
    return [_key_row(row) for row in rows.order_by("revision", "id").values_list(*_COLUMNS)[:size]]


def _key_row(row: tuple[Any, ...]) -> KeyRow:  # Any: column values
    key_id, digest, account_id, plan_id, revoked_at, is_active, partner, prices, reports, networks = row[:10]
    email, rate, burst, cap, expires_at, revision = row[10:]
    return KeyRow(
        key_id=key_id,
        digest=bytes(digest),
        account_id=account_id,
        plan_id=plan_id,
        revoked=revoked_at is not None or not is_active,
        revoked_s=_seconds(revoked_at),
        partner=partner,
        scope_prices=prices,
        scope_reports=reports,
        networks=tuple(networks),
        shares_month=email != "",
        requests_per_second=rate,
        burst=burst,
        requests_per_month=cap,
        expires_s=_seconds(expires_at),
        revision=revision,
    )


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
