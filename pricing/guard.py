"""Who may call the operators' JSON endpoints: staff with the permissions, and machines with the admin key."""

import functools
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from billing.authors import Author, Door
from pricing.exceptions import RequestRefused
from pricing.problems import Problem, render_problem

Endpoint = Callable[[HttpRequest, Author], HttpResponse]
View = Callable[[HttpRequest], HttpResponse]


def guarded(*methods: str, permissions: tuple[str, ...]) -> Callable[[Endpoint], View]:
    """Let a function answer *methods* for staff with all of *permissions*, and for the admin key.

    What takes more than GET changes something: a session then needs its CSRF token, whatever the method.
    """
    changes = set(methods) != {"GET"}
    accepted = methods if changes else (*methods, "HEAD")

    def decorate(answer: Endpoint) -> View:
        @csrf_exempt  # a header key needs no token; for a session `_author` asks for one
        @never_cache
        @functools.wraps(answer)
        def view(request: HttpRequest) -> HttpResponse:
            try:
                if request.method not in accepted:
                    raise RequestRefused("method_not_allowed", f"Use {' or '.join(methods)}.")
                return answer(request, _author(request, permissions, changes=changes))
            except RequestRefused as error:
                return _refuse(error.problem, methods)

        return view

    return decorate


def _author(request: HttpRequest, permissions: tuple[str, ...], *, changes: bool) -> Author:
    key = request.headers.get("X-Admin-Key")
    if key is not None:
        if not settings.ADMIN_API_KEY or not constant_time_compare(key, settings.ADMIN_API_KEY):
            raise RequestRefused("unauthorized", "The admin key is not right, or this node has none.")
        return Author(Door.API)
    user = request.user
    if not user.is_authenticated or not user.is_active:
        raise RequestRefused("unauthorized", "Nobody is signed in, and there is no X-Admin-Key.")
    if not user.is_staff or not user.has_perms(permissions):
        raise RequestRefused("forbidden", "This account may not do that.")
    if changes and (reason := _csrf_failure(request)):
        raise RequestRefused("forbidden", reason)
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
    method = request.method
    if method == "GET":
        request.method = "PUT"  # Django asks no GET for a token, and a PUT for one in the header
    try:
        failure = check.process_view(request, view, (), {})
    finally:
        request.method = method
    return failure.content.decode() if failure else ""


def _refuse(problem: Problem, methods: tuple[str, ...]) -> HttpResponse:
    body = render_problem(problem)
    response = HttpResponse(body, status=problem.status, content_type="application/problem+json")
    if problem.code == "method_not_allowed":
        response["Allow"] = ", ".join(methods)
    if problem.code == "unauthorized":
        response["WWW-Authenticate"] = "X-Admin-Key"
    return response
