"""What the command centre's JSON endpoints have in common: who may call them, bodies, and problems."""

import functools
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from exchanges.documents import MAX_BYTES, DocumentError, read_document
from exchanges.exceptions import FeedNotFound, Refused
from exchanges.feed.spec import SpecError
from exchanges.services import Author, Door
from pricing.problems import Problem, render_problem

Endpoint = Callable[[HttpRequest, Author], HttpResponse]
View = Callable[[HttpRequest], HttpResponse]


def endpoint(method: str, *permissions: str) -> Callable[[Endpoint], View]:
    """Let a function answer *method* for staff with all of *permissions*, and for the admin key."""

    def decorate(answer: Endpoint) -> View:
        @csrf_exempt  # a header key needs no token; for a session `_author` asks for one
        @never_cache
        @functools.wraps(answer)
        def view(request: HttpRequest) -> HttpResponse:
            try:
                if request.method != method and (request.method, method) != ("HEAD", "GET"):
                    raise Refused("method_not_allowed", f"Use {method}.")
                return answer(request, _author(request, permissions))
            except Refused as error:
                return _refuse(error.problem, method)
            except FeedNotFound as error:
                return _refuse(Problem("unknown_exchange", f"There is no exchange {error.name!r}."), method)
            except SpecError as error:
                return _refuse(Problem("invalid", str(error)[:500], {"errors": error.errors}), method)

        return view

    return decorate


def read_body(request: HttpRequest) -> dict[str, Any]:  # Any: JSON
    """Return the JSON object that the request carries."""
    if request.content_type != "application/json":
        raise Refused("unsupported_media_type", "Send the body as application/json.")
    try:
        body = request.body
    except RequestDataTooBig:
        body = b" " * (MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise Refused("too_large", f"The body is longer than {MAX_BYTES:,} bytes.")
    try:
        document = read_document(body)
    except DocumentError as error:
        raise Refused("bad_request", str(error)) from error
    if not isinstance(document, dict):
        raise Refused("bad_request", "The body must be a JSON object.")
    return document


def _author(request: HttpRequest, permissions: tuple[str, ...]) -> Author:
    key = request.headers.get("X-Admin-Key")
    if key is not None:
        if not settings.ADMIN_API_KEY or not constant_time_compare(key, settings.ADMIN_API_KEY):
            raise Refused("unauthorized", "The admin key is not right, or this node has none.")
        return Author(Door.API)
    user = request.user
    if not user.is_authenticated or not user.is_active:
        raise Refused("unauthorized", "Nobody is signed in, and there is no X-Admin-Key.")
    if not user.is_staff or not user.has_perms(permissions):
        raise Refused("forbidden", "This account may not do that.")
    if reason := _csrf_failure(request):
        raise Refused("forbidden", reason)
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


def _refuse(problem: Problem, method: str) -> HttpResponse:
    body = render_problem(problem)
    response = HttpResponse(body, status=problem.status, content_type="application/problem+json")
    if problem.code == "method_not_allowed":
        response["Allow"] = method
    if problem.code == "unauthorized":
        response["WWW-Authenticate"] = "X-Admin-Key"
    return response
