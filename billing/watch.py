"""What Django and allauth report about signing in: failures are recorded, a second factor is remembered."""

from typing import Any

from allauth.account.signals import email_verification_code_rejected, login_code_rejected
from allauth.mfa.models import Authenticator
from allauth.mfa.signals import (
    authentication_failed,
    authenticator_added,
    authenticator_removed,
    authenticator_used,
)
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.signals import user_login_failed
from django.dispatch import receiver
from django.http import HttpRequest

from billing.models import SecurityEvent
from billing.security import Attempt, record
from billing.signin import SECOND_FACTOR_KEY, client_address

Kind = SecurityEvent.Kind


@receiver(user_login_failed)
def password_refused(
    credentials: dict[str, Any],
    request: HttpRequest | None = None,
    **kwargs: Any,  # Any: signals' own, as below
) -> None:
    name = str(credentials.get("username", ""))
    known = (
        get_user_model().objects.filter(username=name).exists()
    )  # else it may be a password in the wrong field
    _refused(Kind.PASSWORD_REFUSED, request, name if known else "")


@receiver([login_code_rejected, email_verification_code_rejected])
def code_refused(request: HttpRequest, user: AbstractBaseUser, **kwargs: Any) -> None:
    _refused(Kind.CODE_REFUSED, request, user.get_username())


@receiver(authentication_failed)
def second_factor_refused(request: HttpRequest, user: AbstractBaseUser, **kwargs: Any) -> None:
    _refused(Kind.SECOND_FACTOR_REFUSED, request, user.get_username())


def _refused(kind: SecurityEvent.Kind, request: HttpRequest | None, subject: str) -> None:
    record([Attempt(kind, client_address(request) if request else "", subject)])


@receiver([authenticator_added, authenticator_used])
def second_factor_shown(request: HttpRequest, user: AbstractBaseUser, **kwargs: Any) -> None:
    request.session[SECOND_FACTOR_KEY] = str(user.pk)


@receiver(authenticator_removed)
def second_factor_removed(request: HttpRequest, user: AbstractBaseUser, **kwargs: Any) -> None:
    if not Authenticator.objects.filter(user_id=user.pk).exists():
        request.session.pop(SECOND_FACTOR_KEY, None)
