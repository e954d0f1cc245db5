"""The settings modules as processes of their own see them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

ROOT = Path(__file__).resolve().parents[2]
PROD = {
    "DJANGO_SECRET_KEY": "0123456789abcdefghij" * 3,
    "DJANGO_ALLOWED_HOSTS": "prices.example.com",
    "TRINITY_TLS_PROXY": "1",
}
MAIL = {"SMTP_HOST": "mail.example.com"}
SMALL = {"TRINITY_SPOOL_BYTES": str(256 << 20)}  # the disk may be, too


def manage(module: str, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": f"trinity_site.settings.{module}",
        "TRINITY_DATA_DIR": str(folder),
        **variables,
    }
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def shown(module: str, folder: Path, expression: str, **variables: str) -> str:
    code = f"from django.conf import settings; print({expression})"
    done = manage(module, folder, "shell", "--no-imports", "-c", code, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("missing", list(PROD))
def test_prod_refuses_to_start_without_what_it_needs(tmp_path: Path, missing: str) -> None:
    variables = {name: value for name, value in PROD.items() if name != missing}
    done = manage("prod", tmp_path, "check", **variables)
    assert done.returncode != 0
    assert f"{missing} is missing" in done.stderr


def test_prod_refuses_a_short_secret(tmp_path: Path) -> None:
    done = manage("prod", tmp_path, "check", **{**PROD, "DJANGO_SECRET_KEY": "short"})
    assert "DJANGO_SECRET_KEY must have at least 50 characters" in done.stderr


def test_prod_passes_the_deployment_checks(tmp_path: Path) -> None:
    done = manage("prod", tmp_path, "check", "--deploy", "--fail-level", "WARNING", **PROD, **MAIL, **SMALL)
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


@pytest.mark.parametrize("module", ["dev", "prod"])
def test_debug_is_off(tmp_path: Path, module: str) -> None:
    assert shown(module, tmp_path, "settings.DEBUG", **PROD) == "False"


def test_dev_needs_nothing_and_keeps_its_secret(tmp_path: Path) -> None:
    expression = "settings.SECRET_KEY == open(settings.TRINITY_DATA_DIR / 'secret_key').read()"
    assert shown("dev", tmp_path / "new", expression) == "True"


def test_dev_uses_sqlite_in_wal_mode_in_the_data_folder(tmp_path: Path) -> None:
    code = (
        "from django.db import connection as c; k = c.cursor(); "
        "print(k.execute('PRAGMA journal_mode').fetchone()[0], c.settings_dict['NAME'])"
    )
    done = manage("dev", tmp_path, "shell", "--no-imports", "-c", code)
    assert done.stdout.split() == ["wal", str(tmp_path / "trinity.sqlite3")], done.stderr


@pytest.mark.django_db
def test_server_that_has_gone_silent_is_not_waited_for_for_long() -> None:
    connection.ensure_connection()
    with socket.socket(fileno=os.dup(connection.connection.fileno())) as open_one:
        user_timeout_ms, idle_s, interval_s, probes = (
            open_one.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                *(socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE),
                *(socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT),
            )
        )
        assert open_one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert 30_000 < user_timeout_ms <= 60_000  # who waits for a lock, at most 30 s, reads nothing meanwhile
    assert idle_s + interval_s * probes <= 30
    assert int(connection.connection.info.get_parameters()["connect_timeout"]) <= 30


def test_simulator_allows_loopback_unless_told_otherwise(tmp_path: Path) -> None:
    expression = "settings.TRINITY_ALLOW_LOOPBACK_EXCHANGES"
    port = {"TRINITY_SIMULATOR_PORT": "8090"}
    assert shown("dev", tmp_path, expression) == "False"
    assert shown("dev", tmp_path, expression, **port) == "True"
    assert shown("dev", tmp_path, expression, **port, TRINITY_ALLOW_LOOPBACK_EXCHANGES="0") == "False"


def test_daphne_is_there_for_runserver_only(tmp_path: Path) -> None:
    assert shown("dev", tmp_path, "'daphne' in settings.INSTALLED_APPS") == "False"
    assert "runserver" in manage("dev", tmp_path, "runserver", "--help").stdout
    code = "import sys; sys.argv = ['manage.py', 'runserver']; from trinity_site.settings import dev; "
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print('daphne' in dev.INSTALLED_APPS)"],
        cwd=ROOT,
        env={"TRINITY_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "True", done.stderr
