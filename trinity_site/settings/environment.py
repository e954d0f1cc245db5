"""Typed readers of the environment, used by the settings modules alone.

Every error names the variable; no error repeats its value, which may be a secret.
"""

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

_FLAGS = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)
_SCHEMES = ("postgres", "postgresql", "sqlite")


def text(name: str, default: str | None = None) -> str:
    """Read *name*; an unset or blank variable takes the default, and is an error when there is none."""
    value = os.environ.get(name, "").strip()
    if value:
        return value
    if default is None:
        raise ImproperlyConfigured(f"{name} is missing: set it in the environment.")
    return default


def integer(name: str, default: int, *, least: int, most: int) -> int:
    raw = text(name, str(default))
    try:
        value = int(raw)
    except ValueError:
        raise ImproperlyConfigured(f"{name} is not a whole number.") from None
    if not least <= value <= most:
        raise ImproperlyConfigured(f"{name} must be between {least:,} and {most:,}.")
    return value


def port(name: str, default: int) -> int:
    """Read a port; 0 lets the kernel choose one."""
    return integer(name, default, least=0, most=65_535)


def flag(name: str, *, default: bool | None = None) -> bool:
    raw = text(name, None if default is None else str(int(default))).lower()
    if raw not in _FLAGS:
        raise ImproperlyConfigured(f"{name} must be 1 or 0 (or true, false, yes, no, on, off).")
    return _FLAGS[raw]


def choice(name: str, default: str, allowed: Sequence[str]) -> str:
    value = text(name, default)
    if value.lower() not in (option.lower() for option in allowed):
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(allowed)}.")
    return next(option for option in allowed if option.lower() == value.lower())


def words(name: str, default: Sequence[str] | None = None) -> list[str]:
    """Read a comma-separated list."""
    raw = text(name, None if default is None else ",".join(default))
    return [word.strip() for word in raw.split(",") if word.strip()]


def url(name: str, default: str, schemes: Sequence[str]) -> str:
    value = text(name, default)
    if value:
        try:
            parts = urlsplit(value)
            complete = parts.scheme in schemes and bool(parts.hostname or parts.path)
            _ = parts.port  # raises when it is not a number
        except ValueError:
            complete = False
        if not complete:
            raise ImproperlyConfigured(f"{name} must be an address that starts with {' or '.join(schemes)}.")
    return value


def valkey_url(name: str) -> str:
    """Read a Valkey address; its own schemes become those the client library knows."""
    value = url(name, "", ("valkey", "valkeys", "redis", "rediss", "unix"))
    return "redis" + value.removeprefix("valkey") if value.startswith("valkey") else value


def broker_url(name: str) -> str:
    """Read the address of a queue. `sqs://` alone is AWS's, with the machine's own right to it."""
    value = text(name, "")
    if value.startswith(("valkey", "redis")):
        return valkey_url(name)
    return value if value == "sqs://" else url(name, "", ("sqs", "redis", "rediss"))


def database(name: str = "DATABASE_URL") -> dict[str, Any] | None:  # Any: Django's own shape
    """Read a database address into Django's settings; None when the variable is unset."""
    raw = text(name, "")
    if not raw:
        return None
    parsed: dict[str, Any] = {}  # Any: Django's own shape
    if raw.partition("://")[0] in _SCHEMES:  # any other one the parser would print, password and all
        with contextlib.suppress(ValueError):
            parsed = dict(environ.Env.db_url_config(raw))
    if not parsed.get("NAME"):
        raise ImproperlyConfigured(
            f"{name} must look like postgresql://user:password@host:5432/name or sqlite:///path."
        )
    return parsed


def kept_secret(path: Path) -> str:
    """Return the secret kept in *path*, made (0600) the first time; two starters at once agree on one."""
    try:
        return path.read_text("ascii")
    except FileNotFoundError:
        pass
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(50))
        os.link(draft, path)  # fails when another starter was first: its secret is the one
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text("ascii")
