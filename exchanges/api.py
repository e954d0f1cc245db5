"""What the exchanges' JSON endpoints have in common: bodies, and what can be wrong with them."""

import functools
from collections.abc import Callable
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse

from exchanges.documents import MAX_BYTES, DocumentError, read_document
from exchanges.exceptions import FeedNotFound
from exchanges.feed.spec import SpecError
from exchanges.services import Author
from pricing.exceptions import RequestRefused
from pricing.guard import Endpoint, View, guarded


def endpoint(method: str, *permissions: str) -> Callable[[Endpoint], View]:
    """Let a function answer as `guarded` does; what is wrong with feeds is a problem, too."""

    def decorate(answer: Endpoint) -> View:
        @functools.wraps(answer)
        def refusing(request: HttpRequest, author: Author) -> HttpResponse:
            try:
                return answer(request, author)
            except FeedNotFound as error:
                raise RequestRefused("unknown_exchange", f"There is no exchange {error.name!r}.") from error
            except SpecError as error:
                raise RequestRefused("invalid", str(error)[:500], errors=error.errors) from error

        return guarded(method, permissions=permissions)(refusing)

    return decorate


def read_body(request: HttpRequest) -> dict[str, Any]:  # Any: JSON
    """Return the JSON object that the request carries."""
    if request.content_type != "application/json":
        raise RequestRefused("unsupported_media_type", "Send the body as application/json.")
    try:
        body = request.body
    except RequestDataTooBig:
        body = b" " * (MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise RequestRefused("too_large", f"The body is longer than {MAX_BYTES:,} bytes.")
    try:
        document = read_document(body)
    except DocumentError as error:
        raise RequestRefused("bad_request", str(error)) from error
    if not isinstance(document, dict):
        raise RequestRefused("bad_request", "The body must be a JSON object.")
    return document
