"""What of a node's usage is on its way to the database, and what about that needs somebody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from django.conf import LazySettings
from django.template.defaultfilters import filesizeformat
from django.urls import reverse

from telemetry._spool import decode
from telemetry.exceptions import LayoutError
from telemetry.ledger import SegmentState, covered
from telemetry.parameters import SpoolParameters
from telemetry.segments import Segment, find_segments, used_bytes
from trinity_site.readings import Figure, Need

TOO_LONG = timedelta(minutes=2)
"""What was lost on its way is sent again after a minute, or once something else arrives."""
MOST_LOOKED_AT = 32
"""Segments, the oldest first: with a backlog, what waits longest is in one of them."""


class Waiting(NamedTuple):
    """The spool of one node, and since when something waits in it."""

    used_bytes: int
    bound_bytes: int
    warn_percent: int
    since: datetime | None
    """When the oldest answer was given that the database has not."""

    @property
    def is_near(self) -> bool:
        return self.used_bytes * 100 >= self.bound_bytes * self.warn_percent


def look(settings: LazySettings) -> Waiting:
    """Look at this node's spool. With a long backlog only the oldest part of it is read."""
    parameters, root = SpoolParameters.of(settings), settings.TRINITY_DATA_DIR / "spool"
    return Waiting(
        used_bytes(root),
        parameters.spool_bytes,
        parameters.warn_percent,
        min(oldest_waiting(root, settings.CLUSTER_NODE), default=None),
    )


def oldest_waiting(root: Path, node: str) -> Iterator[datetime]:
    """Yield when the first answer of each segment was given that is not in the ledger."""
    paths = sorted(find_segments(root), key=lambda path: path.name)[:MOST_LOOKED_AT]
    names = {path: f"{path.parent.name}-{int(path.stem)}" for path in paths if path.stem.isdecimal()}
    states = covered(node, list(names.values()))
    for path, name in names.items():
        # It may be passed on and deleted meanwhile, or set aside.
        with suppress(FileNotFoundError, LayoutError), Segment(path) as segment:
            if (moment := first_waiting(segment, states[name])) is not None:
                yield moment


def first_waiting(segment: Segment, state: SegmentState) -> datetime | None:
    """Return when the first answer was given that is in the segment and not in the ledger."""
    logs = decode(segment.read(state.contiguous, 1).records)
    return datetime.fromtimestamp(logs[0].time_ns // 1_000_000_000, UTC) if logs else None


def figures(waiting: Waiting, now: datetime) -> list[Figure]:
    percent = 100 * waiting.used_bytes / waiting.bound_bytes
    used, bound = filesizeformat(waiting.used_bytes), filesizeformat(waiting.bound_bytes)
    since = "nothing" if waiting.since is None else span(now - waiting.since)
    return [
        Figure("spool_percent", "Usage spool", f"{percent:.2g} %", f"{used} of {bound}"),
        Figure("usage_waits", "Waits for the database", since, "the oldest usage log of this node"),
    ]


def needs(waiting: Waiting, now: datetime) -> Iterator[Need]:
    """Say what is wrong on the way from the spool to the database."""
    segments = reverse("admin:telemetry_usagesegment_changelist")
    if waiting.is_near:
        used, bound = filesizeformat(waiting.used_bytes), filesizeformat(waiting.bound_bytes)
        yield Need("refused", f"The usage spool is nearly full: {used} of {bound}", segments)
    if waiting.since is not None and now - waiting.since > TOO_LONG:
        text = f"Usage has waited for the database for {span(now - waiting.since)}: is the shipper running?"
        yield Need("quiet", text, segments)


def span(time: timedelta) -> str:
    """Write a time with the unit that fits."""
    seconds = max(0, int(time.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
