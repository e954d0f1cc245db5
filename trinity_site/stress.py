"""JSON for machines: what the node counts, with rates and percentages, and the reset they begin from."""

import logging
from typing import Any

import msgspec
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from billing.authors import Author
from pricing.exceptions import RequestRefused
from pricing.guard import guarded
from pricing.protocol import render_time
from telemetry.rates import Rates
from telemetry.traffic import Traffic

Document = dict[str, Any]  # Any: JSON

logger = logging.getLogger(__name__)


@guarded("GET", permissions=("exchanges.view_exchangefeed",))
def stats(request: HttpRequest, author: Author) -> HttpResponse:
    """Tell all counters since the last reset, and what they amount to then and in the last seconds."""
    traffic = _traffic(request)
    rates, since_ns = traffic.since_reset()
    return JsonResponse(
        {
            **_node(),
            "since": render_time(since_ns),
            "workers": traffic.counted.workers(),
            "sockets": [
                {"worker": worker, "receive_buffer_bytes": receive, "send_buffer_bytes": send}
                for worker, (receive, send) in traffic.counted.sockets().items()
            ],
            **_document(rates),
            "last_seconds": _document(traffic.lately()),
        }
    )


@guarded("GET", "POST", permissions=("exchanges.change_exchangefeed",))
def reset(request: HttpRequest, author: Author) -> HttpResponse:
    """Let the statistics of the whole node begin anew."""
    traffic = _traffic(request)
    try:
        since_ns = traffic.reset()
    except OSError as error:
        raise RequestRefused("internal_error", f"The reset cannot be kept: {error.strerror}.") from error
    logger.info("The statistics begin anew, by %s", author.user or "the admin key")
    return JsonResponse({**_node(), "since": render_time(since_ns)})


def traffic_of(request: HttpRequest) -> Traffic | None:
    """Find what the server put into the request's state; None where there is no such server."""
    runtime = getattr(request, "scope", {}).get("state", {}).get("runtime")
    return getattr(runtime, "traffic", None)


def _traffic(request: HttpRequest) -> Traffic:
    traffic = traffic_of(request)
    if traffic is None:
        raise RequestRefused("not_counting", "This process was started without the node's counters.")
    return traffic


def _node() -> Document:
    return {"cluster_node": settings.CLUSTER_NODE, "region": settings.AWS_REGION}


def _document(rates: Rates) -> Document:
    """Put the counters, by the names that are published, beside the figures."""
    document: Document = msgspec.to_builtins(rates)
    return {**document.pop("counters"), **document}
