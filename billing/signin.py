"""How people sign in: customers by a code sent to their address, staff by password and a second factor.

django-allauth does the work; here is what this site decides. A browser that has signed in before keeps a
signed cookie and with it rate limits of its own: whoever guesses at an account cannot lock its owner out.
"""

import base64
import hashlib
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.app_settings import EmailVerificationMethod
from allauth.account.forms import LoginForm, RequestLoginCodeForm
from allauth.account.internal.userkit import filter_users_by_email
from allauth.account.views import LoginView
from allauth.core import context, ratelimit
from allauth.mfa.adapter import DefaultMFAAdapter
from cryptography.fernet import Fernet, MultiFernet
from django import forms
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.encoding import force_str

from billing.models import SecurityEvent
from billing.security import Attempt, record

DEVICE_COOKIE = "known_device"
DEVICE_AGE_S = 180 * 86_400
DEVICE_SALT = "billing.signin.device"
USERNAME_CHARACTERS = 150
SECOND_FACTOR_KEY = "second_factor"  # in the session: the id of the user who has shown one in it


class AccountAdapter(DefaultAccountAdapter):
    """Customers have their address as user name, and no password."""

    def populate_username(self, request: HttpRequest, user: AbstractBaseUser) -> None:
        user.username = user.email  # type: ignore[attr-defined]  # Django's own user

    def clean_email(self, email: str) -> str:
        if len(email) > USERNAME_CHARACTERS:
            raise ValidationError("Please use an address of at most 150 characters.")
        return str(super().clean_email(email)).lower()

    def send_account_already_exists_mail(self, email: str) -> None:
        """Lead to the sign-in page; allauth's own mail leads to a new password, which nobody has here."""
        login_url = context.request.build_absolute_uri(reverse("account_login"))
        self.send_mail("account/email/account_already_exists", email, {"login_url": login_url})

    def validation_error(self, code: str, *args: Any) -> ValidationError:  # Any: allauth's own
        if code == "too_many_login_attempts":
            slowed_down(context.request)
        return super().validation_error(code, *args)

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        name = str(credentials.get("username", "")).lower()
        return f"{name}:known" if is_known_device(request, name) else name


class SecondFactorAdapter(DefaultMFAAdapter):
    """Secrets of second factors lie encrypted in the database, under a key made from SECRET_KEY."""

    def encrypt(self, text: str) -> str:
        return _fernet().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        return _fernet().decrypt(encrypted_text.encode()).decode()

    def get_totp_issuer(self) -> str:
        return "The Trinity Beast"


def _fernet() -> MultiFernet:
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    digests = [hashlib.sha256(f"second factor:{force_str(secret)}".encode()).digest() for secret in secrets]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(digest)) for digest in digests])


# Customers


class CodeRequestForm(RequestLoginCodeForm):
    """Asks for an address; a known device is not slowed down by what others ask for it."""

    def clean_email(self) -> str:
        email = str(self.cleaned_data["email"]).lower()
        if not is_known_device(context.request, email):
            return str(super().clean_email())
        if not ratelimit.consume(context.request, action="request_login_code_known", key=email):
            raise AccountAdapter(context.request).validation_error("too_many_login_attempts")
        users = filter_users_by_email(email, is_active=True, prefer_verified=True, for_login=True)
        self._user = users[0] if users else None
        return email


class CustomerLoginForm(LoginForm):
    """The address alone: what follows is a code."""

    def _clean_without_password(
        self, email: str | None, phone: str | None
    ) -> dict[str, Any]:  # Any: allauth's
        form = CodeRequestForm({"email": email})
        if form.is_valid():
            self.user = form._user
        for error in form.errors.get("email", []):
            self.add_error("login", error)
        return self.cleaned_data


# Staff


class StaffLoginForm(LoginForm):
    """User name and password; the second factor follows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # Any: Django's own signature
        super().__init__(*args, **kwargs)
        widget = forms.TextInput(
            attrs={"autocomplete": "username", "autocapitalize": "none", "autofocus": True}
        )
        self.fields["login"] = forms.CharField(
            label="User name", widget=widget, max_length=USERNAME_CHARACTERS
        )
        self.order_fields(["login", "password"])

    def _setup_password_field(self) -> None:
        """Keep the field, which allauth takes away where sign-up asks for no password."""

    def user_credentials(self) -> dict[str, str]:
        return {"username": self.cleaned_data["login"], "password": self.cleaned_data["password"]}

    def login(self, request: HttpRequest, redirect_url: str | None = None) -> HttpResponse:
        self._login.email_verification = EmailVerificationMethod.NONE  # operators make these accounts
        return super().login(request, redirect_url)


class StaffLoginView(LoginView):
    template_name = "account/staff_login.html"

    def get_form_class(self) -> type[StaffLoginForm]:
        return StaffLoginForm


# Second factor


def is_second_factor_missing(user: AbstractBaseUser | AnonymousUser, proof: object) -> bool:
    """Say whether *user* is staff and must show one; *proof* is what the session has as SECOND_FACTOR_KEY."""
    if not settings.TRINITY_STAFF_SECOND_FACTOR or not getattr(user, "is_staff", False):
        return False
    return proof != str(user.pk)


# Known devices


def is_known_device(request: HttpRequest, name: str) -> bool:
    """Say whether this browser has signed in as *name* before; a wrong or old cookie says no."""
    known = request.get_signed_cookie(DEVICE_COOKIE, default="", salt=DEVICE_SALT, max_age=DEVICE_AGE_S)
    return bool(name) and known == _device(name)


def remember_device(request: HttpRequest, response: HttpResponse) -> None:
    """Let the browser know that it has signed in; said once a session."""
    name = request.user.get_username()
    if not is_known_device(request, name):
        response.set_signed_cookie(
            DEVICE_COOKIE,
            _device(name),
            salt=DEVICE_SALT,
            max_age=DEVICE_AGE_S,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )


def _device(name: str) -> str:
    return hashlib.sha256(name.lower().encode()).hexdigest()[:32]  # the cookie names nobody


def slowed_down(request: HttpRequest) -> None:
    """Record that somebody came too often."""
    record([Attempt(SecurityEvent.Kind.RATE_LIMITED, client_address(request))])


def client_address(request: HttpRequest) -> str:
    return str(AccountAdapter(request).get_client_ip(request))
