"""The public pages. They read the board and the catalogue in memory; none of them asks the database."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from billing.signin import slowed_down
from pricing import openapi
from pricing.catalogue import EMPTY, Catalogue
from pricing.parameters import Parameters
from pricing.problems import PROBLEMS, Problem, render_problem
from pricing.protocol import shorten
from trinity_site.readings import headline, shown_assets
from trinity_site.reference import Reference, make_reference
from trinity_site.reports import openapi as reports_openapi
from trinity_site.runtime import Runtime
from trinity_site.udp_reference import UdpReference, make_udp_reference

ANYWHERE = (
    *("not_found", "method_not_allowed", "request_timeout", "url_too_long", "head_too_large"),
    *("too_many_connections", "internal_error"),
)
"""Problems of every port, whatever it answers."""
STATE_WORDS = {"live": "live", "delayed": "delayed", "silent": "no data"}

Context = dict[str, Any]  # Any: what a template is given


@require_safe
@never_cache
async def home(request: HttpRequest) -> HttpResponse:
    """Show live prices and the demo."""
    runtime = runtime_of(request)
    catalogue = catalogue_of(runtime)
    parameters = parameters_of(runtime)
    context: Context = {
        "exchanges": exchange_rows(runtime),
        "assets": sorted(catalogue.assets),
        "asset_count": len(catalogue.assets),
        "cards": price_cards(runtime, catalogue),
        "ttl_ms": parameters.price_ttl_ms,
        "ttl_s": parameters.price_ttl_ms // 1000,
        "offers": runtime.offers.rows if runtime else (),
        "site": site_of(request),
    }
    return page(request, "home", context)


@require_safe
@never_cache
async def status(request: HttpRequest) -> HttpResponse:
    """Show the state of every exchange as of now."""
    runtime = runtime_of(request)
    rows = exchange_rows(runtime)
    context: Context = {
        "exchanges": rows,
        "headline": headline(rows),
        "ttl_s": parameters_of(runtime).price_ttl_ms // 1000,
    }
    return page(request, "status", context)


@require_safe
async def docs(request: HttpRequest) -> HttpResponse:
    """Show the documentation of what this very node answers, with commands that ask it."""
    site = site_of(request)
    sites = sites_of(site)
    references = []
    if sites.prices is not None:
        references.append(reference_of(sites.prices))
    if sites.reports is not None:
        references.append(report_reference_of(sites.reports))
    every = (row for one in references for row in one.problems)
    problems = {row.code: row for row in sorted(every, key=lambda row: row.example != "")}  # examples win
    context: Context = {
        "references": references,
        "sites": sites,
        "pages": "" if sites.prices == site else sites.prices,
        "elsewhere": next((one for one in sites if one not in (None, site)), None),
        "is_alone": sites.prices is None,
        "schemas": list({row.name: row for one in references for row in one.schemas}.values()),
        "problems": sorted(problems.values(), key=lambda row: (row.status, row.code)),
        "udp": udp_of(site),
    }
    return page(request, "docs", context)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return failure(request, Problem("not_found", f"There is nothing at {shorten(request.path)!r}."))


def server_error(request: HttpRequest) -> HttpResponse:
    return failure(request, Problem("internal_error", "The error has been logged; please try again."))


def too_many(request: HttpRequest) -> HttpResponse:
    """Answer sign-in pages that were asked too often, and note who asked: allauth finds this by its name."""
    slowed_down(request)
    response = render(request, "429.html", status=429)
    response.headers["Retry-After"] = "60"
    return response


def failure(request: HttpRequest, problem: Problem) -> HttpResponse:
    """Answer browsers with a page and everybody else as the price interface does."""
    wanted = request.get_preferred_type(["application/problem+json", "text/html"])
    if wanted == "text/html":
        return render(request, f"{problem.status}.html", status=problem.status)
    body = render_problem(problem)
    return HttpResponse(body, status=problem.status, content_type="application/problem+json")


def page(request: HttpRequest, name: str, context: Context) -> HttpResponse:
    return render(request, f"trinity/{name}.html", {"page": name, **context})


def site_of(request: HttpRequest) -> str:
    return request.build_absolute_uri("/").rstrip("/")


@lru_cache(maxsize=8)  # a node has few names; Host is checked before it gets here
def reference_of(site: str) -> Reference:
    return make_reference(openapi.document(), site, PROBLEMS)


@lru_cache(maxsize=8)
def report_reference_of(site: str) -> Reference:
    return make_reference(reports_openapi.document(), site, {code: PROBLEMS[code] for code in ANYWHERE})


class Sites(NamedTuple):
    """Where this node answers prices, and its pages, and where reports; None where it does not."""

    prices: str | None
    reports: str | None


def sites_of(site: str) -> Sites:
    """Find both from the address by which one of them was asked."""
    kind, ports = settings.SERVER_TYPE, (settings.TRINITY_HTTP_PORT, settings.TRINITY_REPORTS_PORT)
    if kind == "APP_SERVER":
        return Sites(site, None)
    if kind == "REPORT_SERVER":
        return Sites(None, site)
    if urlsplit(site).port == ports[1]:
        return Sites(on_port(site, ports[0]), site)
    return Sites(site, on_port(site, ports[1]))


def on_port(site: str, port: int) -> str:
    """Return the address of this node's other port."""
    parts = urlsplit(site)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def udp_of(site: str) -> UdpReference | None:
    """Describe the UDP interface under the name by which the page was asked for; None where there is none."""
    if not settings.TRINITY_UDP_WORKERS:
        return None
    prices, reports = sites_of(site)
    return make_udp_reference(
        urlsplit(site).hostname or "",
        None if prices is None else settings.TRINITY_UDP_PORT,
        None if reports is None else settings.TRINITY_REPORTS_UDP_PORT,
    )


