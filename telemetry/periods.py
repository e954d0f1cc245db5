"""Times that pages look back on, and the hours or days that they are told by. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_HOUR_S = 3_600


class Step(NamedTuple):
    """How long a column of the chart over time is."""

    group: str
    title: str
    length: timedelta
    number: Callable[[datetime], int]
    label: Callable[[datetime], str]
    name: Callable[[datetime], str]


def _hour_label(moment: datetime) -> str:
    return f"{moment:%H:%M}" if moment.hour else _day_label(moment)


def _day_label(moment: datetime) -> str:
    return f"{moment.day} {moment:%b}"


HOURS = Step(
    "hour",
    "Answers by hour",
    timedelta(hours=1),
    lambda moment: int(moment.timestamp()) // _HOUR_S,
    _hour_label,
    lambda moment: f"{_day_label(moment)}, {moment:%H:%M} UTC",
)
DAYS = Step(
    "day", "Answers by day", timedelta(days=1), lambda moment: moment.toordinal(), _day_label, _day_label
)


class Period(NamedTuple):
    """A time to look back on, in whole hours or days up to now."""

    title: str
    step: Step
    begin: Callable[[datetime], datetime]
    """Of the present hour or day."""
    ends_before_month: bool = False


def _days_ago(days: int) -> Callable[[datetime], datetime]:
    return lambda now: now - timedelta(days=days)


def _last_month(now: datetime) -> datetime:
    return (now.replace(day=1) - timedelta(days=1)).replace(day=1)


PERIODS = {
    "24h": Period("Last 24 hours", HOURS, lambda now: now - timedelta(hours=23)),
    "7d": Period("Last 7 days", HOURS, lambda now: now.replace(hour=0) - timedelta(days=6)),
    "30d": Period("Last 30 days", DAYS, _days_ago(29)),
    "month": Period("This month", DAYS, lambda now: now.replace(day=1)),
    "last-month": Period("Last month", DAYS, _last_month, ends_before_month=True),
    "90d": Period("Last 90 days", DAYS, _days_ago(89)),
}


def bounds_of(period: Period, now: datetime) -> tuple[datetime, datetime]:
    """Return from when and up to when a period goes."""
    now = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if period.step is DAYS:
        now = now.replace(hour=0)
    end = now.replace(day=1) if period.ends_before_month else now + period.step.length
    return period.begin(now), end
