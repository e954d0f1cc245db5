"""Feeds and assets in the command centre. Every change goes through `services.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from simple_history.admin import SimpleHistoryAdmin
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.widgets import UnfoldBooleanSwitchWidget

from exchanges import services
from exchanges.addresses import refused_columns
from exchanges.batches import ASSET_COLUMNS
from exchanges.exceptions import FeedNotFound
from exchanges.feed.spec import SpecError
from exchanges.forms import AssetForm, FeedForm
from exchanges.live import live_now
from exchanges.models import ExchangeAsset, ExchangeFeed
from exchanges.renderers import age_cell, count_text, feed_cell, last_tick_cell, price_cell, state_badge
from exchanges.services import Author, Door
from exchanges.trial import try_feed

CHECK_SECONDS = 10.0
REFUSALS = (SpecError, FeedNotFound)

if TYPE_CHECKING:
    from exchanges.live import LiveFeed, LivePrice

    class FeedRow(ExchangeFeed):
        """A feed as the list shows it."""

        live: LiveFeed
        asset_count: int
        home_count: int

    class AssetRow(ExchangeAsset):
        """A listing as the list shows it."""

        live: LivePrice | None


def _author(request: HttpRequest) -> Author:
    return Author(Door.ADMIN, request.user if request.user.is_authenticated else None)


M = TypeVar("M", bound=Model)


class ServiceAdmin(SimpleHistoryAdmin, ModelAdmin):
    """An admin whose pages say in a message what a service refused."""

    list_fullwidth = True
    warn_unsaved_form = True
    compressed_fields = True

    # Any: Django's own arguments, as they come

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._explained(request, super().changeform_view, *args, **kwargs)

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._explained(request, super().changelist_view, *args, **kwargs)

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._explained(request, super().delete_view, *args, **kwargs)

    def _explained(
        self, request: HttpRequest, view: Callable[..., HttpResponse], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except REFUSALS as error:  # another change came between the form's validation and its saving
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    @transaction.atomic  # one commit; what is refused is undone by itself
    def apply(self, request: HttpRequest, rows: QuerySet[M], change: Callable[[M], None], done: str) -> None:
        """Call *change*, itself atomic, with each row, and say how many worked and which did not."""
        worked = 0
        for row in rows:
            try:
                change(row)
                worked += 1
            except REFUSALS as error:
                self.message_user(request, f"{row}: {error}", messages.ERROR)
        if worked:
            self.message_user(request, f"{worked} {done}.", messages.SUCCESS)


@admin.register(ExchangeFeed)
class FeedAdmin(ServiceAdmin):
    form = FeedForm
    list_display = (
        "title",
        "is_enabled",
        "state",
        "quote_currency",
        "assets",
        "ticks",
        "last_tick",
        "reconnects",
    )
    list_filter = ("enabled", "quote_currency")
    search_fields = ("name", "display_name", "ws_url")
    actions = ("enable", "disable")
    actions_detail = ("open_trial", "open_assets")
    readonly_fields = ("live_panel",)
    change_form_outer_after_template = "exchanges/refusals.html"
    fieldsets = (
        (None, {"fields": ("live_panel", "name", "display_name", "enabled", "quote_currency")}),
        (
            "Subscribing",
            {"fields": ("ws_url", "subscribe_template", "symbol_template", "symbols_per_frame")},
        ),
        (
            "Reading trades",
            {
                "fields": (
                    "trade_match",
                    "trades_path",
                    ("symbol_path", "price_path"),
                    ("timestamp_path", "timestamp_format"),
                )
            },
        ),
        ("Staying alive", {"fields": ("ping_interval_s", "ping_payload")}),
        ("REST fallback", {"fields": ("rest_url", "rest_price_path")}),
        ("Everything rarer", {"fields": ("quirks",)}),
    )

    # Reading

    def get_queryset(self, request: HttpRequest) -> QuerySet[ExchangeFeed]:
        return super().get_queryset(request).with_asset_counts()

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        page = super().get_changelist_instance(request)
        live = live_now(request)
        if live.explanation:
            self.message_user(request, live.explanation, messages.WARNING)
        for feed in page.result_list:
            feed.live = live.feed(feed.name)
        return page

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> ExchangeFeed | None:
        feed = super().get_object(request, object_id, from_field)
        if feed:
            feed.live = live_now(request).feed(feed.name)
        return feed

    def get_readonly_fields(self, request: HttpRequest, obj: ExchangeFeed | None = None) -> Sequence[str]:
        return (*self.readonly_fields, "name") if obj else self.readonly_fields

    @display(description="Exchange", ordering="display_name", header=True)
    def title(self, feed: FeedRow) -> list[str]:
        return [feed.display_name, feed.name]

    @display(description="Enabled", ordering="enabled", label={"on": "success", "off": "danger"})
    def is_enabled(self, feed: FeedRow) -> str:
        return "on" if feed.enabled else "off"

    @display(description="State")
    def state(self, feed: FeedRow) -> SafeString:
        return state_badge(feed.name, feed.live)

    @display(description="Assets", ordering="asset_count")
    def assets(self, feed: FeedRow) -> SafeString:
        return format_html(
            '<a class="tb-link" href="{}">{}</a> · {} homes',
            _assets_url(feed),
            feed.asset_count,
            feed.home_count,
        )

    @display(description="Ticks")
    def ticks(self, feed: FeedRow) -> SafeString:
        return feed_cell(feed.name, "ticks", count_text(feed.live.ticks))

    @display(description="Last tick")
    def last_tick(self, feed: FeedRow) -> SafeString:
        return last_tick_cell(feed.name, feed.live.last_tick_age_ms)

    @display(description="Reconnects")
    def reconnects(self, feed: FeedRow) -> SafeString:
        return feed_cell(feed.name, "reconnects", count_text(feed.live.status.reconnects))

    @display(description="Now")
    def live_panel(self, feed: ExchangeFeed) -> SafeString:
        live = getattr(feed, "live", None)
        if live is None:
            return SafeString("–")
        known = live.status
        return format_html(
            '<span class="tb-panel">{} {} <span>{} of {} symbols live</span> <span>{} ticks</span> '
            "<span>last {}</span> "
            '<a class="tb-link" href="#refused">{} symbols and {} ticks refused</a></span>',
            state_badge(feed.name, live),
            feed_cell(feed.name, "detail", live.detail),
            feed_cell(feed.name, "live", str(known.live)),
            feed_cell(feed.name, "symbols", str(known.symbols)),
            feed_cell(feed.name, "ticks", count_text(live.ticks)),
            last_tick_cell(feed.name, live.last_tick_age_ms),
            feed_cell(feed.name, "refused", count_text(len(known.refused_symbols))),
            feed_cell(feed.name, "refused_ticks", count_text(live.refused_ticks)),
        )

    # Changing

    def save_model(self, request: HttpRequest, obj: ExchangeFeed, form: FeedForm, change: bool) -> None:
        services.save_feed(columns=obj.columns(), author=_author(request))
        loopback = settings.TRINITY_ALLOW_LOOPBACK_EXCHANGES
        refused = refused_columns(ws_url=obj.ws_url, rest_url=obj.rest_url, allow_loopback=loopback)
        for error in refused.values():
            hint = "Saved, but not connected to unless TRINITY_ALLOW_LOOPBACK_EXCHANGES is set"
            self.message_user(request, f"{hint}: {error}", messages.WARNING)

    def delete_model(self, request: HttpRequest, obj: ExchangeFeed) -> None:
        services.delete_feed(name=obj.name, author=_author(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ExchangeFeed]) -> None:
        for feed in queryset:
            services.delete_feed(name=feed.name, author=_author(request))

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[ExchangeFeed]) -> None:
        self._toggle(request, queryset, enabled=True)

    @admin.action(description="Disable", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[ExchangeFeed]) -> None:
        self._toggle(request, queryset, enabled=False)

    def _toggle(self, request: HttpRequest, rows: QuerySet[ExchangeFeed], *, enabled: bool) -> None:
        def change(feed: ExchangeFeed) -> None:
            services.toggle_feed(name=feed.name, enabled=enabled, author=_author(request))

        self.apply(request, rows, change, "enabled" if enabled else "disabled")

    # Trying

    def get_urls(self) -> list[URLPattern]:
        def own(name: str, view: Callable[..., HttpResponse]) -> URLPattern:
            address, view = f"<path:object_id>/{name}/", self.admin_site.admin_view(view)
            return path(address, view, name=f"exchanges_exchangefeed_{name}")

        return [own("try", self.trial), own("refusals", self.refusals), *super().get_urls()]

    def refusals(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Answer with the part of the feed's page about what is refused, for a page that is open."""
        feed = self.get_object(request, object_id)
        if feed is None:
            raise Http404
        if not self.has_view_permission(request, feed):
            raise PermissionDenied
        return TemplateResponse(request, self.change_form_outer_after_template, {"original": feed})

    @action(description="Try it", icon="science", url_path="open-trial")
    def open_trial(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:exchanges_exchangefeed_try", args=[object_id]))

    @action(description="Assets", icon="list", url_path="open-assets")
    def open_assets(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(_assets_url(ExchangeFeed(name=object_id)))

    def trial(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Connect and subscribe as the row says, apart from the running feed, and show what came of it."""
        feed = self.get_object(request, object_id)
        if feed is None:
            raise Http404
        if not self.has_change_permission(request, feed):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "feed": feed,
            "title": "Try it",
        }
        context |= {"subtitle": feed.display_name, "seconds": CHECK_SECONDS}
        if request.method == "POST":
            context |= self._trial_report(feed)
        return TemplateResponse(request, "exchanges/try.html", context)

    def _trial_report(self, feed: ExchangeFeed) -> dict[str, Any]:  # Any: a template's context
        try:
            spec = feed.to_spec()
        except SpecError as error:
            return {"errors": error.errors}
        symbols = list(feed.listings.filter(prewarm=True).values_list("symbol", flat=True))
        return {"report": async_to_sync(try_feed)(spec, symbols, seconds=CHECK_SECONDS)}


def _assets_url(feed: ExchangeFeed) -> str:
    return f"{reverse('admin:exchanges_exchangeasset_changelist')}?exchange__name__exact={feed.name}"


@admin.register(ExchangeAsset)
class AssetAdmin(ServiceAdmin):
    form = AssetForm
    list_display = (
        "asset",
        "exchange",
        "symbol",
        "category",
        "is_home",
        "price",
        "age",
        "enabled",
        "prewarm",
    )
    list_editable = ("enabled", "prewarm")
    list_filter = ("exchange", "category", "enabled", "prewarm", "home")
    list_select_related = ("exchange",)
    list_per_page = 50
    search_fields = ("asset", "symbol", "rest_symbol")
    actions = ("enable", "disable", "make_home")
    fieldsets = (
        (None, {"fields": ("asset", "exchange", "symbol", "rest_symbol", "category")}),
        ("Use", {"fields": ("enabled", "prewarm", "home")}),
    )

    def get_changelist_form(self, request: HttpRequest, **kwargs: Any) -> type:  # Any: Django's own
        switches = dict.fromkeys(self.list_editable, UnfoldBooleanSwitchWidget)
        return super().get_changelist_form(request, **{"form": AssetForm, "widgets": switches, **kwargs})

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        page = super().get_changelist_instance(request)
        live = live_now(request, [(row.asset, row.exchange_id) for row in page.result_list])
        for row in page.result_list:
            row.live = live.prices.get((row.asset, row.exchange_id))
        return page

    def get_readonly_fields(self, request: HttpRequest, obj: ExchangeAsset | None = None) -> Sequence[str]:
        return ("asset", "exchange") if obj else ()  # they are what a listing is known by

    @display(description="Home", ordering="home", label={"home": "primary"})
    def is_home(self, row: AssetRow) -> str:
        return "home" if row.home else ""

    @display(description="Price")
    def price(self, row: AssetRow) -> SafeString:
        return price_cell(row, row.live)

    @display(description="Age")
    def age(self, row: AssetRow) -> SafeString:
        return age_cell(row, row.live)

    def save_model(self, request: HttpRequest, obj: ExchangeAsset, form: AssetForm, change: bool) -> None:
        row = {field: getattr(obj, field) for field in ASSET_COLUMNS}
        (saved,) = services.save_assets(rows=[row], exchange=obj.exchange_id, author=_author(request))
        obj.pk = saved.pk

    def delete_model(self, request: HttpRequest, obj: ExchangeAsset) -> None:
        services.delete_assets(listings=[obj], author=_author(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ExchangeAsset]) -> None:
        services.delete_assets(listings=queryset, author=_author(request))

    @admin.action(description="Show in public", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[ExchangeAsset]) -> None:
        self._set_enabled(request, queryset, enabled=True)

    @admin.action(description="Hide from public", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[ExchangeAsset]) -> None:
        self._set_enabled(request, queryset, enabled=False)

    def _set_enabled(self, request: HttpRequest, rows: QuerySet[ExchangeAsset], *, enabled: bool) -> None:
        def change(row: ExchangeAsset) -> None:
            batch = [{"asset": row.asset, "enabled": enabled}]
            services.save_assets(rows=batch, exchange=row.exchange_id, author=_author(request))

        self.apply(request, rows, change, "shown" if enabled else "hidden")

    @admin.action(description="Make home", permissions=["change"])
    def make_home(self, request: HttpRequest, queryset: QuerySet[ExchangeAsset]) -> None:
        def change(row: ExchangeAsset) -> None:
            services.set_home(listing=row, author=_author(request))

        self.apply(request, queryset, change, "answer by default now")
