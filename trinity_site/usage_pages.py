"""Pages of the command centre about usage: charts of everybody's, and the books held against one another."""

from __future__ import annotations

import threading
from typing import Any

from asgiref.sync import sync_to_async
from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe
from unfold.widgets import UnfoldAdminSelectWidget

from billing.usage import month_of
from telemetry.charts import Chart, Figures, make_charts
from telemetry.periods import PERIODS, Period, bounds_of
from telemetry.queries import Reading
from telemetry.reconciling import Report
from telemetry.reports import Kind, Question
from trinity_site.books import known_nodes, reconcile_node
from trinity_site.dashboard import may_reconcile, may_view_rollups
from trinity_site.readings import duration_text

OVERVIEW_PERIODS = ("24h", "7d", "30d")
GROUPS = ("asset", "source", "status", "protocol", "endpoint")
MONTHS = 4
"""Rows are kept for three months: so many calendar months have some."""
MOST_FINDINGS = 200
OF_ROWS = ("ledger = rows", "rows = rollups")
"""Comparisons for which every row must be counted."""

Context = dict[str, Any]  # Any: what a template is given

_reconciling = threading.Lock()


# Everybody's usage


@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    """Show what all accounts were answered, by the hour or day."""
    if not may_view_rollups(request):
        raise PermissionDenied
    name = request.GET.get("period", "")
    name = name if name in OVERVIEW_PERIODS else OVERVIEW_PERIODS[0]
    totals, charts = read_everybody(PERIODS[name])
    mean = duration_text(totals["latency_mean_us"]) if totals["answers"] else "–"
    context: Context = {
        "title": "Usage",
        "period": name,
        "periods": {one: PERIODS[one].title for one in OVERVIEW_PERIODS},
        "cards": [
            ("Answers", f"{totals['answers']:,}", f"{totals['counted']:,} counted against plans"),
            ("Refused", f"{totals['refused']:,}", "limits, and questions that cannot be answered"),
            ("Failed", f"{totals['failed']:,}", "no fresh price, or our fault"),
            ("Time to answer", mean, f"on average; {duration_text(totals['latency_max_us'])} at most"),
        ],
        "charts": charts,
    }
    return _page(request, "usage", context)


def read_everybody(period: Period) -> tuple[Figures, list[Chart]]:
    start, end = bounds_of(period, timezone.now())
    question, reading = Question(Kind.SUMMARY, None, start, end), Reading()
    with reading, reading.snapshot():
        totals = reading.totals(question)
        return make_charts(question, period.step, GROUPS, totals, reading.breakdown)


# The books


class BooksForm(forms.Form):
    """Which node's books of which month."""

    node = forms.ChoiceField(widget=UnfoldAdminSelectWidget)
    month = forms.TypedChoiceField(coerce=int, widget=UnfoldAdminSelectWidget)

    def __init__(self, data: Any) -> None:  # Any: what a browser sends
        here, this_month = settings.CLUSTER_NODE, month_of(timezone.now())
        super().__init__({"node": data.get("node", here), "month": data.get("month", this_month)})
        self.fields["node"].choices = [(node, node) for node in known_nodes(settings)]  # type: ignore[attr-defined]  # a choice field
        self.fields["month"].choices = [(month, shown_month(month)) for month in recent_months(this_month)]  # type: ignore[attr-defined]  # as above


def recent_months(this_month: int) -> list[int]:
    """Return the months of which there may be rows, the latest first."""
    year, month = divmod(this_month, 100)
    numbers = [year * 12 + month - 1 - back for back in range(MONTHS)]
    return [number // 12 * 100 + number % 12 + 1 for number in numbers]


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
async def reconcile(request: HttpRequest) -> HttpResponse:
    """Hold a node's books against one another; every row is counted only when a button asks for it.

    That may take minutes, in a thread of its own: all other pages of the process share one.
    """
    if not await sync_to_async(admin.site.has_permission)(request):
        return redirect_to_login(request.get_full_path(), reverse("admin:login"))
    if not await sync_to_async(may_reconcile)(request):
        raise PermissionDenied
    quick = request.method != "POST"
    form = await sync_to_async(BooksForm)(request.GET if quick else request.POST)
    context: Context = {"title": "Reconcile", "form": form, "quick": quick, "here": settings.CLUSTER_NODE}
    if form.is_valid():
        compared = await sync_to_async(compare, thread_sensitive=False)(quick=quick, **form.cleaned_data)
        context |= _told(compared, quick=quick) if compared else {"is_busy": True}
    return await sync_to_async(_page)(request, "reconcile", context)


def _told(report: Report, *, quick: bool) -> Context:
    return {
        "report": report,
        "checks": [check for check in report.checks if not quick or check.name not in OF_ROWS],
        "month": shown_month(report.month),
        "findings": report.findings[:MOST_FINDINGS],
        "more": max(0, len(report.findings) - MOST_FINDINGS),
    }


def shown_month(month: int) -> str:
    return f"{month // 100}-{month % 100:02}"


def compare(*, node: str, month: int, quick: bool) -> Report | None:
    """Compare, unless somebody has this process do that already."""
    if not _reconciling.acquire(blocking=False):
        return None
    try:
        return reconcile_node(settings, node=node, month=month, quick=quick)
    finally:
        connection.close()  # this thread's
        _reconciling.release()


def _page(request: HttpRequest, name: str, context: Context) -> HttpResponse:
    everywhere = admin.site.each_context(request)
    return render(request, f"command_centre/{name}.html", {**everywhere, **context})
