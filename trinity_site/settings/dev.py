"""A node on a desk: nothing to configure, everything in the data folder."""

import sys

from . import environment as env
from .base import *  # noqa: F403 (settings are a namespace)
from .base import INSTALLED_APPS, SECRET_KEY, TRINITY_BIND, TRINITY_DATA_DIR

DEBUG = env.flag("DJANGO_DEBUG", default=False)
SECRET_KEY = SECRET_KEY or env.kept_secret(TRINITY_DATA_DIR / "secret_key")
ALLOWED_HOSTS = env.words("DJANGO_ALLOWED_HOSTS", ("localhost", "127.0.0.1", "[::1]", TRINITY_BIND))

if sys.argv[1:2] == ["runserver"]:
    INSTALLED_APPS = ["daphne", *INSTALLED_APPS]  # 0.7 s to import: only for the one command it serves
