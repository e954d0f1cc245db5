"""Plans, accounts, API keys, what they used, and what somebody tried who should not have.

Changes are made by `services.py`: it validates, records who did it, and raises the key revision, by which the
gate's writer finds the rows that changed. Keys are never deleted: a row that is gone could not be refused.
"""

from __future__ import annotations

import secrets
from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import Count, Q, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone
from simple_history.models import HistoricalRecords

NAME_RULE = r"^[a-z][a-z0-9-]*\Z"
DEFAULT_PLAN = "free"
LIMITS = ("requests_per_month", "requests_per_second", "burst", "reports_per_month")
SCOPES = ("prices", "reports")


class Plan(models.Model):
    """What an account may do, and what it costs; an empty limit is none."""

    name = models.SlugField(max_length=24, unique=True)
    title = models.CharField(max_length=60)
    price = models.CharField(max_length=40, help_text="As people read it: $30/month.")
    requests_per_month = models.PositiveBigIntegerField(null=True, blank=True)
    requests_per_second = models.PositiveIntegerField(null=True, blank=True)
    burst = models.PositiveIntegerField(
        null=True, blank=True, help_text="How many requests may come at once before the rate applies."
    )
    reports_per_month = models.PositiveBigIntegerField(null=True, blank=True)
    partner = models.BooleanField(
        default=False, help_text="No rate, no cap and no bill, on any protocol; still counted."
    )
    position = models.PositiveSmallIntegerField(default=0, help_text="Its place among the others.")

    history = HistoricalRecords(table_name="billing_plan_history")

    class Meta:
        db_table = "billing_plan"
        ordering = ("position", "name")
        constraints = (
            models.CheckConstraint(condition=Q(name__regex=NAME_RULE), name="billing_plan_name_is_a_slug"),
            models.CheckConstraint(
                condition=Q(requests_per_second__isnull=True, burst__isnull=True)
                # Without the second line NULL would make it unknown, and unknown passes.
                | Q(requests_per_second__gte=1, burst__gte=1)
                & Q(requests_per_second__isnull=False, burst__isnull=False),
                name="billing_plan_rate_has_a_burst",
                violation_error_message="Give both a rate and a burst, at least 1 each, or neither.",
            ),
            models.CheckConstraint(
                condition=Q(partner=False) | Q(**{f"{limit}__isnull": True for limit in LIMITS}),
                name="billing_plan_partner_has_no_limits",
                violation_error_message="A partner plan has no limits: leave them empty.",
            ),
        )

    def __str__(self) -> str:
        return self.title


class AccountQuerySet(models.QuerySet["Account"]):
    def with_key_counts(self) -> AccountQuerySet:
        """Add `live_keys`, those that are admitted now."""
        live = Q(keys__revoked_at__isnull=True) & (
            Q(keys__expires_at__isnull=True) | Q(keys__expires_at__gt=timezone.now())
        )
        return self.annotate(live_keys=Count("keys", filter=live))


