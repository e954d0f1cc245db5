"""Filters of the command centre's own pages."""

from datetime import UTC, datetime

from django import template

from exchanges.feed.reasons import EXPLANATIONS

register = template.Library()


@register.filter
def meaning(reason: str) -> str:
    """Say in plain words why ticks are refused for *reason*."""
    return EXPLANATIONS.get(reason, "")


@register.filter
def wall_time(wall_ns: int) -> datetime:
    return datetime.fromtimestamp(wall_ns // 10**9, UTC)
