"""Conditions on a frame: path → literal, {"starts_with": text}, {"present": true|false}. Sans-I/O.

Also how a symbol is found in a sentence.
"""

import string
from collections.abc import Callable, Mapping
from typing import Any, Final

from exchanges.feed.paths import MISSING, Number, Path, PathError

Test = Callable[[object], bool]
_PUNCTUATION: Final = "._/:@-"
_SYMBOL_CHARACTERS: Final = string.ascii_letters + string.digits + _PUNCTUATION


class MatchError(ValueError):
    """A condition that cannot be read."""


def compile_match(match: Mapping[str, Any]) -> Test:
    """Return a predicate over a decoded document: all conditions must hold.

    An empty match holds for nothing.
    """
    tests = tuple(_compile_condition(path, condition) for path, condition in match.items())
    if not tests:
        return lambda document: False
    return lambda document: all(test(document) for test in tests)


def _compile_condition(path_text: str, condition: Any) -> Test:  # Any: a JSON value from the table
    try:
        path = Path(path_text)
    except PathError as error:
        raise MatchError(f"{path_text!r}: {error}") from None
    match condition:
        case {"starts_with": str(start), **rest} if not rest and start:
            return lambda document: any(
                isinstance(value, str) and not isinstance(value, Number) and value.startswith(start)
                for value in path.every(document)
            )
        case {"present": bool(wanted), **rest} if not rest:
            return lambda document: (path.first(document) is not MISSING) is wanted
        case dict() | list():
            raise MatchError(
                f'{path_text!r}: use a literal, {{"starts_with": "text"}} or {{"present": true|false}}'
            )
    literal = literal_of(condition)
    return lambda document: any(
        type(value) is type(literal) and value == literal for value in path.every(document)
    )


def literal_of(value: Any) -> object:  # Any: a JSON value from the table
    """Return a literal of the table as `paths.load` decodes it: numbers by their text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Number(repr(value))
    return value


def cut_symbol(message: str, *, after: str, before: str) -> str:
    """Return the word of symbol characters that follows *after*, or precedes *before*; empty without one.

    Of both texts the second is looked for behind the first. Takes a time in proportion to the message,
    whatever the row says: patterns could take one that never ends.
    """
    if after:
        _, found, message = message.partition(after)
        if not found:
            return ""
    if before:
        message, found, _ = message.partition(before)
        if not found:
            return ""
    if after:
        word = message[: len(message) - len(message.lstrip(_SYMBOL_CHARACTERS))]
    else:
        word = message[len(message.rstrip(_SYMBOL_CHARACTERS)) :] if before else ""
    return word.strip(_PUNCTUATION)
