"""Who makes a change, and the way it came in: kept in the history of every row."""

import enum
from dataclasses import dataclass

from django.contrib.auth.base_user import AbstractBaseUser


class Door(enum.StrEnum):
    """The way a change came in, kept with it in the history."""

    ADMIN = "admin"
    ACCOUNT = "account"
    API = "api"
    COMMAND = "command"
    SEED = "seed"


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a change; a machine (key, command) has no user."""

    door: Door
    user: AbstractBaseUser | None = None
