"""The two exchange tables, and the revision by which running processes notice that they changed.

Changes are made by `services.py`: it validates, records who did it, and raises the revision.
"""

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Count, Q
from django.db.models.functions import Lower
from simple_history.models import HistoricalRecords

from exchanges.addresses import refused_columns
from exchanges.feed.spec import (
    ASSET,
    CATEGORIES,
    FEED_COLUMNS,
    SYMBOL,
    FeedSpec,
    Listing,
    SpecError,
    parse_feed,
)

# What the database itself insists on. Looser than `parse_feed`, whose rules may change without a migration.
SLUG_RULE = r"^[a-z][a-z0-9_-]*\Z"
ASSET_RULE = r"^[A-Z0-9]+\Z"
SYMBOL_RULE = r"^[!-~]+\Z"

QUOTES = ("USD", "USDT")
TIMESTAMP_FORMATS = ("RFC3339", "unix_s", "unix_ms", "unix_us", "unix_ns")
NEVER_EMPTY = (
    "display_name",
    "ws_url",
    "subscribe_template",
    "symbol_template",
    "trades_path",
    "symbol_path",
    "price_path",
    "timestamp_path",
)


class FeedQuerySet(models.QuerySet["ExchangeFeed"]):
    def enabled(self) -> "FeedQuerySet":
        return self.filter(enabled=True)

    def with_asset_counts(self) -> "FeedQuerySet":
        """Add `asset_count`, all listings, and `home_count`, those that answer by default."""
        return self.annotate(
            asset_count=Count("listings"), home_count=Count("listings", filter=Q(listings__home=True))
        )


class ExchangeFeed(models.Model):
    """One exchange: where its feed is, how it is asked, and how its frames are read."""

    name = models.CharField(max_length=24, primary_key=True)
    display_name = models.CharField(max_length=60)
    enabled = models.BooleanField(default=True)
    quote_currency = models.CharField(max_length=8, choices=[(quote, quote) for quote in QUOTES])
    ws_url = models.CharField("WebSocket address", max_length=2_000)
    subscribe_template = models.TextField()
    symbol_template = models.TextField()
    symbols_per_frame = models.PositiveIntegerField(default=0)
    trade_match = models.JSONField()
    trades_path = models.CharField(max_length=500)
    symbol_path = models.CharField(max_length=500)
    price_path = models.CharField(max_length=500)
    timestamp_path = models.CharField(max_length=500)
    timestamp_format = models.CharField(max_length=8, choices=[(form, form) for form in TIMESTAMP_FORMATS])
    ping_interval_s = models.FloatField("ping interval", default=0)
    ping_payload = models.TextField(blank=True)
    rest_url = models.CharField("REST address", max_length=2_000, blank=True)
    rest_price_path = models.CharField("REST price path", max_length=500, blank=True)
    quirks = models.JSONField(default=dict, blank=True)

    history = HistoricalRecords(table_name="exchange_feeds_history")
    objects = FeedQuerySet.as_manager()

    class Meta:
        db_table = "exchange_feeds"
        ordering = ("name",)
        verbose_name = "feed"
        constraints = (
            models.CheckConstraint(condition=Q(name__regex=SLUG_RULE), name="exchange_feeds_name_is_a_slug"),
            *(
                models.CheckConstraint(condition=~Q(**{column: ""}), name=f"exchange_feeds_{column}_given")
                for column in NEVER_EMPTY
            ),
            models.CheckConstraint(
                condition=Q(quote_currency__in=QUOTES), name="exchange_feeds_quote_currency_known"
            ),
            models.CheckConstraint(
                condition=Q(timestamp_format__in=TIMESTAMP_FORMATS),
                name="exchange_feeds_timestamp_format_known",
            ),
            models.CheckConstraint(
                condition=Q(symbols_per_frame__gte=0), name="exchange_feeds_symbols_per_frame_not_negative"
            ),
            models.CheckConstraint(
                condition=Q(ping_interval_s__gte=0), name="exchange_feeds_ping_interval_not_negative"
            ),
            models.CheckConstraint(
                condition=Q(rest_url="") | ~Q(rest_price_path=""), name="exchange_feeds_rest_price_path_given"
            ),
        )

    def __str__(self) -> str:
        return self.display_name

    def clean(self) -> None:
        try:
            spec = self.to_spec()
        except SpecError as error:
            raise ValidationError(error.errors) from error
        if refused := refused_columns(ws_url=spec.ws_url, rest_url=spec.rest_url, allow_loopback=True):
            raise ValidationError(refused)

    def columns(self) -> dict[str, Any]:  # Any: JSON columns
        """Return the 19 columns in the order of the design."""
        columns = {column: getattr(self, column) for column in FEED_COLUMNS}
        if isinstance(self.ping_interval_s, float) and self.ping_interval_s.is_integer():
            columns["ping_interval_s"] = int(self.ping_interval_s)  # documents say 15, not 15.0
        return columns

    def to_spec(self) -> FeedSpec:
        """Parse the row; SpecError when it cannot work."""
        return parse_feed(self.columns())


