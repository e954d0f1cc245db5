"""The Trinity Beast Command Centre: the admin site itself. Apart from `admin.py`, which needs it to exist."""

from typing import Any

from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.sites import UnfoldAdminSite


class CommandCentre(UnfoldAdminSite):
    site_title = "Trinity Beast Command Centre"
    site_header = "Trinity Beast Command Centre"
    index_title = "Now"
    index_template = "command_centre/index.html"

    def login(
        self,
        request: HttpRequest,
        extra_context: dict[str, Any] | None = None,  # Any: a template's context
    ) -> HttpResponse:
        """Leave signing in to the site's own page, with its rate limits and the second factor."""
        if self.has_permission(request):
            return super().login(request, extra_context)
        if request.user.is_authenticated:
            raise PermissionDenied
        wanted = request.GET.get(REDIRECT_FIELD_NAME, reverse("admin:index", current_app=self.name))
        return redirect_to_login(wanted, reverse("account_staff_login"))
