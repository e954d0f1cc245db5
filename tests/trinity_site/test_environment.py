from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from trinity_site.settings import environment as env

SECRET = "s3cret-word"


def test_blank_variable_takes_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "  ")
    assert env.text("NAME", "default") == "default"


def test_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAME", raising=False)
    with pytest.raises(ImproperlyConfigured, match="NAME is missing"):
        env.text("NAME")


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (lambda: env.integer("NAME", 1, least=0, most=9), "7", 7),
        (lambda: env.port("NAME", 80), "0", 0),
        (lambda: env.flag("NAME", default=False), "Yes", True),
        (lambda: env.flag("NAME", default=True), "0", False),
        (lambda: env.choice("NAME", "INFO", ("INFO", "DEBUG")), "debug", "DEBUG"),
        (lambda: env.words("NAME"), "a, b,,c ", ["a", "b", "c"]),
        (lambda: env.url("NAME", "", ("http",)), "http://localhost:1", "http://localhost:1"),
        (lambda: env.valkey_url("NAME"), "valkey://valkey.example:6379", "redis://valkey.example:6379"),
        (lambda: env.valkey_url("NAME"), "valkeys://h", "rediss://h"),
        (lambda: env.valkey_url("NAME"), "redis://valkey:6379", "redis://valkey:6379"),
        (lambda: env.broker_url("NAME"), "sqs://", "sqs://"),
        (
            lambda: env.broker_url("NAME"),
            "sqs://key:secret@127.0.0.1:4566//",
            "sqs://key:secret@127.0.0.1:4566//",
        ),
        (lambda: env.broker_url("NAME"), "valkeys://h:6379/1", "rediss://h:6379/1"),
        (lambda: env.broker_url("NAME"), "", ""),
        (lambda: env.database("NAME")["NAME"], "sqlite://:memory:", ":memory:"),
        (lambda: env.database("NAME")["HOST"], "postgres://u:p@db.example:5433/n", "db.example"),
        (lambda: env.database("NAME")["PASSWORD"], "postgres://u:p%40ss@h/n", "p@ss"),
    ],
)
def test_variable_is_read_by_its_type(
    monkeypatch: pytest.MonkeyPatch, read: Any, value: str, expected: object
) -> None:
    monkeypatch.setenv("NAME", value)
    assert read() == expected


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda: env.integer("NAME", 1, least=0, most=9), SECRET),
        (lambda: env.integer("NAME", 1, least=0, most=9), "10"),
        (lambda: env.integer("NAME", 1, least=0, most=9), "1.5"),
        (lambda: env.port("NAME", 80), "65536"),
        (lambda: env.flag("NAME", default=False), SECRET),
        (lambda: env.choice("NAME", "INFO", ("INFO",)), SECRET),
        (lambda: env.url("NAME", "", ("http",)), f"ftp://{SECRET}"),
        (lambda: env.url("NAME", "", ("http",)), f"http://{SECRET}:port"),
        (lambda: env.url("NAME", "", ("redis",)), "redis://"),
        (lambda: env.broker_url("NAME"), f"amqp://{SECRET}"),
        (lambda: env.broker_url("NAME"), "redis://"),
        (lambda: env.database("NAME"), SECRET),
        (lambda: env.database("NAME"), f"mysql://u:{SECRET}@h/n"),
        (lambda: env.database("NAME"), f"postgres://u:{SECRET}@h:port/n"),
        (lambda: env.database("NAME"), f"postgres://u:{SECRET}@h/"),
    ],
)
def test_malformed_variable_is_named_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, read: Any, value: str
) -> None:
    monkeypatch.setenv("NAME", value)
    with pytest.raises(ImproperlyConfigured, match=r"^NAME ") as caught:
        read()
    assert SECRET not in str(caught.value)


def test_unset_database_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAME", raising=False)
    assert env.database("NAME") is None


def test_kept_secret_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    first = env.kept_secret(path)
    assert len(first) >= 50
    assert env.kept_secret(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_secret_of_the_starter_who_was_first_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"

    def other_was_first(size: int) -> str:
        path.write_text("theirs")
        return "ours"

    monkeypatch.setattr(env.secrets, "token_urlsafe", other_was_first)
    assert env.kept_secret(path) == "theirs"
    assert list(tmp_path.iterdir()) == [path]
