"""Cells of the command centre. Their data attributes are what the live page updates them by.

An age is written by the page alone (`ageText` in live.js), which lets it grow.
"""

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


def last_tick_cell(name: str, age_ms: int | None) -> SafeString:
    return format_html(
        '<span class="tb-cell" data-feed="{}" data-field="last_tick_age_ms" data-age-ms="{}">–</span>',
        name,
        "" if age_ms is None else age_ms,
    )


def price_cell(row: ExchangeAsset, price: LivePrice | None) -> SafeString:
    return _asset_cell(row, price, "price", "", price.price if price else "–")


def age_cell(row: ExchangeAsset, price: LivePrice | None) -> SafeString:
    return _asset_cell(row, price, "age_ms", price.age_ms if price else "", "–")


def _asset_cell(
    row: ExchangeAsset, price: LivePrice | None, field: str, age_ms: int | str, text: str
) -> SafeString:
    return format_html(
        '<span data-age-ms="{}" class="tb-cell {}" data-asset="{}" data-exchange="{}" data-field="{}">'
        "{}</span>",
        age_ms,
        "tb-none" if price is None else "tb-fresh" if price.fresh else "tb-stale",
        row.asset,
        row.exchange_id,
        field,
        text,
    )


def count_text(number: int) -> str:
    return f"{number:,}"
