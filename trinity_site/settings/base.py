"""What is true everywhere. The environment is read in this package and nowhere else."""

import os
from pathlib import Path
from typing import Any

from csp.constants import NONE, SELF, UNSAFE_EVAL, UNSAFE_INLINE
from django.templatetags.static import static
from django.urls import reverse_lazy

from . import environment as env

BASE_DIR = Path(__file__).resolve().parents[2]

# The node

TRINITY_DATA_DIR = Path(env.text("TRINITY_DATA_DIR", str(BASE_DIR / "var"))).resolve()
TRINITY_DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
CLUSTER_NODE = env.text("CLUSTER_NODE", "BeastMain")
AWS_REGION = env.text("AWS_REGION", "")
SERVER_TYPE = env.choice(
    "SERVER_TYPE", "APP_REPORT_SERVER", ("APP_SERVER", "REPORT_SERVER", "APP_REPORT_SERVER")
)
TRINITY_BIND = env.text("TRINITY_BIND", "127.0.0.1")
TRINITY_HTTP_PORT = env.port("TRINITY_HTTP_PORT", 8080)
TRINITY_HEALTH_PORT = env.port("TRINITY_HEALTH_PORT", 8081)
TRINITY_HTTP_WORKERS = env.integer("TRINITY_HTTP_WORKERS", 2, least=1, most=31)
TRINITY_REPORTS_PORT = env.port("TRINITY_REPORTS_PORT", 9090)
TRINITY_REPORTS_HEALTH_PORT = env.port("TRINITY_REPORTS_HEALTH_PORT", 9091)
TRINITY_REPORTS_UDP_PORT = env.port("TRINITY_REPORTS_UDP_PORT", 2680)
TRINITY_REPORT_WORKERS = env.integer("TRINITY_REPORT_WORKERS", 1, least=1, most=8)
TRINITY_UDP_BIND = env.text("TRINITY_UDP_BIND", "")  # unset: TRINITY_BIND
TRINITY_UDP_PORT = env.port("TRINITY_UDP_PORT", 2679)
TRINITY_CORES = sorted(os.sched_getaffinity(0))
# One for each core; 0: this node answers nothing over UDP.
TRINITY_UDP_WORKERS = env.integer("TRINITY_UDP_WORKERS", min(len(TRINITY_CORES), 31), least=0, most=31)
TRINITY_UDP_PINNED = env.flag("TRINITY_UDP_PINNED", default=False)  # each worker to a core of its own
# Of one worker. Behind a load balancer that speaks for everybody, allow as many as there are at all.
TRINITY_CONNECTIONS_PER_ADDRESS = env.integer("TRINITY_CONNECTIONS_PER_ADDRESS", 512, least=1, most=4_000)
TRINITY_BOARD_SLOTS = env.integer("TRINITY_BOARD_SLOTS", 4096, least=64, most=1_000_000)
TRINITY_GATE_ROWS = env.integer("TRINITY_GATE_ROWS", 65_536, least=1_024, most=16_777_216)
TRINITY_SPOOL_BYTES = env.integer("TRINITY_SPOOL_BYTES", 8 << 30, least=131_072, most=1 << 50)
TRINITY_SPOOL_SEGMENT_BYTES = env.integer("TRINITY_SPOOL_SEGMENT_BYTES", 16 << 20, least=65_536, most=1 << 30)
TRINITY_SPOOL_SYNC_MS = env.integer("TRINITY_SPOOL_SYNC_MS", 1_000, least=1, most=60_000)
TRINITY_SPOOL_FULL = env.choice("TRINITY_SPOOL_FULL", "refuse", ("refuse", "shed"))
TRINITY_LOG_LEVEL = env.choice("TRINITY_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
REDIS_URL = env.url("REDIS_URL", "", ("redis", "rediss", "unix")) or env.valkey_url("VALKEY_URL")
CELERY_BROKER_URL = env.broker_url(
    "CELERY_BROKER_URL"
)  # unset: usage is written to the database by the shipper
# Of this node; 0: others take from the queue.
TRINITY_QUEUE_WORKERS = env.integer("TRINITY_QUEUE_WORKERS", 1, least=0, most=16)

TRINITY_SIMULATOR_PORT = env.port("TRINITY_SIMULATOR_PORT", 0)  # 0: prices are real
TRINITY_SIMULATOR_URL = f"http://127.0.0.1:{TRINITY_SIMULATOR_PORT}" if TRINITY_SIMULATOR_PORT else ""
TRINITY_ALLOW_LOOPBACK_EXCHANGES = env.flag(
    "TRINITY_ALLOW_LOOPBACK_EXCHANGES", default=bool(TRINITY_SIMULATOR_URL)
)

# Django

SECRET_KEY = env.text("DJANGO_SECRET_KEY", "")  # dev and test bring their own; prod insists on one
TRINITY_KEY = env.text("TRINITY_KEY", "")  # what `manage.py stress` asks with
ADMIN_API_KEY = env.text("ADMIN_API_KEY", "")  # unset: the X-Admin-Key header is refused
DEBUG = False
ALLOWED_HOSTS: list[str] = []
ROOT_URLCONF = "trinity_site.urls"
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "account"
LOGOUT_REDIRECT_URL = "home"
ASGI_APPLICATION = "trinity_site.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
FORMAT_MODULE_PATH = "trinity_site.formats"

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",  # before the admin, whose templates it replaces
    "unfold.contrib.filters",
    "unfold.contrib.simple_history",
    "trinity_site.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "simple_history",
    "channels",
    "csp",
    "servestatic",
    "trinity_site",  # before allauth, whose pages it dresses
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "telemetry",
    "billing",
    "pricing",
    "exchanges",
    "udp_engine",
]

