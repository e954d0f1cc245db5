"""Plans, accounts, keys and records in the command centre. Every change goes through `services.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from simple_history.admin import SimpleHistoryAdmin
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextareaWidget

from billing import services
from billing.authors import Author, Door
from billing.exceptions import BillingError
from billing.forms import NetworksField, RotateForm
from billing.models import SCOPES, Account, ApiKey, MonthlyCount, Plan, ReportCount, SecurityEvent
from billing.services import PLAN_COLUMNS, NewKey
from billing.usage import month_of

STATE_COLOURS = {"live": "success", "expiring": "warning", "expired": "danger", "revoked": "danger"}


def _author(request: HttpRequest) -> Author:
    return Author(Door.ADMIN, request.user if request.user.is_authenticated else None)


def _text(limit: int | None) -> str:
    return "none" if limit is None else f"{limit:,}"


class BillingAdmin(SimpleHistoryAdmin, ModelAdmin):
    """An admin of rows that stay for good, whose pages say in a message what a service refused."""

    list_fullwidth = True
    warn_unsaved_form = True
    compressed_fields = True

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,  # Any: a template's context
    ) -> HttpResponse:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except BillingError as error:  # another change came between the form's validation and its saving
            self.message_user(request, f"This was not saved: {error}.", messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())


class ReadOnlyAdmin(ModelAdmin):
    """Records of what happened."""

    list_fullwidth = True

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


# Plans


@admin.register(Plan)
class PlanAdmin(BillingAdmin):
    list_display = (
        "heading",
        "price",
        "monthly",
        "rate",
        "at_once",
        "reports",
        "is_partner",
        "accounts_on_it",
    )
    search_fields = ("name", "title")
    fieldsets = (
        (None, {"fields": ("name", "title", "price", "position")}),
        (
            "Limits, empty for none",
            {
                "fields": (
                    "requests_per_month",
                    ("requests_per_second", "burst"),
                    "reports_per_month",
                    "partner",
                )
            },
        ),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Plan | None = None) -> tuple[str, ...]:
        return ("name",) if obj else ()  # commands and accounts know a plan by it

    @display(description="Plan", ordering="position", header=True)
    def heading(self, plan: Plan) -> list[str]:
        return [plan.title, plan.name]

    @display(description="Requests a month", ordering="requests_per_month")
    def monthly(self, plan: Plan) -> str:
        return _text(plan.requests_per_month)

    @display(description="Per second", ordering="requests_per_second")
    def rate(self, plan: Plan) -> str:
        return _text(plan.requests_per_second)

    @display(description="Burst", ordering="burst")
    def at_once(self, plan: Plan) -> str:
        return _text(plan.burst)

    @display(description="Reports a month", ordering="reports_per_month")
    def reports(self, plan: Plan) -> str:
        return _text(plan.reports_per_month)

    @display(description="Partner", label={"partner": "primary"})
    def is_partner(self, plan: Plan) -> str:
        return "partner" if plan.partner else ""

    @display(description="Accounts")
    def accounts_on_it(self, plan: Plan) -> SafeString:
        address = f"{reverse('admin:billing_account_changelist')}?plan__id__exact={plan.pk}"
        return format_html('<a class="tb-link" href="{}">{}</a>', address, plan.accounts.count())

    def save_model(self, request: HttpRequest, obj: Plan, form: forms.ModelForm, change: bool) -> None:
        columns = {column: getattr(obj, column) for column in PLAN_COLUMNS}
        obj.pk = services.save_plan(name=obj.name, columns=columns, author=_author(request)).pk


# Accounts


class AccountForm(forms.ModelForm):
    class Meta:
        model = Account
        fields = ("plan", "report_addon")


class NewAccountForm(AccountForm):
    email = forms.EmailField(max_length=150, help_text="Sign-in codes go there; nothing is sent now.")

    def clean_email(self) -> str:
        email = str(self.cleaned_data["email"]).lower()
        if Account.objects.filter(user__username=email).exists():
            raise forms.ValidationError("This address has an account already.")
        return email


@admin.register(Account)
class AccountAdmin(BillingAdmin):
    list_display = ("user", "plan", "is_report_addon", "live_keys", "is_active", "since")
    list_filter = ("plan", "report_addon", "user__is_active")
    list_select_related = ("user", "plan")
    search_fields = ("user__username", "user__email")
    readonly_fields = ("user", "since", "keys_of_it")
    actions_detail = ("open_keys",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        return super().get_queryset(request).with_key_counts()

    def get_form(
        self, request: HttpRequest, obj: Account | None = None, change: bool = False, **kwargs: Any
    ) -> type[forms.ModelForm]:
        return super().get_form(
            request, obj, change, **{"form": AccountForm if obj else NewAccountForm, **kwargs}
        )

    def get_fields(self, request: HttpRequest, obj: Account | None = None) -> tuple[str, ...]:
        return (
            ("user", "plan", "report_addon", "since", "keys_of_it")
            if obj
            else ("email", "plan", "report_addon")
        )

    @display(description="Report add-on", label={"add-on": "primary"}, ordering="report_addon")
    def is_report_addon(self, account: Account) -> str:
        return "add-on" if account.report_addon else ""

    @display(description="Live keys", ordering="live_keys")
    def live_keys(self, account: Account) -> SafeString:
        return format_html('<a class="tb-link" href="{}">{}</a>', _keys_url(account), account.live_keys)  # type: ignore[attr-defined]  # an annotation

    @display(
        description="User", label={"active": "success", "inactive": "danger"}, ordering="user__is_active"
    )
    def is_active(self, account: Account) -> str:
        return "active" if account.user.is_active else "inactive"

    @display(description="Keys")
    def keys_of_it(self, account: Account) -> SafeString:
        return self.live_keys(account)

    def save_model(self, request: HttpRequest, obj: Account, form: AccountForm, change: bool) -> None:
        author = _author(request)
        if not change:
            email, plan = form.cleaned_data["email"], obj.plan
            made = services.account_for(email=email, plan=plan.name, author=author)
            addon = obj.report_addon
            obj.pk, obj.user = made.pk, made.user
            if not addon:
                return
        services.change_account(
            account=Account.objects.get(pk=obj.pk),
            plan=obj.plan,
            report_addon=obj.report_addon,
            author=author,
        )

    @action(description="Keys", icon="key", url_path="open-keys")
    def open_keys(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(_keys_url(Account(pk=object_id)))


def _keys_url(account: Account) -> str:
    return f"{reverse('admin:billing_apikey_changelist')}?account__id__exact={account.pk}"


# Keys


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # Any: Django's own
        return [(state, state) for state in STATE_COLOURS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        now = timezone.now()
        states = {
            "live": Q(revoked_at__isnull=True, expires_at__isnull=True),
            "expiring": Q(revoked_at__isnull=True, expires_at__gt=now),
            "expired": Q(revoked_at__isnull=True, expires_at__lte=now),
            "revoked": Q(revoked_at__isnull=False),
        }
        return queryset.filter(states.get(self.value() or "", Q()))


class KeyAdminForm(forms.ModelForm):
    networks = NetworksField(label="Allowed networks", widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}))

    class Meta:
        model = ApiKey
        fields = ("account", "name", "scope_prices", "scope_reports", "networks", "expires_at")


@admin.register(ApiKey)
class ApiKeyAdmin(BillingAdmin):
    form = KeyAdminForm
    list_display = ("title", "account", "plan", "state", "scope_names", "used", "last_used_at", "created_at")
    list_filter = (StateFilter, "account__plan", "scope_prices", "scope_reports")
    list_select_related = ("account__user", "account__plan")
    list_per_page = 50
    search_fields = ("name", "prefix", "account__user__username")
    search_help_text = (
        "A name, an account, or a key's first characters. Never a whole key: it would be logged."
    )
    autocomplete_fields = ("account",)
    actions = ("revoke",)
    actions_detail = ("open_rotation", "open_revocation")
    fieldsets = (
        (None, {"fields": ("account", "name", ("scope_prices", "scope_reports"), "networks", "expires_at")}),
    )
    known = ("shown_prefix", "state", "used", "created_at", "last_used_at", "revoked_at", "rotated_from")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return super().get_queryset(request).with_counts(month_of(timezone.now()))

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:  # Any: Django's own
        return (*self.fieldsets, ("Known", {"fields": self.known})) if obj else self.fieldsets

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        return (*self.known, "account", "expires_at") if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        ended = obj is not None and obj.state in ("revoked", "expired")
        return not ended and super().has_change_permission(request, obj)

    @display(description="Key", ordering="name", header=True)
    def title(self, key: ApiKey) -> list[str]:
        return [key.name, f"{key.prefix}…"]

    @display(description="Begins with")
    def shown_prefix(self, key: ApiKey) -> str:
        return f"{key.prefix}…"

    @display(description="Plan", ordering="account__plan__position")
    def plan(self, key: ApiKey) -> str:
        return str(key.account.plan)

    @display(description="State", label=STATE_COLOURS)
    def state(self, key: ApiKey) -> str:
        return key.state

    @display(description="May ask for")
    def scope_names(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @display(description="This month", ordering="used")
    def used(self, key: ApiKey) -> str:
        return _text(key.used)  # type: ignore[attr-defined]  # an annotation

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ApiKey], search_term: str
    ) -> tuple[QuerySet[ApiKey], bool]:
        return super().get_search_results(request, queryset, search_term.rstrip("…"))

    # Changing

    def save_model(self, request: HttpRequest, obj: ApiKey, form: KeyAdminForm, change: bool) -> None:
        wanted: dict[str, Any] = {  # Any: keywords of several types
            "name": obj.name,
            "scopes": [scope for scope in SCOPES if getattr(obj, f"scope_{scope}")],
            "networks": obj.networks,
            "author": _author(request),
        }
        if change:
            services.change_key(key=obj, **wanted)
            return
        made = services.create_key(account=obj.account, expires_at=obj.expires_at, **wanted)
        obj.pk, obj.prefix = made.key.pk, made.key.prefix
        obj.made = made  # type: ignore[attr-defined]  # for response_add, which has nothing else from here

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._shown_once(request, obj.made)  # type: ignore[attr-defined]  # as above

    def _shown_once(self, request: HttpRequest, made: NewKey) -> HttpResponse:
        """Answer with the text itself: a page to be redirected to would have to keep it somewhere."""
        context = {"key": made.key, "made": made, "title": "New API key", "subtitle": made.key.name}
        return self._page(request, "created", context)  # never cached, like every page of the command centre

    def get_urls(self) -> list[URLPattern]:
        def own(name: str, view: Callable[..., HttpResponse]) -> URLPattern:
            return path(
                f"<int:key_id>/{name}/", self.admin_site.admin_view(view), name=f"billing_apikey_{name}"
            )

        return [own("rotate", self.rotate_view), own("revoke", self.revoke_view), *super().get_urls()]

    @action(description="Rotate", icon="autorenew", url_path="open-rotation")
    def open_rotation(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:billing_apikey_rotate", args=[object_id]))

    @action(description="Revoke", icon="block", url_path="open-revocation")
    def open_revocation(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:billing_apikey_revoke", args=[object_id]))

    def rotate_view(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """Make a successor, and let the old key stay valid for a while."""
        key = self._changeable(request, key_id)
        form = RotateForm(request.POST or None)
        form.fields["overlap_h"].widget = UnfoldAdminIntegerFieldWidget(attrs={"min": 0})
        if form.is_valid():
            try:
                made = services.rotate_key(key=key, author=_author(request), **form.cleaned_data)
            except BillingError as error:
                return self._back(request, key, messages.ERROR, f"This was not rotated: {error}.")
            self.log_change(request, key, "Rotated.")
            return self._shown_once(request, made)
        return self._page(
            request, "rotate", {"key": key, "form": form, "title": "Rotate", "subtitle": key.name}
        )

    def revoke_view(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """Ask once more, and refuse the key from then on."""
        key = self._changeable(request, key_id)
        if request.method != "POST":
            return self._page(request, "revoke", {"key": key, "title": "Revoke", "subtitle": key.name})
        self._revoke(request, key)
        return self._back(request, key, messages.SUCCESS, f"{key} is refused from now on.")

    @admin.action(description="Revoke at once", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        keys = list(queryset)
        for key in keys:
            self._revoke(request, key)
        self.message_user(request, f"{len(keys)} refused from now on.", messages.SUCCESS)

    def _revoke(self, request: HttpRequest, key: ApiKey) -> None:
        services.revoke_key(key=key, author=_author(request))
        self.log_change(request, key, "Revoked.")

    def _changeable(self, request: HttpRequest, key_id: int) -> ApiKey:
        key = self.get_object(request, str(key_id))
        if key is None:
            raise Http404
        if not self.has_change_permission(request):
            raise PermissionDenied
        return key

    def _back(self, request: HttpRequest, key: ApiKey, level: int, text: str) -> HttpResponse:
        self.message_user(request, text, level)
        return HttpResponseRedirect(reverse("admin:billing_apikey_change", args=[key.pk]))

    def _page(self, request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
        everywhere = {**self.admin_site.each_context(request), "opts": self.opts}
        return TemplateResponse(request, f"billing/admin/{name}.html", {**everywhere, **context})


# Records


@admin.register(MonthlyCount)
class MonthlyCountAdmin(ReadOnlyAdmin):
    list_display = ("month", "key", "account", "node", "count")
    list_filter = ("month", "node", "key__account__plan")
    list_select_related = ("key__account__user",)
    search_fields = ("key__name", "key__prefix", "key__account__user__username")

    @display(description="Account")
    def account(self, count: MonthlyCount) -> str:
        return str(count.key.account)


@admin.register(ReportCount)
class ReportCountAdmin(ReadOnlyAdmin):
    list_display = ("month", "account", "plan", "count", "cap")
    list_filter = ("month", "account__plan", "account__report_addon")
    list_select_related = ("account__user", "account__plan")
    search_fields = ("account__user__username", "account__user__email")

    @display(description="Plan", ordering="account__plan__position")
    def plan(self, count: ReportCount) -> str:
        return str(count.account.plan)

    @display(description="Cap as of now")
    def cap(self, count: ReportCount) -> str:
        return _text(count.account.reports_per_month)


@admin.register(SecurityEvent)
class SecurityEventAdmin(ReadOnlyAdmin):
    list_display = ("last_at", "what", "subject", "source", "count")
    list_filter = ("kind", "hour")
    search_fields = ("subject", "source")

    @display(description="What", ordering="kind", label=True)
    def what(self, event: SecurityEvent) -> str:
        return event.get_kind_display()
