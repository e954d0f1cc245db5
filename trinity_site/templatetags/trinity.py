"""Filters of the public pages."""

import re

from django import template
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString, mark_safe

register = template.Library()

THOUSANDS = re.compile(r"\B(?=(\d{3})+$)", re.ASCII)


@register.filter
def digits(number: str) -> str:
    """Write a whole number with thousands apart. Prices are written by the page (`priceText` in live.js)."""
    return THOUSANDS.sub(",", number)


@register.filter
def prose(text: str) -> SafeString:
    """Escape *text* and make what stands in backticks code."""
    parts = [conditional_escape(part) for part in text.split("`")]
    return mark_safe("".join(f"<code>{part}</code>" if odd % 2 else part for odd, part in enumerate(parts)))