# Every one of these is async: a sync one would cost each request a hop to a thread and back.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "trinity_site.middleware.ContentSecurityPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "trinity_site.middleware.second_factor",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "trinity_site.context.site",
            ],
        },
    },
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# Signing in: customers by a code sent to their address, staff by password and second factor

AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
ACCOUNT_ADAPTER = "billing.signin.AccountAdapter"
ACCOUNT_FORMS = {"login": "billing.signin.CustomerLoginForm"}
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_TIMEOUT = 900
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_LOGIN_BY_CODE_ENABLED = True
ACCOUNT_LOGIN_BY_CODE_TIMEOUT = 900
ACCOUNT_SESSION_REMEMBER = True
# By account no more than nine guesses in a quarter of an hour, wherever they come from: three codes with
# three tries each. A device that has signed in before has its own count (billing/signin.py).
ACCOUNT_RATE_LIMITS = {
    "login_failed": "10/m/ip,5/15m/key",
    "request_login_code": "20/m/ip,3/15m/key",
    "request_login_code_known": "20/m/ip,5/15m/key",
}
ACCOUNT_LOGIN_BY_CODE_MAX_ATTEMPTS = 3
ALLAUTH_TRUSTED_PROXY_COUNT = 0  # the address of the connection counts, never a header that anybody can send
MFA_ADAPTER = "billing.signin.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_TOTP_TOLERANCE = 1  # clocks of telephones are seldom right to the second
MFA_RECOVERY_CODES_SHOW_ONCE = True
TRINITY_STAFF_SECOND_FACTOR = env.flag("TRINITY_STAFF_SECOND_FACTOR", default=not TRINITY_SIMULATOR_URL)

# Rate limits of the sign-in pages hold across processes and nodes, so they are kept where all can see them.
# Far more entries than anybody's guesses make: an early cull would let a guesser start anew.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "django_cache",
        "OPTIONS": {"MAX_ENTRIES": 50_000},
    }
}

# Mail: to the log and into the data folder until SMTP_HOST names a server

EMAIL_HOST = env.text("SMTP_HOST", "")
EMAIL_PORT = env.port("SMTP_PORT", 587)
EMAIL_HOST_USER = env.text("SMTP_USER", "")
EMAIL_HOST_PASSWORD = env.text("SMTP_PASSWORD", "")
EMAIL_USE_TLS = True
EMAIL_TIMEOUT = 10
EMAIL_FILE_PATH = TRINITY_DATA_DIR / "mail"
EMAIL_BACKEND = (
    "django.core.mail.backends.smtp.EmailBackend" if EMAIL_HOST else "trinity_site.mail.FolderAndLog"
)
DEFAULT_FROM_EMAIL = env.text("SES_SENDER_SUPPORT", "trinity@localhost")

