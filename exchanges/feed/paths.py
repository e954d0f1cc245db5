"""Paths into a JSON document, as the exchange tables write them. Sans-I/O.

``events[*].trades[*]``  every trade of every event     ``result.*.c[0]``  any key, then the first of ``c``
``data[0].last``         places count from 0, ``[-1]``  ``last|close``     the first of the two that is
there ``$``                    the document itself            ``$.topic``        from the document, not from
the trade

``[*]`` on an object counts it as a list of one: spot sends an object where futures send a list.
"""

import json
import re
from collections.abc import Iterator
from typing import Final

ANY_KEY: Final = object()
EVERY: Final = object()
MISSING: Final = object()

Step = object  # a key (str), a place (int), ANY_KEY or EVERY
_TOKEN = re.compile(r"(?P<dot>\.)?(?:(?P<any>\*)|(?P<key>[^.\[\]*|$\s]+))|\[(?P<place>-?[0-9]{1,4}|\*)\]")
_MAX_STEPS = 12


class PathError(ValueError):
    """The text is not a path."""


class Number(str):
    """The literal text of a JSON number: no digit is lost, and it never equals a string."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def load(frame: str | bytes) -> object:
    """Decode JSON keeping every number as its text; raise ValueError or RecursionError for anything else."""
    text = frame if isinstance(frame, str) else str(frame, "utf-8")
    document = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_refuse_constant)
    if not text.isascii() or "\\u" in text:
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair could never be sent on
    return document


def parse(text: str) -> tuple[Step, ...]:
    """Split one path (without alternatives) into its steps, the leading ``$`` dropped."""
    rest = text.strip()
    if not rest:
        raise PathError("a path must not be empty; use $ for the document itself")
    from_document = rest.startswith("$")
    rest = rest.removeprefix("$")
    steps: list[Step] = []
    at = 0
    while at < len(rest):
        found = _TOKEN.match(rest, at)
        if found is None or (not found["place"] and bool(found["dot"]) != (from_document or at > 0)):
            raise PathError(
                f"cannot read {rest[at:]!r}: write keys as a.b, places as [0], all as [*], any key as *"
            )
        steps.append(_step(found))
        at = found.end()
    if len(steps) > _MAX_STEPS:
        raise PathError(f"longer than {_MAX_STEPS} steps")
    return tuple(steps)


def _step(found: re.Match[str]) -> Step:
    if found["any"]:
        return ANY_KEY
    if found["key"] is not None:
        return found["key"]
    return EVERY if found["place"] == "*" else int(found["place"])


class Path:
    """A path with its alternatives, ready to walk. ``from_document`` says that it starts at the document."""

    __slots__ = ("alternatives", "from_document", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.alternatives = tuple(parse(part) for part in text.split("|"))
        self.from_document = text.strip().startswith("$")

    def every(self, root: object) -> list[object]:
        """Return all the values the path leads to, of the first alternative that leads anywhere."""
        for steps in self.alternatives:
            if found := list(_walk(root, steps)):
                return found
        return []

    def first(self, root: object) -> object:
        """Return the first value, or MISSING."""
        for steps in self.alternatives:
            for value in _walk(root, steps):
                return value
        return MISSING

    def rows(self, root: object) -> list[object]:
        """Return the values as rows: a list of objects or lists is many rows, anything else is one."""
        rows: list[object] = []
        for value in self.every(root):
            if isinstance(value, list) and all(isinstance(item, dict | list) for item in value):
                rows.extend(value)
            else:
                rows.append(value)
        return rows


def _walk(value: object, steps: tuple[Step, ...]) -> Iterator[object]:
    for number, step in enumerate(steps):
        if step is EVERY or step is ANY_KEY:
            for child in _children(value, step):
                yield from _walk(child, steps[number + 1 :])
            return
        value = _child(value, step)
        if value is MISSING:
            return
    yield value


def _children(value: object, step: Step) -> list[object]:
    if step is EVERY:
        return value if isinstance(value, list) else [value] if isinstance(value, dict) else []
    return list(value.values()) if isinstance(value, dict) else []


def _child(value: object, step: Step) -> object:
    if isinstance(step, int):
        return value[step] if isinstance(value, list) and -len(value) <= step < len(value) else MISSING
    return value.get(step, MISSING) if isinstance(value, dict) else MISSING
