"""Usage in the database: every answer once, what of every segment has been written, and sums by the hour.

`ledger.py` is the one writer, `partitions.py` deletes what is too old. What the small numbers mean is in
_spool.pxd (SOURCES, PROTOCOLS, ENDPOINTS name them). Nothing here points at billing's tables: a usage log
outlives its key.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Length

SUMS_KEY = (
    *("account_id", "hour", "key_id", "month", "asset", "exchange"),
    *("source", "simulated", "protocol", "endpoint", "status", "tier"),
)


class UsageLog(models.Model):
    """One answer. In PostgreSQL each UTC day is a partition; `usage_logs_default` has what lies outside.

    The order of the fields wastes no space in a row. The key serves reports: one account's pages by time.
    """

    pk = models.CompositePrimaryKey("account_id", "at", "segment_id", "sequence")
    at = models.DateTimeField()
    account_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    segment_id = models.IntegerField()
    sequence = models.IntegerField(help_text="Within its segment, from 1.")
    month = models.IntegerField(help_text="202611, in which the gate has counted it; 0: not counted.")
    latency_us = models.IntegerField()
    status = models.SmallIntegerField(help_text="As HTTP has it, over UDP too.")
    assets = models.SmallIntegerField(help_text="How many were asked for.")
    tier = models.SmallIntegerField(help_text="0 without a price.")
    source = models.SmallIntegerField()
    protocol = models.SmallIntegerField()
    endpoint = models.SmallIntegerField()
    simulated = models.BooleanField()
    asset = models.TextField(help_text="The first one, where several were asked for.")
    exchange = models.TextField()
    price = models.TextField(help_text="The digits that were served.")
    quote = models.TextField()

    class Meta:
        db_table = "usage_logs"

    def __str__(self) -> str:
        return f"{self.segment_id}/{self.sequence}"


class UsageSegment(models.Model):
    """A segment of a node's spool, as far as envelopes have told of it."""

    id = models.AutoField(primary_key=True)  # four bytes: it is in every row and in its index
    node = models.CharField(max_length=64)
    name = models.CharField(max_length=32)
    row = models.IntegerField(help_text="Of the counters: which process wrote it.")
    created_ns = models.BigIntegerField()
    boot_ns = models.BigIntegerField(help_text="When that process began.")
    ended = models.IntegerField(null=True, help_text="How many places it has; empty: there may come more.")
    entered = models.BigIntegerField()
    left = models.BigIntegerField()
    opened = models.BigIntegerField()
    closed = models.BigIntegerField()
    shed = models.BigIntegerField()
    seen_at = models.DateTimeField()

    class Meta:
        db_table = "usage_segments"
        ordering = ("node", "name")
        constraints = (models.UniqueConstraint(fields=("node", "name"), name="usage_segments_once"),)

    def __str__(self) -> str:
        return f"{self.node} {self.name}"


class UsageInterval(models.Model):
    """Places [start, end) of a segment that have been written; no two of a segment overlap or touch."""

    pk = models.CompositePrimaryKey("segment_id", "start")
    segment = models.ForeignKey(
        UsageSegment, on_delete=models.CASCADE, related_name="intervals", db_index=False
    )
    start = models.IntegerField()
    end = models.IntegerField(db_column="end_")
    rows = models.IntegerField()
    damaged = models.IntegerField(help_text="Places in which there was no whole record.")
    written_at = models.DateTimeField()

    class Meta:
        db_table = "usage_ledger"
        ordering = ("segment_id", "start")
        constraints = (
            models.CheckConstraint(
                condition=Q(start__gte=0, end__gt=F("start")), name="usage_ledger_goes_on"
            ),
            models.CheckConstraint(
                condition=Q(end=F("start") + F("rows") + F("damaged"), rows__gte=0, damaged__gte=0),
                name="usage_ledger_adds_up",
            ),
        )

    def __str__(self) -> str:
        return f"{self.segment_id} [{self.start}, {self.end})"


