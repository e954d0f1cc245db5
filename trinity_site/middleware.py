"""What differs under /admin/: the content security policy that Unfold needs, and the second factor."""

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from csp.middleware import CSPMiddleware, PolicyParts
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils.decorators import sync_and_async_middleware

from billing.signin import SECOND_FACTOR_KEY, is_second_factor_missing


class ContentSecurityPolicy(CSPMiddleware):
    def get_policy_parts(
        self, request: HttpRequest, response: HttpResponseBase, report_only: bool = False
    ) -> PolicyParts:
        parts = super().get_policy_parts(request, response, report_only)
        if request.path_info.startswith("/admin/") and not report_only and parts.config is None:
            parts.config = settings.ADMIN_CONTENT_SECURITY_POLICY
        return parts


@sync_and_async_middleware
def second_factor(
    get_response: Callable[[HttpRequest], Any],
) -> Callable[[HttpRequest], Any]:  # Any: of both kinds
    """Lead staff without a second factor to where they set one up, whatever they ask for under /admin/."""
    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> Any:
            if request.path_info.startswith("/admin/"):
                proof = await request.session.aget(SECOND_FACTOR_KEY)
                if refusal := _refusal(request, await request.auser(), proof):
                    return refusal
            return await get_response(request)

        return asynchronous

    def synchronous(request: HttpRequest) -> Any:
        if request.path_info.startswith("/admin/"):
            proof = request.session.get(SECOND_FACTOR_KEY)
            if refusal := _refusal(request, request.user, proof):
                return refusal
        return get_response(request)

    return synchronous


def _refusal(
    request: HttpRequest, user: AbstractBaseUser | AnonymousUser, proof: object
) -> HttpResponse | None:
    if not is_second_factor_missing(user, proof):
        return None
    if (
        request.method == "GET"
        and request.get_preferred_type(["text/html", "application/json"]) == "text/html"
    ):
        messages.warning(
            request, "The command centre needs a second factor. Activate one, then go on to /admin/."
        )
        return HttpResponseRedirect(reverse("mfa_index"))
    return HttpResponse("The staff needs a second factor: set it up at /account/second-factor/.", status=403)