class Account(models.Model):
    """A user as a customer."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="account")
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="accounts")
    report_addon = models.BooleanField("report add-on", default=False, help_text="No cap on reports.")
    since = models.DateTimeField(auto_now_add=True)

    history = HistoricalRecords(table_name="billing_account_history")
    objects = AccountQuerySet.as_manager()

    class Meta:
        db_table = "billing_account"
        ordering = ("user__username",)

    def __str__(self) -> str:
        return str(self.user.get_username())

    @property
    def reports_per_month(self) -> int | None:
        return None if self.report_addon else self.plan.reports_per_month


class KeyQuerySet(models.QuerySet["ApiKey"]):
    def live(self) -> KeyQuerySet:
        """Keep the keys that are admitted now."""
        unexpired = Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now())
        return self.filter(unexpired, revoked_at__isnull=True)

    def of(self, account: Account) -> KeyQuerySet:
        return self.filter(account=account)

    def with_counts(self, month: int) -> KeyQuerySet:
        """Add `used`, the answers of all nodes in *month* (202611)."""
        counted = self.annotate(used=Coalesce(Sum("counts__count", filter=Q(counts__month=month)), 0))
        return counted.order_by("-created_at", "-id")  # grouping drops the model's own order


class ApiKey(models.Model):
    """One key: its digest, and the few characters by which a person knows it. The text is nowhere."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="keys")
    name = models.CharField(max_length=60)
    prefix = models.CharField(max_length=16, db_index=True)
    digest = models.BinaryField(max_length=32, unique=True)
    scope_prices = models.BooleanField("prices", default=True)
    scope_reports = models.BooleanField("reports", default=True)
    networks = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    rotated_from = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="rotated_to", editable=False
    )
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revision = models.PositiveBigIntegerField(default=0, db_index=True, editable=False)

    history = HistoricalRecords(
        table_name="billing_api_key_history", excluded_fields=["digest", "revision", "last_used_at"]
    )
    objects = KeyQuerySet.as_manager()

    class Meta:
        db_table = "billing_api_key"
        ordering = ("-created_at", "-id")
        verbose_name = "API key"
        constraints = (
            models.CheckConstraint(condition=~Q(name=""), name="billing_api_key_name_given"),
            models.CheckConstraint(
                condition=Q(scope_prices=True) | Q(scope_reports=True),
                name="billing_api_key_has_a_scope",
                violation_error_message="A key must be for prices, for reports, or for both.",
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @property
    def scopes(self) -> list[str]:
        return [scope for scope in SCOPES if getattr(self, f"scope_{scope}")]

    @property
    def state(self) -> str:
        return self.state_at(timezone.now())

    def state_at(self, now: datetime) -> str:
        """Return `live`, `expiring` (rotated, in its overlap), `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is None:
            return "live"
        return "expired" if self.expires_at <= now else "expiring"


class KeyRevision(models.Model):
    """A single row whose number rises with every change of a key, or of what a key's limits come from.

    Its lock makes such changes come one after the other, so that a reader who has seen a number has seen
    every change up to it.
    """

    number = models.PositiveBigIntegerField(default=0)

    class Meta:
        db_table = "billing_key_revision"
        constraints = (models.CheckConstraint(condition=Q(pk=1), name="billing_key_revision_single"),)

    def __str__(self) -> str:
        return str(self.number)


def random_name() -> str:
    return secrets.token_hex(8)


class Installation(models.Model):
    """A single row with a name that no other database has: what nodes share elsewhere is known by it."""

    name = models.CharField(max_length=32, default=random_name)

    class Meta:
        db_table = "billing_installation"
        constraints = (models.CheckConstraint(condition=Q(pk=1), name="billing_installation_single"),)

    def __str__(self) -> str:
        return self.name


class MonthlyCount(models.Model):
    """How many answers one node gave to one key in one month."""

    key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="counts", db_index=False)
    month = models.PositiveIntegerField(help_text="202611")
    node = models.CharField(max_length=64)
    count = models.PositiveBigIntegerField()

    class Meta:
        db_table = "billing_monthly_count"
        ordering = ("-month", "-count")
        constraints = (
            models.UniqueConstraint(fields=("key", "month", "node"), name="billing_monthly_count_once"),
            models.CheckConstraint(
                condition=Q(month__gte=2000_01) & Q(month__lte=9999_12), name="billing_monthly_count_month"
            ),
        )
        indexes = (models.Index(fields=("month", "node"), name="billing_monthly_count_by_month"),)

    def __str__(self) -> str:
        return f"{self.month} {self.node} {self.key_id}"


class ReportCount(models.Model):
    """How many reports an account has had in one month, all nodes together."""

    account = models.ForeignKey(
        Account, on_delete=models.PROTECT, related_name="report_counts", db_index=False
    )
    month = models.PositiveIntegerField(help_text="202611")
    count = models.PositiveBigIntegerField()

    class Meta:
        db_table = "billing_report_count"
        ordering = ("-month", "-count")
        constraints = (
            models.UniqueConstraint(fields=("account", "month"), name="billing_report_count_once"),
            models.CheckConstraint(
                condition=Q(month__gte=2000_01) & Q(month__lte=9999_12), name="billing_report_count_month"
            ),
        )

    def __str__(self) -> str:
        return f"{self.month} {self.account_id}"


class SecurityEvent(models.Model):
    """What was tried by whom, how often within an hour. Rows are only added to, and leave with old age."""

    class Kind(models.TextChoices):
        PASSWORD_REFUSED = "password_refused", "Wrong password"
        CODE_REFUSED = "code_refused", "Wrong sign-in code"
        SECOND_FACTOR_REFUSED = "second_factor_refused", "Wrong second factor"
        RATE_LIMITED = "rate_limited", "Slowed down"
        KEY_MALFORMED = "key_malformed", "Malformed API key"
        KEY_UNKNOWN = "key_unknown", "Unknown API key"
        KEY_REVOKED = "key_revoked", "Revoked API key"
        KEY_ELSEWHERE = "key_elsewhere", "API key from another network"

    kind = models.CharField(max_length=24, choices=Kind.choices)
    subject = models.CharField(max_length=150, blank=True, help_text="The account or key it was tried on.")
    source = models.CharField(max_length=45, blank=True, help_text="The address it came from, or its /64.")
    hour = models.DateTimeField()
    count = models.PositiveBigIntegerField(default=0)
    last_at = models.DateTimeField()

    class Meta:
        db_table = "billing_security_event"
        ordering = ("-last_at", "-id")
        constraints = (
            models.UniqueConstraint(
                fields=("hour", "kind", "subject", "source"), name="billing_security_event_once_an_hour"
            ),
        )
        indexes = (models.Index(fields=("-last_at",), name="billing_security_event_recent"),)

    def __str__(self) -> str:
        return f"{self.get_kind_display()} from {self.source or 'many'}: {self.count}"