class Sums(models.Model):
    """What answers come to that have all of SUMS_KEY in common."""

    hour = models.DateTimeField()
    account_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    answers = models.BigIntegerField()
    assets = models.BigIntegerField()
    latency_us = models.BigIntegerField(help_text="Of all of them together.")
    latency_us_max = models.IntegerField()
    month = models.IntegerField()
    status = models.SmallIntegerField()
    tier = models.SmallIntegerField()
    source = models.SmallIntegerField()
    protocol = models.SmallIntegerField()
    endpoint = models.SmallIntegerField()
    simulated = models.BooleanField()
    asset = models.TextField()
    exchange = models.TextField()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H} {self.key_id} {self.asset}"


class UsageRollup(Sums):
    """Answers by the hour, true at every instant. A view: the same key may come several times, so add up."""

    pk = models.CompositePrimaryKey(*SUMS_KEY)

    class Meta:
        db_table = "usage_rollups"
        managed = False


class UsageMonth(models.Model):
    """Rows counted in a month, by key and node: to be held against billing's counts. A view: add up."""

    pk = models.CompositePrimaryKey("key_id", "month", "node")
    key_id = models.BigIntegerField()
    month = models.IntegerField()
    node = models.CharField(max_length=64)
    counted = models.BigIntegerField()

    class Meta:
        db_table = "usage_months"
        managed = False

    def __str__(self) -> str:
        return f"{self.month} {self.node} {self.key_id}"


class UsagePart(Sums):
    """What a transaction has added, until it is folded into the two tables below. Only ever inserted."""

    node = models.CharField(max_length=64)

    class Meta:
        db_table = "usage_parts"


class FoldedHour(Sums):
    pk = models.CompositePrimaryKey(*SUMS_KEY)

    class Meta:
        db_table = "usage_folded_hours"
        # The key begins with the account: this is for what is read of all of them, and for what is too old.
        indexes = (models.Index(fields=("hour",), name="usage_folded_hours_hour"),)


class FoldedMonth(models.Model):
    pk = models.CompositePrimaryKey("key_id", "month", "node")
    key_id = models.BigIntegerField()
    counted = models.BigIntegerField()
    month = models.IntegerField()
    node = models.CharField(max_length=64)

    class Meta:
        db_table = "usage_folded_months"
        # The key begins with the API key: this is for what is read of all of them.
        indexes = (models.Index(fields=("month", "node"), name="usage_folded_months_month"),)

    def __str__(self) -> str:
        return f"{self.month} {self.node} {self.key_id}"


class Folding(models.Model):
    """A single row: when somebody last began to fold parts."""

    folded_at = models.DateTimeField()

    class Meta:
        db_table = "usage_folding"
        constraints = (models.CheckConstraint(condition=Q(pk=1), name="usage_folding_single"),)

    def __str__(self) -> str:
        return f"{self.folded_at:%Y-%m-%d %H:%M:%S}"


class QuarantinedQuerySet(models.QuerySet["Quarantined"]):
    def waiting(self) -> QuarantinedQuerySet:
        """Keep what has not been written since."""
        return self.filter(replayed_at__isnull=True)

    def with_sizes(self) -> QuarantinedQuerySet:
        """Add `size`, the bytes of each document."""
        return self.annotate(size=Length("document"))


class Quarantined(models.Model):
    """A document that could not be written, as it came. It stays until it has been replayed."""

    digest = models.BinaryField(
        max_length=32, unique=True, editable=False
    )  # one that comes again is no other
    received_at = models.DateTimeField(auto_now_add=True)
    reason = models.TextField()
    document = models.BinaryField()
    tries = models.PositiveIntegerField(default=1)
    replayed_at = models.DateTimeField(null=True, editable=False)

    objects = QuarantinedQuerySet.as_manager()

    class Meta:
        db_table = "usage_quarantine"
        ordering = ("-received_at", "-id")
        verbose_name = "envelope set aside"
        verbose_name_plural = "envelopes set aside"

    def __str__(self) -> str:
        return f"{self.received_at:%Y-%m-%d %H:%M:%S} {self.reason[:60]}"

    @property
    def state(self) -> str:
        return "set aside" if self.replayed_at is None else "replayed"
