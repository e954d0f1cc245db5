"""What must hold before people sign in and customers get keys."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import DatabaseError

from billing.models import ApiKey

FULL_PERCENT = 80


@register(Tags.security, deploy=True)
def check_second_factor(**kwargs: Any) -> list[CheckMessage]:  # Any: Django's own, as below
    if settings.TRINITY_STAFF_SECOND_FACTOR:
        return []
    return [
        Warning(
            "The command centre can be entered without a second factor.",
            hint="Unset TRINITY_STAFF_SECOND_FACTOR and TRINITY_SIMULATOR_PORT where prices are real.",
            id="billing.W001",
        )
    ]


@register(Tags.security, deploy=True)
def check_mail(**kwargs: Any) -> list[CheckMessage]:
    if settings.EMAIL_HOST:
        return []
    return [
        Warning(
            "There is no mail server: sign-in codes go to the log and the data folder.",
            hint="Set SMTP_HOST, and SMTP_PORT, SMTP_USER, SMTP_PASSWORD as it needs them.",
            id="billing.W002",
        )
    ]


@register(Tags.database)
def check_gate(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    if "default" not in (databases or ()):
        return []
    try:
        keys = ApiKey.objects.live().count()
    except DatabaseError:  # before the first migration there are no tables to look at
        return []
    rows = settings.TRINITY_GATE_ROWS
    if keys * 100 <= rows * FULL_PERCENT:
        return []
    return [
        Warning(
            f"There are {keys:,} live API keys, and the gate has places for {rows:,}.",
            hint="Raise TRINITY_GATE_ROWS: keys without a place are refused. A place takes about 160 bytes.",
            id="billing.W003",
        )
    ]
