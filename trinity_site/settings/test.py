"""The test run: PostgreSQL where DATABASE_URL names one, SQLite in memory where not."""

from .base import *  # noqa: F403 (settings are a namespace)
from .base import SQLITE_OPTIONS, database

SECRET_KEY = "tests-only-" + "0" * 48
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
DATABASES = {
    "default": database(":memory:"),
    # What must hold in both kinds of database is tried in this one too.
    "embedded": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "OPTIONS": SQLITE_OPTIONS},
}
# A pool's threads outlive the tests that opened it, and the test database cannot be dropped under them.
DATABASES["default"]["OPTIONS"].pop("pool", None)
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ADMIN_API_KEY = ""
TRINITY_SIMULATOR_URL = ""
TRINITY_ALLOW_LOOPBACK_EXCHANGES = False
TRINITY_STAFF_SECOND_FACTOR = False  # the tests of it switch it on
TRINITY_SPOOL_SEGMENT_BYTES = 65_536