# The database: SQLite in the data folder until DATABASE_URL names a PostgreSQL

SQLITE_OPTIONS = {
    # A transaction that reads first and writes later cannot wait for the lock half way: it takes it at once.
    "transaction_mode": "IMMEDIATE",
    "timeout": 10,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA mmap_size=134217728;",
}
POSTGRESQL_OPTIONS = {
    "pool": {"min_size": 1, "max_size": 8, "timeout": 5},
    # A server whose machine or network is gone says nothing: whoever waits for it knows within 45 s. One that
    # lives may be slow to read, as while a lock is waited for: `lock_timeout` of the usage path is 30 s.
    "connect_timeout": 5,  # seconds
    "tcp_user_timeout": 45_000,  # milliseconds
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


def database(fallback: Path | str) -> dict[str, Any]:  # Any: Django's own shape
    """Return the database of DATABASE_URL, or the SQLite file *fallback*."""
    chosen = env.database() or {"ENGINE": "django.db.backends.sqlite3", "NAME": str(fallback)}
    sqlite = chosen["ENGINE"].endswith("sqlite3")
    chosen["OPTIONS"] = {**(SQLITE_OPTIONS if sqlite else POSTGRESQL_OPTIONS), **chosen.get("OPTIONS", {})}
    return chosen


DATABASES = {"default": database(TRINITY_DATA_DIR / "trinity.sqlite3")}

# Static files: served by the node itself, straight from the packages; no collecting step to forget

STATIC_URL = "static/"
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_AUTOREFRESH = False
SERVESTATIC_ALLOW_ALL_ORIGINS = False

# Browsers

SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_621_440
# The page of one exchange edits all its assets at once, seven fields each.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5_000

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}
# Unfold runs Alpine's standard build, which evaluates expressions, and sets styles in its templates.
ADMIN_CONTENT_SECURITY_POLICY = {
    **CONTENT_SECURITY_POLICY["DIRECTIVES"],
    "script-src": [SELF, UNSAFE_EVAL],
    "style-src": [SELF, UNSAFE_INLINE],
}

# History

SIMPLE_HISTORY_REVERT_DISABLED = True  # going back is a change like any other: saved as one

# The command centre

