"""What must hold before people sign in and customers get keys."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register


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
