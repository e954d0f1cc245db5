"""The pages of a customer: keys, limits, and what was used of them."""

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from billing import reports, services
from billing.authors import Author, Door
from billing.exceptions import BillingError, KeyNotFound, KeyRefused
from billing.forms import KeyForm, RotateForm, UsageForm
from billing.models import Account, ApiKey
from billing.services import NewKey
from billing.signin import remember_device
from billing.usage import month_of, used_by
from billing.usage_page import EXPORTS, Choice, Command, commands, export, read_charts
from telemetry.renderers import FORMATS
from telemetry.reports import Question

Context = dict[str, Any]  # Any: what a template is given
P = ParamSpec("P")


def customer(
    *methods: str,
) -> Callable[
    [Callable[Concatenate[HttpRequest, Account, P], HttpResponse]],
    Callable[Concatenate[HttpRequest, P], HttpResponse],
]:
    """Let a function answer *methods* for a customer who is signed in, with the account."""

    def decorate(
        answer: Callable[Concatenate[HttpRequest, Account, P], HttpResponse],
    ) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
        @never_cache
        @require_http_methods(methods)
        @login_required
        def view(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            assert request.user.is_authenticated  # as login_required has seen to
            account = services.open_account(user=request.user)
            response = answer(request, account, *args, **kwargs)
            remember_device(request, response)
            return response

        return view

    return decorate


@customer("GET", "HEAD")
def account(request: HttpRequest, account: Account) -> HttpResponse:
    """Show the keys, the limits of the plan, and this month's count."""
    now = timezone.now()
    month = month_of(now)
    keys = list(ApiKey.objects.of(account).with_counts(month).select_related("rotated_to"))
    context: Context = {
        "account": account,
        "plan": account.plan,
        "keys": [key for key in keys if key.state_at(now) in ("live", "expiring")],
        "past_keys": [key for key in keys if key.state_at(now) in ("revoked", "expired")],
        "used": used_by(keys=keys, month=month),
        "month": now,
    }
    return _page(request, "account", context)


@customer("GET", "HEAD")
def usage(request: HttpRequest, account: Account) -> HttpResponse:
    """Show what was answered in a period, to all keys or to one, and what is left of the month."""
    now = timezone.now()
    month = month_of(now)
    keys = list(ApiKey.objects.of(account))
    form = UsageForm(request.GET, keys)
    choice = Choice.of(form)
    totals, charts = read_charts(account, choice, now)
    context: Context = {
        "form": form,
        "choice": choice,
        "chosen": {"period": choice.name, **({"key": choice.key_id} if choice.key_id else {})},
        "totals": totals,
        "charts": charts,
        "exports": EXPORTS,
        "commands": _commands(request, choice.question(account, now)),
        "plan": account.plan,
        "used": used_by(keys=keys, month=month),
        "reports": reports.look(account_id=account.pk, month=month),
        "month": now,
    }
    return _page(request, "usage", context)


@customer("GET", "HEAD")
def usage_export(request: HttpRequest, account: Account, format: str) -> HttpResponse:
    """Send what the charts are made of as a file."""
    form = UsageForm(request.GET, ApiKey.objects.of(account))
    if format not in EXPORTS or not form.is_valid():
        raise Http404
    choice, now = Choice.of(form), timezone.now()
    body = export(account, choice, now, format)
    name = f"usage-{choice.name}-{now:%Y-%m-%d}.{EXPORTS[format].ending}"
    return HttpResponse(
        body,
        content_type=FORMATS[format].content_type,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@customer("GET", "HEAD", "POST")
def create(request: HttpRequest, account: Account) -> HttpResponse:
    """Make a key and show it, this once."""
    form = KeyForm(request.POST or None)
    if form.is_valid():
        try:
            made = services.create_key(account=account, author=_author(request), **form.cleaned_data)
        except KeyRefused as error:
            form.refuse(error.errors)
        else:
            return _shown_once(request, made)
    return _page(request, "key_form", {"form": form})


@customer("GET", "HEAD", "POST")
def change(request: HttpRequest, account: Account, key_id: int) -> HttpResponse:
    """Rename a key, or change what it is for and where it may be used from."""
    key = _own(account, key_id)
    form = KeyForm(request.POST) if request.method == "POST" else KeyForm.of(key)
    if form.is_valid():
        try:
            services.change_key(key=key, author=_author(request), **form.cleaned_data)
        except KeyRefused as error:
            form.refuse(error.errors)
        except BillingError as error:
            return _told(request, messages.ERROR, f"This was not changed: {error}.")
        else:
            return _told(request, messages.SUCCESS, f"{key.name} was changed.")
    return _page(request, "key_form", {"form": form, "key": key})


@customer("GET", "HEAD", "POST")
def rotate(request: HttpRequest, account: Account, key_id: int) -> HttpResponse:
    """Make a key's successor and show it, this once."""
    key = _own(account, key_id)
    form = RotateForm(request.POST or None)
    if form.is_valid():
        try:
            return _shown_once(
                request, services.rotate_key(key=key, author=_author(request), **form.cleaned_data)
            )
        except BillingError as error:
            return _told(request, messages.ERROR, f"This was not rotated: {error}.")
    return _page(request, "key_rotate", {"form": form, "key": key})


@customer("GET", "HEAD", "POST")
def revoke(request: HttpRequest, account: Account, key_id: int) -> HttpResponse:
    """Ask once more, and refuse the key from then on."""
    key = _own(account, key_id)
    if request.method != "POST":
        return _page(request, "key_revoke", {"key": key})
    services.revoke_key(key=key, author=_author(request))
    return _told(request, messages.SUCCESS, f"{key.name} is revoked: it is refused from now on.")


def _commands(request: HttpRequest, question: Question) -> list[Command]:
    """Write down how to ask this node for reports, by the name it was asked by; nothing where it has none."""
    if settings.SERVER_TYPE == "APP_SERVER":
        return []
    host = urlsplit(request.build_absolute_uri("/")).hostname or ""
    name = f"[{host}]" if ":" in host else host
    return commands(question, f"{request.scheme}://{name}:{settings.TRINITY_REPORTS_PORT}")


def _own(account: Account, key_id: int) -> ApiKey:
    """Return a key of this account; somebody else's is as unknown as none."""
    try:
        return services.find_key(str(key_id), ApiKey.objects.of(account))
    except KeyNotFound as error:
        raise Http404 from error


def _shown_once(request: HttpRequest, made: NewKey) -> HttpResponse:
    """Answer with the text itself: a page to be redirected to would have to keep it somewhere."""
    return _page(request, "key_created", {"key": made.key, "made": made})


def _told(request: HttpRequest, level: int, text: str) -> HttpResponse:
    messages.add_message(request, level, text)
    return HttpResponseRedirect(reverse("account"))


def _author(request: HttpRequest) -> Author:
    assert request.user.is_authenticated  # as `customer` has seen to
    return Author(Door.ACCOUNT, request.user)


def _page(request: HttpRequest, name: str, context: Context) -> HttpResponse:
    return render(request, f"billing/{name}.html", {"page": "account", **context})
