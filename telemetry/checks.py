"""What must hold before usage is recorded."""

import shutil
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from telemetry.parameters import SpoolParameters
from telemetry.segments import used_bytes


@register()
def check_spool(**kwargs: Any) -> list[CheckMessage]:  # Any: Django's own
    """Compare what the spool takes with what it may take, and that with what the disk has."""
    try:
        parameters = SpoolParameters.of(settings)
    except ValueError as error:
        hint = "TRINITY_SPOOL_BYTES has at least two of TRINITY_SPOOL_SEGMENT_BYTES, and that whole pages."
        return [Error(f"There can be no such usage spool: {error}.", hint=hint, id="telemetry.E001")]
    used, bound = used_bytes(settings.TRINITY_DATA_DIR / "spool"), parameters.spool_bytes
    segments, writers = bound // parameters.segment_bytes, count_writers()
    has_room = used + shutil.disk_usage(settings.TRINITY_DATA_DIR).free >= bound
    return [
        *([] if used * 100 < bound * parameters.warn_percent else [nearly_full(used, bound)]),
        *([] if has_room else [disk_too_small(used, bound)]),
        *([] if segments >= 2 * writers else [too_few_segments(segments, writers)]),
    ]


def count_writers() -> int:
    """Count the processes of this node that record answers."""
    prices = settings.TRINITY_HTTP_WORKERS + settings.TRINITY_UDP_WORKERS
    reports = settings.TRINITY_REPORT_WORKERS + (settings.TRINITY_UDP_WORKERS > 0)
    return int({"APP_SERVER": prices, "REPORT_SERVER": reports}.get(settings.SERVER_TYPE, prices + reports))


def nearly_full(used: int, bound: int) -> Warning:
    return Warning(
        f"The usage spool is nearly full: {used:,} of {bound:,} bytes.",
        hint="See why the database does not take it (manage.py reconcile), or raise TRINITY_SPOOL_BYTES.",
        id="telemetry.W001",
    )


def disk_too_small(used: int, bound: int) -> Warning:
    return Warning(
        f"The disk has no room for a usage spool of {bound:,} bytes, of which {used:,} are taken.",
        hint="Once the disk is full, questions are refused (or shed). Make room, lower TRINITY_SPOOL_BYTES.",
        id="telemetry.W002",
    )


def too_few_segments(segments: int, writers: int) -> Warning:
    return Warning(
        f"The usage spool has room for {segments} segments, and {writers} workers need two each.",
        hint="Who has none refuses or sheds. Raise TRINITY_SPOOL_BYTES or lower TRINITY_SPOOL_SEGMENT_BYTES.",
        id="telemetry.W003",
    )
