"""What every page may show, whoever renders it."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, Any]:  # Any: a template's context
    return {"simulated": bool(settings.TRINITY_SIMULATOR_URL)}
