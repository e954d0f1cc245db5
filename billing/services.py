"""What may be done to plans, accounts and keys: command centre, account pages, commands and seed call these.

Every change of a key, or of what its limits come from, is one transaction that first raises the key revision:
its row is thereby locked, so that changes are committed in the order of their numbers, and readers miss none.
Once it is committed all nodes are told, where there is a Valkey or Redis to tell them by.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F
from django.utils import timezone

from billing import keys
from billing.authors import Author, Door
from billing.exceptions import (
    AccountOnOtherPlan,
    KeyNotFound,
    KeyNotLive,
    KeyRefused,
    PlanNotFound,
    PlanRefused,
)
from billing.models import DEFAULT_PLAN, SCOPES, Account, ApiKey, KeyQuerySet, KeyRevision, Plan
from billing.networks import NetworkError, parse_networks

if TYPE_CHECKING:
    from billing.sharing import Announcer

OVERLAP_H = 24
MOST_OVERLAP_H = 30 * 24
MOST_LIVE_KEYS = 20  # that customers make themselves, the ones in a rotation's overlap included
MOST_KEYS_A_DAY = 60  # and those that were revoked at once
PLAN_COLUMNS = (
    "title",
    "price",
    "requests_per_month",
    "requests_per_second",
    "burst",
    "reports_per_month",
    "partner",
    "position",
)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key with its text, which is told once and kept nowhere. Pass it whole: error pages show variables."""

    key: ApiKey
    text: str = field(repr=False)


# Plans


@transaction.atomic
def save_plan(*, name: str, columns: Mapping[str, Any], author: Author) -> Plan:  # Any: column values
    """Create or change the plan *name*; its keys have the new limits at once. What is left out stays."""
    number = _raise_revision()
    plan = Plan.objects.filter(name=name).first() or Plan(name=name)
    before = plan_columns(plan) if plan.pk else None
    for column in PLAN_COLUMNS:
        setattr(plan, column, columns.get(column, getattr(plan, column)))
    _validate(plan, PlanRefused)
    if plan_columns(plan) != before:
        _save(plan, author)
        ApiKey.objects.filter(account__plan=plan).update(revision=number)
    return plan


def plan_columns(plan: Plan) -> dict[str, Any]:  # Any: column values
    return {column: getattr(plan, column) for column in PLAN_COLUMNS}


def get_plan(name: str) -> Plan:
    plan = Plan.objects.filter(name=name).first()
    if plan is None:
        raise PlanNotFound(name)
    return plan


# Accounts


@transaction.atomic
def open_account(*, user: User) -> Account:
    """Return the account of *user*, opened on the free plan the first time."""
    account = Account.objects.select_related("plan", "user").filter(user=user).first()
    if account is None:
        account = Account(user=user, plan=get_plan(DEFAULT_PLAN))
        _save(account, Author(Door.ACCOUNT, user))
    return account


@transaction.atomic
def account_for(*, email: str, plan: str, author: Author, change_plan: bool = False) -> Account:
    """Return the account of *email* on *plan*, with a user that is made where there is none.

    AccountOnOtherPlan when it has another one, unless *change_plan*.
    """
    wanted = get_plan(plan)
    account = Account.objects.select_related("plan", "user").filter(user__username=email).first()
    if account is None:
        user = User.objects.filter(username=email).first() or _make_user(email)
        account = Account(user=user, plan=wanted)
        _save(account, author)
    elif account.plan_id != wanted.pk:
        if not change_plan:
            raise AccountOnOtherPlan(email, account.plan.name)
        change_account(account=account, plan=wanted, report_addon=account.report_addon, author=author)
    return account


def _make_user(email: str) -> User:
    """Make a user who signs in by codes sent to *email*; a name without an @ is one that never signs in."""
    user = User(username=email, email=email if "@" in email else "")
    user.set_unusable_password()
    _validate(user, KeyRefused)
    user.save()
    if user.email:
        EmailAddress.objects.create(user=user, email=user.email, primary=True)  # a code will verify it
    return user


@transaction.atomic
def change_account(*, account: Account, plan: Plan, report_addon: bool, author: Author) -> None:
    """Put *account* on *plan*; its keys have the new limits at once."""
    number = _raise_revision()
    account.plan, account.report_addon = plan, report_addon
    _save(account, author)
    account.keys.update(revision=number)


@transaction.atomic
def user_changed(*, user: User) -> None:
    """Tell the gate to look at the keys of *user* again: those of an inactive one are refused."""
    ApiKey.objects.filter(account__user=user).update(revision=_raise_revision())


# Keys


@transaction.atomic
def create_key(
    *,
    account: Account,
    name: str,
    author: Author,
    scopes: Iterable[str] = SCOPES,
    networks: Iterable[str] = (),
    expires_at: datetime | None = None,
) -> NewKey:
    """Make a key; its text is in what is returned and nowhere else. KeyRefused names what is wrong."""
    number = _raise_revision()
    if expires_at is not None and expires_at <= timezone.now():
        raise KeyRefused({"expires_at": ["must be in the future"]})
    key = ApiKey(account=account, expires_at=expires_at)
    _describe(key, name=name, scopes=scopes, networks=networks)
    return _issue(key, number, author)


@transaction.atomic
def first_key(*, name: str, plan: str, author: Author) -> NewKey | None:
    """Make a key of this node's own account on *plan*, where there is no key at all."""
    _raise_revision()  # whoever starts at the same time waits here, and then finds the key
    if ApiKey.objects.exists():
        return None
    account = account_for(email=f"this-node-{plan}", plan=plan, author=author)
    return create_key(account=account, name=name, author=author)


