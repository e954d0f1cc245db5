"""What the command centre's JSON endpoints have in common: who may call them, bodies, and problems."""

import functools
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from exchanges.documents import MAX_BYTES, DocumentError, read_document
from exchanges.exceptions import FeedNotFound
from exchanges.feed.spec import SpecError
from exchanges.services import Author, Door

PROBLEMS = {
    "bad_request": (400, "The request cannot be understood"),
    "invalid": (400, "The rows cannot be used"),
    "unauthorized": (401, "Sign in, or send X-Admin-Key"),
    "forbidden": (403, "This is not allowed"),
    "unknown_exchange": (404, "There is no such exchange"),
    "method_not_allowed": (405, "This address does not answer that method"),
    "too_large": (413, "The request is too large"),
    "unsupported_media_type": (415, "The body must be JSON"),
}

Endpoint = Callable[[HttpRequest, Author], HttpResponse]
View = Callable[[HttpRequest], HttpResponse]


class Problem(Exception):
    """An answer that is an error; *code* is the stable word that programs look at."""

    def __init__(self, code: str, detail: str, **members: Any) -> None:  # Any: JSON members of the answer
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.members = members

    def response(self) -> JsonResponse:
        status, title = PROBLEMS[self.code]
        document = {"type": f"/docs#{self.code}", "title": title, "status": status, "detail": self.detail}
        return JsonResponse(
            {**document, "code": self.code, **self.members},
            status=status,
            content_type="application/problem+json",
        )


def endpoint(method: str, *permissions: str) -> Callable[[Endpoint], View]:
    """Let a function answer *method* for staff with all of *permissions*, and for the admin key."""

    def decorate(answer: Endpoint) -> View:
        @csrf_exempt  # a header key needs no token; for a session `_author` asks for one
        @never_cache
        @functools.wraps(answer)
        def view(request: HttpRequest) -> HttpResponse:
            try:
                if request.method != method and (request.method, method) != ("HEAD", "GET"):
                    raise Problem("method_not_allowed", f"Use {method}.")
                return answer(request, _author(request, permissions))
            except Problem as problem:
                return _with_headers(problem, method)
            except FeedNotFound as error:
                return Problem("unknown_exchange", f"There is no exchange {error.name!r}.").response()
            except SpecError as error:
                return Problem("invalid", str(error)[:500], errors=error.errors).response()

        return view

    return decorate


def read_body(request: HttpRequest) -> dict[str, Any]:  # Any: JSON
    """Return the JSON object that the request carries."""
    if request.content_type != "application/json":
        raise Problem("unsupported_media_type", "Send the body as application/json.")
    try:
        body = request.body
    except RequestDataTooBig:
        body = b" " * (MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise Problem("too_large", f"The body is longer than {MAX_BYTES:,} bytes.")
    try:
        document = read_document(body)
    except DocumentError as error:
        raise Problem("bad_request", str(error)) from error
    if not isinstance(document, dict):
        raise Problem("bad_request", "The body must be a JSON object.")
    return document


def _author(request: HttpRequest, permissions: tuple[str, ...]) -> Author:
    key = request.headers.get("X-Admin-Key")
    if key is not None:
        if not settings.ADMIN_API_KEY or not constant_time_compare(key, settings.ADMIN_API_KEY):
            raise Problem("unauthorized", "The admin key is not right, or this node has none.")
        return Author(Door.API)
    user = request.user
    if not user.is_authenticated or not user.is_active:
        raise Problem("unauthorized", "Nobody is signed in, and there is no X-Admin-Key.")
    if not user.is_staff or not user.has_perms(permissions):
        raise Problem("forbidden", "This account may not do that.")
    if reason := _csrf_failure(request):
        raise Problem("forbidden", reason)
    return Author(Door.API, user)


class _CsrfCheck(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        return HttpResponse(reason, status=403)  # without the page that is meant for people


def _csrf_failure(request: HttpRequest) -> str:
    def view(
        request: HttpRequest,
    ) -> HttpResponse:  # unlike the endpoints not exempt
        return HttpResponse()

    check = _CsrfCheck(view)
    check.process_request(request)
    failure = check.process_view(request, view, (), {})
    return failure.content.decode() if failure else ""


def _with_headers(problem: Problem, method: str) -> JsonResponse:
    response = problem.response()
    if problem.code == "method_not_allowed":
        response["Allow"] = method
    if problem.code == "unauthorized":
        response["WWW-Authenticate"] = "X-Admin-Key"
    return response
