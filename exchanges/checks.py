"""What must hold about the exchange tables before a node starts: `manage.py check --database default`.

Only warnings: one bad row must not keep the other exchanges from starting.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import DatabaseError

from exchanges.addresses import refused_columns
from exchanges.feed.spec import FeedSpec, SpecError
from exchanges.models import ExchangeAsset, ExchangeFeed

MOST_NAMED = 5


@register(Tags.database)
def check_rows(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:  # Any: Django's own
    if "default" not in (databases or ()):
        return []
    try:
        return [*_unusable_feeds(), *_homeless_assets()]
    except DatabaseError:  # before the first migration there are no tables to look at
        return []


@register(Tags.security, deploy=True)
def check_loopback(**kwargs: Any) -> list[CheckMessage]:  # Any: Django's own
    if not settings.TRINITY_ALLOW_LOOPBACK_EXCHANGES:
        return []
    return [
        Warning(
            "Exchanges on this machine's loopback are allowed.",
            hint="Unset TRINITY_ALLOW_LOOPBACK_EXCHANGES and TRINITY_SIMULATOR_PORT where prices are real.",
            id="exchanges.W003",
        )
    ]


def _unusable_feeds() -> Iterator[CheckMessage]:
    for feed in ExchangeFeed.objects.all():
        try:
            spec = feed.to_spec()
        except SpecError as error:
            yield Warning(
                f"The row of {feed.name} cannot be used: {error}",
                hint="Correct it in the command centre; its feed does not run until then.",
                id="exchanges.W001",
            )
            continue
        yield from _refused_addresses(spec)


def _refused_addresses(spec: FeedSpec) -> Iterator[CheckMessage]:
    if settings.TRINITY_SIMULATOR_URL:
        return
    loopback = settings.TRINITY_ALLOW_LOOPBACK_EXCHANGES
    refused = refused_columns(ws_url=spec.ws_url, rest_url=spec.rest_url, allow_loopback=loopback)
    for error in refused.values():
        yield Warning(
            f"The address of {spec.name} will be refused: {error}",
            hint="Exchanges must be reachable under a public address, encrypted.",
            id="exchanges.W004",
        )


def _homeless_assets() -> Iterator[CheckMessage]:
    homes = ExchangeAsset.objects.homes().values("asset")
    homeless = ExchangeAsset.objects.enabled().exclude(asset__in=homes)
    names = sorted(set(homeless.values_list("asset", flat=True)))
    if names:
        shown = ", ".join(names[:MOST_NAMED]) + (" …" if len(names) > MOST_NAMED else "")
        yield Warning(
            f"{len(names)} assets have no home exchange: {shown}",
            hint="They are answered by whichever exchange is freshest.",
            id="exchanges.W002",
        )