def runtime_of(request: HttpRequest) -> Runtime | None:
    """Find what the server put into the request's state; None where there is no such server."""
    scope: Mapping[str, Any] = getattr(request, "scope", {})
    runtime: Runtime | None = scope.get("state", {}).get("runtime")
    return runtime


def catalogue_of(runtime: Runtime | None) -> Catalogue:
    return runtime.prices.view.catalogue() if runtime else EMPTY


def parameters_of(runtime: Runtime | None) -> Parameters:
    return runtime.prices.parameters if runtime else Parameters()


def price_cards(runtime: Runtime | None, catalogue: Catalogue) -> list[Context]:
    """Describe the shown assets that are listed; one without a price has a card that waits for it."""
    if runtime is None:
        return []
    reading = runtime.live.reading
    mono_ns = reading.clock.mono_ns()
    now_ms, prices = reading.clock.at_ms(mono_ns), reading.prices(mono_ns)
    return [
        {
            "asset": asset,
            "trail": " ".join(reading.trails.get(asset, ())),
            "age_ms": max(0, now_ms - prices[asset]["at_ms"]) if asset in prices else "",
            **prices.get(asset, {}),
        }
        for asset in shown_assets(catalogue)
    ]


def exchange_rows(runtime: Runtime | None) -> list[Context]:
    if runtime is None:
        return []
    reading, view = runtime.live.reading, runtime.prices.view
    mono_ns = reading.clock.mono_ns()
    catalogue = view.catalogue()
    return [
        {
            **row,
            "key": name,
            "word": STATE_WORDS[row["state"]],
            "quote": catalogue.exchanges[name].quote,
            "assets": sum(name in view.exchanges_of(asset) for asset in catalogue.assets),
            "age_ms": None if row["at_ms"] is None else max(0, reading.clock.at_ms(mono_ns) - row["at_ms"]),
        }
        for name, row in reading.exchanges(mono_ns).items()
    ]