UNFOLD = {
    "SITE_TITLE": "Trinity Beast Command Centre",
    "SITE_HEADER": "Trinity Beast",
    "SITE_SUBHEADER": "Command Centre",
    "SITE_ICON": lambda request: static("trinity/mark.svg"),
    "SHOW_VIEW_ON_SITE": False,
    "ENVIRONMENT": "trinity_site.dashboard.environment",
    "DASHBOARD_CALLBACK": "trinity_site.dashboard.dashboard",
    "BORDER_RADIUS": "8px",
    "COLORS": {
        "primary": {  # the brand's green; white text on 600 has a contrast of 6.4
            "50": "oklch(97.5% .018 163)",
            "100": "oklch(94.5% .04 163)",
            "200": "oklch(89.5% .075 163)",
            "300": "oklch(83% .12 163)",
            "400": "oklch(75% .145 163)",
            "500": "oklch(62% .125 163)",
            "600": "oklch(47% .1 163)",
            "700": "oklch(41.5% .088 163)",
            "800": "oklch(36% .075 163)",
            "900": "oklch(31% .062 163)",
            "950": "oklch(23% .045 163)",
        },
    },
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("trinity/mark.svg")}
    ],
    "SCRIPTS": [lambda request: static("trinity/command_centre.js")],
    "STYLES": [lambda request: static("exchanges/command_centre.css")],
    "SIDEBAR": {
        "show_search": True,
        "show_all_applications": False,
        "navigation": [
            {
                "title": "Now",
                "items": [
                    {"title": "Dashboard", "icon": "dashboard", "link": reverse_lazy("admin:index")},
                ],
            },
            {
                "title": "Exchanges",
                "items": [
                    {
                        "title": "Feeds",
                        "icon": "sensors",
                        "link": reverse_lazy("admin:exchanges_exchangefeed_changelist"),
                        "badge": "trinity_site.dashboard.feeds_badge",
                        "badge_variant": "primary",
                        "permission": "trinity_site.dashboard.may_view_feeds",
                    },
                    {
                        "title": "Assets",
                        "icon": "currency_bitcoin",
                        "link": reverse_lazy("admin:exchanges_exchangeasset_changelist"),
                        "permission": "trinity_site.dashboard.may_view_assets",
                    },
                ],
            },
            {
                "title": "Customers",
                "items": [
                    {
                        "title": "Accounts",
                        "icon": "badge",
                        "link": reverse_lazy("admin:billing_account_changelist"),
                        "permission": "trinity_site.dashboard.may_view_accounts",
                    },
                    {
                        "title": "API keys",
                        "icon": "key",
                        "link": reverse_lazy("admin:billing_apikey_changelist"),
                        "permission": "trinity_site.dashboard.may_view_keys",
                    },
                    {
                        "title": "Plans",
                        "icon": "sell",
                        "link": reverse_lazy("admin:billing_plan_changelist"),
                        "permission": "trinity_site.dashboard.may_view_plans",
                    },
                    {
                        "title": "Monthly counts",
                        "icon": "bar_chart",
                        "link": reverse_lazy("admin:billing_monthlycount_changelist"),
                        "permission": "trinity_site.dashboard.may_view_counts",
                    },
                    {
                        "title": "Reports",
                        "icon": "description",
                        "link": reverse_lazy("admin:billing_reportcount_changelist"),
                        "permission": "trinity_site.dashboard.may_view_report_counts",
                    },
                ],
            },
            {
                "title": "Usage",
                "items": [
                    {
                        "title": "Overview",
                        "icon": "monitoring",
                        "link": reverse_lazy("usage-overview"),
                        "permission": "trinity_site.dashboard.may_view_rollups",
                    },
                    {
                        "title": "Segments and ledger",
                        "icon": "storage",
                        "link": reverse_lazy("admin:telemetry_usagesegment_changelist"),
                        "permission": "trinity_site.dashboard.may_view_ledger",
                    },
                    {
                        "title": "Set aside",
                        "icon": "inventory_2",
                        "link": reverse_lazy("admin:telemetry_quarantined_changelist"),
                        "permission": "trinity_site.dashboard.may_view_quarantine",
                    },
                    {
                        "title": "Reconcile",
                        "icon": "balance",
                        "link": reverse_lazy("usage-reconcile"),
                        "permission": "trinity_site.dashboard.may_reconcile",
                    },
                ],
            },
            {
                "title": "People",
                "items": [
                    {
                        "title": "Security events",
                        "icon": "shield",
                        "link": reverse_lazy("admin:billing_securityevent_changelist"),
                        "permission": "trinity_site.dashboard.may_view_security",
                    },
                    {
                        "title": "Users",
                        "icon": "person",
                        "link": reverse_lazy("admin:auth_user_changelist"),
                        "permission": "trinity_site.dashboard.may_view_users",
                    },
                    {
                        "title": "Groups",
                        "icon": "group",
                        "link": reverse_lazy("admin:auth_group_changelist"),
                        "permission": "trinity_site.dashboard.may_view_users",
                    },
                ],
            },
        ],
    },
}

# Logs: one line each, to stderr; whoever runs the process keeps them

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"seldom": {"()": "trinity_site.logs.Seldom"}},
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": TRINITY_LOG_LEVEL},
    "loggers": {
        # Django's own handlers mail people and print twice; the root's one is enough.
        "django": {"handlers": [], "level": TRINITY_LOG_LEVEL, "propagate": True},
        "django.server": {"handlers": [], "level": TRINITY_LOG_LEVEL, "propagate": True},
        # Any stranger can send a wrong Host as often as he likes.
        "django.security.DisallowedHost": {"filters": ["seldom"], "handlers": [], "propagate": True},
        # Below warnings uvicorn writes three lines with the address for every page that watches.
        "uvicorn.error": {"level": "WARNING"},
        # Two lines for each envelope say nothing, nor does a traceback for each that goes back to the queue.
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "ERROR"},
        # One line for each connection to the simulator says nothing.
        "websockets": {"level": "WARNING"},
    },
}
