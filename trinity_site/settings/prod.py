"""A node that serves the world behind TLS. A missing variable that it needs stops the start."""

from django.core.exceptions import ImproperlyConfigured

from . import environment as env
from .base import *  # noqa: F403 (settings are a namespace)

SECRET_KEY = env.text("DJANGO_SECRET_KEY")
if len(SECRET_KEY) < 50 or len(set(SECRET_KEY)) < 5:
    raise ImproperlyConfigured("DJANGO_SECRET_KEY must have at least 50 characters, and be random.")

ALLOWED_HOSTS = env.words("DJANGO_ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = env.words("DJANGO_CSRF_TRUSTED_ORIGINS", [f"https://{host}" for host in ALLOWED_HOSTS])
TRINITY_BIND = env.text("TRINITY_BIND", "0.0.0.0")
if env.flag("TRINITY_TLS_PROXY"):  # no guess: one of the two redirects for ever, the other believes anybody
    # Only behind a proxy that always sets this header: from anyone else it would be a claim.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    ALLAUTH_TRUSTED_PROXY_COUNT = 1  # the same proxy says whom it speaks for: the last in X-Forwarded-For

SECURE_SSL_REDIRECT = True
SECURE_HSTS_SECONDS = 31_536_000
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