class AssetQuerySet(models.QuerySet["ExchangeAsset"]):
    def enabled(self) -> "AssetQuerySet":
        return self.filter(enabled=True)

    def homes(self) -> "AssetQuerySet":
        return self.filter(home=True)

    def at(self, exchange: str) -> "AssetQuerySet":
        return self.filter(exchange_id=exchange)


class ExchangeAsset(models.Model):
    """One asset as one exchange lists it."""

    asset = models.CharField(max_length=20)
    exchange = models.ForeignKey(
        ExchangeFeed, on_delete=models.CASCADE, related_name="listings", db_column="exchange"
    )
    symbol = models.CharField(max_length=40)
    rest_symbol = models.CharField("REST symbol", max_length=40, blank=True)
    category = models.CharField(max_length=20, choices=[(category, category) for category in CATEGORIES])
    enabled = models.BooleanField(default=True)
    prewarm = models.BooleanField(default=True)
    home = models.BooleanField(default=False)

    history = HistoricalRecords(table_name="exchange_asset_map_history")
    objects = AssetQuerySet.as_manager()

    class Meta:
        db_table = "exchange_asset_map"
        ordering = ("asset", "exchange")
        verbose_name = "asset"
        constraints = (
            models.UniqueConstraint(
                fields=("asset", "exchange"),
                name="exchange_asset_map_asset_exchange",
                violation_error_message="This exchange lists this asset already.",
            ),
            models.UniqueConstraint(
                "exchange",
                Lower("symbol"),  # trades are matched without regard to case
                name="exchange_asset_map_exchange_symbol",
                violation_error_message="Another asset has this symbol at this exchange; case makes no "
                "difference.",
            ),
            models.UniqueConstraint(
                fields=("asset",),
                condition=Q(home=True),
                name="exchange_asset_map_one_home",
                violation_error_message="This asset has its home at another exchange.",
            ),
            models.CheckConstraint(
                condition=Q(asset__regex=ASSET_RULE), name="exchange_asset_map_asset_spelling"
            ),
            models.CheckConstraint(
                condition=Q(symbol__regex=SYMBOL_RULE), name="exchange_asset_map_symbol_spelling"
            ),
            models.CheckConstraint(
                condition=Q(category__in=CATEGORIES), name="exchange_asset_map_category_known"
            ),
        )

    def __str__(self) -> str:
        return f"{self.asset} at {self.exchange_id}"

    def clean(self) -> None:
        errors = {}
        if not ASSET.fullmatch(self.asset):
            errors["asset"] = "Use 1 to 20 capital letters and digits: BTC."
        for field in ("symbol", "rest_symbol"):
            value = getattr(self, field)
            if value and not SYMBOL.fullmatch(value):
                errors[field] = "Use letters, digits and . _ / : @ - only, as the exchange writes it."
        if errors:
            raise ValidationError(errors)

    def to_listing(self) -> Listing:
        return Listing(
            asset=self.asset,
            exchange=self.exchange_id,
            symbol=self.symbol,
            rest_symbol=self.rest_symbol,
            category=self.category,
            enabled=self.enabled,
            prewarm=self.prewarm,
            home=self.home,
        )


class Revision(models.Model):
    """A single row whose number rises with every change of the two tables.

    The tables have no room for it (their columns are a contract), and one row is cheap to poll.
    """

    number = models.PositiveBigIntegerField(default=0)

    class Meta:
        db_table = "exchange_revision"
        constraints = (models.CheckConstraint(condition=Q(pk=1), name="exchange_revision_single"),)

    def __str__(self) -> str:
        return str(self.number)
