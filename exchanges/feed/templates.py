"""Frames to send, made from the templates of a row. Sans-I/O: time and identifiers come in.

Placeholders: ``{SYMBOLS}`` (the joined list), ``{SYMBOL}`` (then one frame per symbol), ``{NOW_S}``,
``{NOW_MS}``, ``{ID}``, ``{UUID}``. Templates are JSON text and full of braces, so only these names are
replaced.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

_NAMES = ("SYMBOLS", "SYMBOL", "NOW_S", "NOW_MS", "ID", "UUID")
_LOOKS_LIKE_ONE = re.compile(r"\{([A-Z][A-Z_]*)\}")
_decoder = json.JSONDecoder()
REPLY_VALUE = re.compile(r"\{(\$[^{}]*)\}")  # in a reply: the value at that path of the frame it answers


class TemplateError(ValueError):
    """A template that cannot make a frame; ``column`` names it."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column


class Moment(NamedTuple):
    """What the placeholders stand for, once."""

    wall_ns: int
    id: int
    uuid: str


class Frame(NamedTuple):
    """A text to send, and the symbols it asks for (none for a frame like Coinbase's heartbeats)."""

    text: str
    symbols: tuple[str, ...] = ()


def fill(template: str, moment: Moment, **symbols: str) -> str:
    """Replace the placeholders of *template*."""
    values = {
        "NOW_S": str(moment.wall_ns // 10**9),
        "NOW_MS": str(moment.wall_ns // 10**6),
        "ID": str(moment.id),
        "UUID": moment.uuid,
        **symbols,
    }
    return _LOOKS_LIKE_ONE.sub(lambda found: values.get(found[1], found[0]), template)


def render(
    template: str, symbol_template: str, symbols: Sequence[str], *, join: str, moment: Callable[[], Moment]
) -> list[Frame]:
    """Return the frames, in order, that ask for *symbols*; each filled template has a moment of its own."""
    if "{SYMBOLS}" in template:
        listed = join.join(symbol_template.replace("{SYMBOL}", symbol) for symbol in symbols)
        return _split(fill(template, moment(), SYMBOLS=listed), listed, tuple(symbols))
    if "{SYMBOL}" in template:
        frames: list[Frame] = []
        for symbol in symbols:
            inserted = symbol_template.replace("{SYMBOL}", symbol).strip('"')
            frames += _split(fill(template, moment(), SYMBOL=inserted), inserted, (symbol,))
        return frames
    return _split(fill(template, moment()), "", ())


def _split(text: str, listed: str, symbols: tuple[str, ...]) -> list[Frame]:
    """Cut a JSON list of frames into its frames, each as it was written; one frame stays as it is.

    Only the element that lists the symbols asks for them, so that it is the one whose answer is waited for.
    """
    if not text.startswith("["):
        return [Frame(text, symbols)]
    return [Frame(element, symbols if listed in element else ()) for element in _elements(text)]


def _elements(text: str) -> list[str]:
    elements: list[str] = []
    at = 1
    while True:
        while text[at] in " \t\r\n,":
            at += 1
        if text[at] == "]":
            return elements
        _, end = _decoder.raw_decode(text, at)
        elements.append(text[at:end])
        at = end


_SAMPLE = Moment(wall_ns=1_763_816_400 * 10**9, id=1, uuid="00000000-0000-4000-8000-000000000000")


def check_subscribe(template: str, symbol_template: str, *, in_url: bool) -> None:
    """Raise TemplateError unless the templates make JSON frames that name the symbols."""
    _check_names("subscribe_template", template)
    _check_names("symbol_template", symbol_template)
    if "{SYMBOL}" not in symbol_template:
        raise TemplateError("symbol_template", "must contain {SYMBOL}")
    if "{SYMBOLS}" not in template and "{SYMBOL}" not in template and not in_url:
        raise TemplateError(
            "subscribe_template", "must contain {SYMBOLS}, or {SYMBOL} for one frame per symbol"
        )
    sample = fill(template, _SAMPLE, SYMBOLS=symbol_template.replace("{SYMBOL}", "X"), SYMBOL="X")
    try:
        json.loads(sample)
    except (ValueError, RecursionError) as error:
        column = (
            "symbol_template"
            if _is_json(fill(template, _SAMPLE, SYMBOLS='"X"', SYMBOL="X"))
            else "subscribe_template"
        )
        raise TemplateError(column, f"does not make a JSON frame: {error}") from None


def check_ping(payload: str) -> None:
    """Raise TemplateError unless the ping is empty, JSON with its placeholders filled, or plain text."""
    _check_names("ping_payload", payload)
    if payload.startswith(("{", "[")) and not _is_json(fill(payload, _SAMPLE)):
        raise TemplateError("ping_payload", "looks like JSON and is not")


def _check_names(column: str, template: str) -> None:
    for name in _LOOKS_LIKE_ONE.findall(template):
        if name not in _NAMES:
            raise TemplateError(
                column, f"{{{name}}} is no placeholder; there are {', '.join('{' + n + '}' for n in _NAMES)}"
            )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
