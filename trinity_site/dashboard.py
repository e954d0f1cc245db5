"""The command centre's first page: a few figures, and the list of what needs somebody now."""

from collections.abc import Iterator
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from billing.security import guessers
from exchanges.feed.spec import SpecError
from exchanges.live import Live, LiveFeed, live_now
from exchanges.models import ExchangeFeed
from exchanges.renderers import state_badge
from exchanges.services import load_catalogue
from telemetry.models import Quarantined
from trinity_site import spooled
from trinity_site.readings import Figure, Need, figures, homes_of, traffic_figures
from trinity_site.stress import traffic_of

MOST_NAMED = 5


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:  # Any: a template's context
    if not request.user.has_perm("exchanges.view_exchangefeed"):
        return context
    feeds = list(ExchangeFeed.objects.with_asset_counts())
    catalogue = async_to_sync(load_catalogue)().public()
    live = live_now(request, homes_of(catalogue))
    usage, usage_needs = _usage(request)
    return context | {
        "explanation": live.explanation,
        "cards": [*figures(live, catalogue), *_traffic(request)],
        "usage": usage,
        "needs": [
            *usage_needs,
            *_guesses(request),
            *(need for feed in feeds for need in _needs(feed, live)),
        ],
        "feeds": [_feed_row(feed, live.feed(feed.name)) for feed in feeds],
    }


def _traffic(request: HttpRequest) -> list[Figure]:
    traffic = traffic_of(request)
    if traffic is None:
        return []
    since_reset, _ = traffic.since_reset()
    return traffic_figures(traffic.lately(), since_reset)


def _usage(request: HttpRequest) -> tuple[list[Figure], list[Need]]:
    """Tell what of this node's usage is on its way to the database, and what could not be written."""
    shown: list[Figure] = []
    needs: list[Need] = []
    if may_view_ledger(request):
        now, waiting = timezone.now(), spooled.look(settings)
        shown += spooled.figures(waiting, now)
        needs += spooled.needs(waiting, now)
    if may_view_quarantine(request):
        aside = Quarantined.objects.waiting().count()
        shown.append(Figure("set_aside", "Envelopes set aside", f"{aside:,}", "that could not be written"))
        needs += _set_aside(aside)
    return shown, needs


def _set_aside(waiting: int) -> Iterator[Need]:
    if waiting:
        link = reverse("admin:telemetry_quarantined_changelist") + "?state=waiting"
        many = f"{waiting:,} envelopes of usage" if waiting > 1 else "An envelope of usage"
        yield Need("refused", f"{many} could not be written: set aside until somebody replays", link)


def _feed_row(feed: ExchangeFeed, live: LiveFeed) -> tuple[ExchangeFeed, LiveFeed, SafeString]:
    return feed, live, state_badge(feed.name, live)


def _needs(feed: ExchangeFeed, live: Live) -> list[Need]:
    """Say what is wrong with an enabled feed; a disabled one is as somebody wanted it."""
    if not feed.enabled:
        return []
    link = reverse("admin:exchanges_exchangefeed_change", args=[feed.name])
    try:
        feed.to_spec()
    except SpecError as error:
        return [Need("refused", f"{feed.display_name}: the row cannot be used: {error}", link)]
    if not live.known:
        return []
    now, name = live.feed(feed.name), feed.display_name
    needs = [] if now.is_live else [Need(now.state, f"{name}: {now.detail or f'is {now.state}'}", link)]
    return needs + [Need(state, f"{name}: {text}", f"{link}#refused") for state, text in _refusals(now)]


def _guesses(request: HttpRequest) -> Iterator[Need]:
    """Name who guesses at keys or at sign-in: the limits hold it up, but somebody should know."""
    if not may_view_security(request):
        return
    events = reverse("admin:billing_securityevent_changelist")
    for source, times in guessers():
        link = f"{events}?{urlencode({'q': source})}" if source else events
        yield Need(
            "refused", f"{source or 'Many addresses'}: {times:,} refused attempts within the hour", link
        )


def _refusals(feed: LiveFeed) -> Iterator[tuple[str, str]]:
    if refused := feed.status.refused_symbols:
        yield "refused", f"{len(refused)} symbols refused: {_named(list(refused))}"
    if stuck := feed.status.stuck_assets:
        yield "quiet", f"{len(stuck)} assets stuck: {_named(stuck)}"
    if reasons := feed.troubles:
        yield "refused", f"ticks refused just now: {_named(reasons)}"


def _named(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


# Callbacks of the sidebar and the header


def environment(request: HttpRequest) -> list[str]:
    if settings.TRINITY_SIMULATOR_URL:
        return ["Simulated exchanges", "danger"]
    return [settings.CLUSTER_NODE, "info"]


def feeds_badge(request: HttpRequest) -> str:
    """Count the live ones of the enabled feeds. Never empty: Unfold would draw a badge without text."""
    live = live_now(request)
    names = ExchangeFeed.objects.enabled().values_list("name", flat=True)
    count = sum(live.feed(name).is_live for name in names)
    return f"{count}/{len(names)}" if live.known else "–"


def may_view_feeds(request: HttpRequest) -> bool:
    return request.user.has_perm("exchanges.view_exchangefeed")


def may_view_assets(request: HttpRequest) -> bool:
    return request.user.has_perm("exchanges.view_exchangeasset")


def may_view_users(request: HttpRequest) -> bool:
    return request.user.has_perm("auth.view_user")


def may_view_accounts(request: HttpRequest) -> bool:
    return request.user.has_perm("billing.view_account")


def may_view_keys(request: HttpRequest) -> bool:
    return request.user.has_perm("billing.view_apikey")


def may_view_plans(request: HttpRequest) -> bool:
    return request.user.has_perm("billing.view_plan")


def may_view_counts(request: HttpRequest) -> bool:
    return request.user.has_perm("billing.view_monthlycount")


def may_view_report_counts(request: HttpRequest) -> bool:
    return request.user.has_perm("billing.view_reportcount")


def may_view_quarantine(request: HttpRequest) -> bool:
    return request.user.has_perm("telemetry.view_quarantined")


def may_view_security(request: HttpRequest) -> bool:
    return request.user.has_perm("billing.view_securityevent")


def may_view_rollups(request: HttpRequest) -> bool:
    return request.user.has_perm("telemetry.view_usagerollup")


def may_view_ledger(request: HttpRequest) -> bool:
    return request.user.has_perm("telemetry.view_usagesegment")


def may_reconcile(request: HttpRequest) -> bool:
    """Both sides are told: what was logged, and what was billed."""
    return may_view_ledger(request) and may_view_counts(request)