@transaction.atomic
def change_key(
    *, key: ApiKey, name: str, scopes: Iterable[str], networks: Iterable[str], author: Author
) -> ApiKey:
    """Rename a key, or change what it is for and where it may be used from."""
    number = _raise_revision()
    key = _locked(key)
    _describe(key, name=name, scopes=scopes, networks=networks)
    _validate(key, KeyRefused)
    key.revision = number
    _save(key, author)
    return key


@transaction.atomic
def rotate_key(*, key: ApiKey, author: Author, overlap_h: int = OVERLAP_H) -> NewKey:
    """Make a key like *key*, which stays valid for *overlap_h* more hours; what *key* came from ends now."""
    number = _raise_revision()
    if not 0 <= overlap_h <= MOST_OVERLAP_H:
        raise KeyRefused({"overlap_h": [f"must be between 0 and {MOST_OVERLAP_H} hours"]})
    old = _locked(key)
    if ApiKey.objects.filter(rotated_from=old).exists():
        raise KeyNotLive(str(old), "rotated already")
    now, end = timezone.now(), old.expires_at
    for predecessor in ApiKey.objects.filter(rotated_to=old).live():
        _end(predecessor, now, number, author)
    _end(old, now + timedelta(hours=overlap_h), number, author)
    successor = ApiKey(account=old.account, rotated_from=old, expires_at=end)
    _describe(successor, name=old.name, scopes=old.scopes, networks=old.networks)
    return _issue(successor, number, author)


@transaction.atomic
def revoke_key(*, key: ApiKey, author: Author) -> ApiKey:
    """Refuse a key from now on, for good; one that is revoked already stays as it is."""
    number = _raise_revision()
    key = ApiKey.objects.select_for_update(of=("self",)).get(pk=key.pk)
    if key.revoked_at is None:
        key.revoked_at, key.revision = timezone.now(), number
        _save(key, author)
    return key


def find_key(name: str, among: KeyQuerySet | None = None) -> ApiKey:
    """Return the key that an id, a prefix or the whole text names; KeyNotFound when none or several do."""
    rows = (ApiKey.objects.all() if among is None else among).select_related("account__user", "account__plan")
    name = name.strip().rstrip("…")
    shown = name if len(name) <= keys.SHOWN_CHARACTERS else keys.shown_prefix(name)
    if keys.is_wellformed(name):
        rows = rows.filter(digest=keys.digest(name))
    elif name.isdecimal():
        rows = rows.filter(pk=int(name[:18]))
    else:
        rows = rows.filter(prefix=name)
    found = list(rows[:2])
    if len(found) != 1:
        raise KeyNotFound(shown)
    return found[0]


def _issue(key: ApiKey, number: int, author: Author) -> NewKey:
    made = NewKey(key, keys.generate(secrets.token_bytes))
    key.prefix, key.digest = made.text[: keys.SHOWN_CHARACTERS], keys.digest(made.text)
    key.revision = number
    _validate(key, KeyRefused)
    _save(key, author)
    if author.door is Door.ACCOUNT:
        _check_number(key.account)
    return made


def _check_number(account: Account) -> None:
    """Refuse the key that was just made when it is one too many for a customer."""
    made = ApiKey.objects.of(account)
    if made.live().count() > MOST_LIVE_KEYS:
        raise KeyRefused({"name": [f"There are {MOST_LIVE_KEYS} keys already: revoke one first."]})
    if made.filter(created_at__gt=timezone.now() - timedelta(days=1)).count() > MOST_KEYS_A_DAY:
        raise KeyRefused({"name": [f"{MOST_KEYS_A_DAY} keys were made within a day: wait for tomorrow."]})


def _end(key: ApiKey, end: datetime, number: int, author: Author) -> None:
    key.expires_at = min(key.expires_at or end, end)
    key.revision = number
    _save(key, author)


def _describe(key: ApiKey, *, name: str, scopes: Iterable[str], networks: Iterable[str]) -> None:
    wanted = set(scopes)
    if unknown := wanted - set(SCOPES):
        raise KeyRefused({"scopes": [f"there is no scope {', '.join(sorted(unknown))}"]})
    key.name = " ".join(name.split())
    key.scope_prices, key.scope_reports = (scope in wanted for scope in SCOPES)
    try:
        key.networks = parse_networks(networks)
    except NetworkError as error:
        raise KeyRefused({"networks": [str(error)]}) from error


def _locked(key: ApiKey) -> ApiKey:
    """Return the row as it is now, nobody else changing it; KeyNotLive when it is at its end."""
    row = ApiKey.objects.select_for_update(of=("self",)).select_related("account").get(pk=key.pk)
    if row.state in ("revoked", "expired"):
        raise KeyNotLive(str(row), row.state)
    return row


# Shared


def _raise_revision() -> int:
    if not KeyRevision.objects.filter(pk=1).update(number=F("number") + 1):
        KeyRevision.objects.bulk_create([KeyRevision(pk=1)], ignore_conflicts=True)
        KeyRevision.objects.filter(pk=1).update(number=F("number") + 1)
    if settings.REDIS_URL:
        transaction.on_commit(_announcer(settings.REDIS_URL).announce, robust=True)
    return KeyRevision.objects.values_list("number", flat=True).get(pk=1)


@cache
def _announcer(url: str) -> "Announcer":
    from billing.sharing import Announcer  # 0.1 s to import: only where there is somebody to tell

    return Announcer(url)


def _validate(
    row: models.Model,
    refuse: Callable[[Mapping[str, Any]], Exception],  # Any: Django's own messages
) -> None:
    try:
        row.full_clean()
    except ValidationError as error:
        raise refuse(error.message_dict) from error


def _save(row: models.Model, author: Author) -> None:
    row._history_user = author.user  # type: ignore[attr-defined]  # read by simple_history
    row._change_reason = author.door.value  # type: ignore[attr-defined]
    row.save()
