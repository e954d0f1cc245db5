"""Cells of the command centre. Their data attributes are what the live page updates them by."""

from django.utils.html import format_html
from django.utils.safestring import SafeString

from exchanges.live import LiveFeed, LivePrice
from exchanges.models import ExchangeAsset


def state_badge(name: str, feed: LiveFeed) -> SafeString:
    return format_html(
        '<span class="tb-badge tb-{}" data-feed="{}" data-field="state" title="{}">{}</span>',
        feed.state,
        name,
        feed.detail,
        feed.state,
    )


def feed_cell(name: str, field: str, text: str) -> SafeString:
    return format_html('<span class="tb-cell" data-feed="{}" data-field="{}">{}</span>', name, field, text)


def asset_cell(row: ExchangeAsset, field: str, text: str, price: LivePrice | None) -> SafeString:
    return format_html(
        '<span class="tb-cell {}" data-asset="{}" data-exchange="{}" data-field="{}">{}</span>',
        "tb-none" if price is None else "tb-fresh" if price.fresh else "tb-stale",
        row.asset,
        row.exchange_id,
        field,
        text,
    )


def count_text(number: int) -> str:
    return f"{number:,}"


_UNITS = ((1_000, 1, "ms"), (60_000, 1_000, "s"), (3_600_000, 60_000, "min"), (86_400_000, 3_600_000, "h"))


def age_text(age_ms: int | None) -> str:
    """Write an age as people say it: 42 ms, 3 s, 5 min."""
    if age_ms is None:
        return "–"
    for limit, size, unit in _UNITS:
        if age_ms < limit:
            return f"{age_ms // size} {unit}"
    return f"{age_ms // 86_400_000} d"
