"""JSON that people and machines hand in, read strictly and within limits. Pure."""

import json
from typing import Any

MAX_BYTES = 1_048_576
MAX_DEPTH = 16
TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"


class DocumentError(ValueError):
    """Text that is no acceptable JSON document."""


def read_document(text: bytes | str, *, most_bytes: int = MAX_BYTES) -> Any:  # Any: JSON
    """Parse JSON; refuse what is too long or too deep, repeated keys, NaN, and text no database can keep."""
    if len(text) > most_bytes:
        raise DocumentError(f"The document is longer than {most_bytes:,} bytes.")
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except DocumentError:
        raise
    except RecursionError:
        raise DocumentError(f"The document {TOO_DEEP}.") from None
    except ValueError as error:  # also an encoding that is not UTF-8, and a number of thousands of digits
        raise DocumentError(f"The document is not JSON: {error}.") from None
    if reason := unstorable(document):
        raise DocumentError(f"The document {reason}.")
    return document


def unstorable(value: Any, depth: int = 0) -> str:  # Any: JSON
    """Say why a JSON value cannot be kept in a database; empty when it can."""
    if depth > MAX_DEPTH:
        return TOO_DEEP
    if isinstance(value, str):
        return _unstorable_text(value)
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "has a number that is out of range"
    children = (
        [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    return next((reason for child in children if (reason := unstorable(child, depth + 1))), "")


def _unstorable_text(value: str) -> str:
    if "\x00" in value:
        return "must not contain NUL"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "must not contain half a surrogate pair"
    return ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DocumentError(f"The key {twice!r} is there twice.")
    return document


def _refuse_constant(name: str) -> None:
    raise DocumentError(f"{name} is no JSON number.")
