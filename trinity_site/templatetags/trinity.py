"""Filters of the public pages."""

import re

from django import template
from django.utils.html import conditional_escape, format_html_join
from django.utils.safestring import SafeString, mark_safe

from exchanges.renderers import age_text

register = template.Library()
register.filter("age", age_text)

THOUSANDS = re.compile(r"\B(?=(\d{3})+$)", re.ASCII)
JSON_PARTS = re.compile(r'("(?:[^"\\]|\\.)*")(?=(\s*:)?)|-?\d+(?:\.\d+)?|\b(?:true|false|null)\b')


@register.filter
def digits(price: str) -> str:
    """Write a price's own digits with thousands apart; no digit is added, rounded or lost."""
    whole, point, fraction = price.partition(".")
    return THOUSANDS.sub(",", whole) + point + fraction


@register.filter
def prose(text: str) -> SafeString:
    """Escape *text* and make what stands in backticks code."""
    parts = [conditional_escape(part) for part in text.split("`")]
    return mark_safe("".join(f"<code>{part}</code>" if odd % 2 else part for odd, part in enumerate(parts)))


@register.filter
def json_colours(text: str) -> SafeString:
    """Escape JSON and wrap its keys, texts and other values for the style sheet."""
    pieces: list[tuple[str, str, str]] = []
    end = 0
    for match in JSON_PARTS.finditer(text):
        quoted, colon = match.groups()
        kind = "key" if colon else "text" if quoted else "value"
        pieces.append((text[end : match.start()], kind, match.group()))
        end = match.end()
    coloured = format_html_join("", '{}<span class="json-{}">{}</span>', pieces)
    return mark_safe(coloured + conditional_escape(text[end:]))
