"""`manage.py apikey`, in the test database and once as an operator types it, on SQLite."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from billing import keys
from billing.models import Account, ApiKey
from tests.billing.customers import fresh, make_account, make_key

pytestmark = pytest.mark.usefixtures("plans")
ROOT = Path(__file__).resolve().parents[2]
TEXT = re.compile(r"tb_live_[0-9A-Za-z]{38}")


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("apikey", *arguments, stdout=out)
    return out.getvalue()


def document(*arguments: str) -> Any:  # Any: JSON
    return json.loads(run(*arguments, "--json"))


def test_created_key_is_printed_first_and_once() -> None:
    lines = run("create", "--plan", "pro", "--email", "ada@example.com").splitlines()
    assert bytes(ApiKey.objects.get().digest) == keys.digest(lines[0])
    assert "of ada@example.com on Pro" in lines[1]
    assert not TEXT.search(run("list"))


def test_json_of_a_new_key_has_the_key_and_what_it_may_do() -> None:
    made = document(
        "create", "--plan", "free", "--name", "bot", "--network", "192.0.2.7", "--scope", "prices"
    )
    assert keys.is_wellformed(made.pop("key"))
    key = ApiKey.objects.get()
    assert (made.pop("id"), made.pop("prefix")) == (key.pk, key.prefix)
    assert made.pop("created_at").endswith("Z")
    assert made == {
        "name": "bot",
        "account": "this-node-free",
        "plan": "free",
        "state": "live",
        "scopes": ["prices"],
        "networks": ["192.0.2.7/32"],
        "expires_at": None,
        "last_used_at": None,
    }


def test_plan_of_an_account_is_changed_only_when_asked() -> None:
    make_account("ada@example.com", "pro")
    with pytest.raises(CommandError, match="leave it there with --plan pro, or add --change-plan"):
        run("create", "--plan", "partner", "--email", "ada@example.com")
    run("create", "--plan", "partner", "--email", "Ada@Example.com", "--change-plan")
    assert Account.objects.get().plan.name == "partner"


def test_key_is_rotated_and_revoked() -> None:
    old = make_key()
    made = document("rotate", old.key.prefix, "--overlap", "1")
    assert keys.is_wellformed(made["key"])
    assert fresh(old.key).state == "expiring"
    assert document("revoke", str(made["id"]))["state"] == "revoked"
    assert "is revoked" in run("revoke", str(old.key.pk))


def test_leaked_key_is_revoked_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_key()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{made.text}\n"))
    assert made.text not in run("revoke", "-")
    assert fresh(made.key).state == "revoked"


def test_list_leaves_out_what_is_over_unless_asked() -> None:
    live, gone = make_key(name="one").key, make_key(name="two").key
    run("revoke", str(gone.pk))
    make_key(make_account("bob@example.com"))
    assert [row["id"] for row in document("list", "--email", "ada@example.com")] == [live.pk]
    assert len(document("list", "--all")) == 3
    assert len(run("list").splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("create", "--plan", "gold"), "there is no plan 'gold'"),
        (("create", "--plan", "pro", "--network", "x"), "networks: 'x' is no network"),
        (("revoke", "17"), "there is no such key: 17"),
        (("rotate", "tb_live_none"), "there is no such key"),
        (("list", "--email", "nobody@example.com"), "There is no account of nobody@example.com"),
        (("create",), "required: --plan"),
    ],
)
def test_what_cannot_be_done_is_explained(arguments: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(CommandError, match=re.escape(complaint)):
        run(*arguments)
    assert not ApiKey.objects.exists()


def test_first_key_is_printed_once() -> None:
    said = run("first")
    (text,) = TEXT.findall(said)
    assert bytes(ApiKey.objects.get().digest) == keys.digest(text)
    assert run("first") == ""


@pytest.mark.timeout(240)  # eight commands, each a process of its own
def test_command_works_on_a_new_sqlite_node(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "TRINITY_DATA_DIR": str(tmp_path), "NO_COLOR": "1"}

    def manage(*words: str) -> str:
        command = [sys.executable, str(ROOT / "manage.py"), *words]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    manage("migrate", "--verbosity", "0")
    assert "6 plans" in manage("seed")
    assert TEXT.search(manage("apikey", "first"))
    assert manage("apikey", "first") == ""
    made = json.loads(manage("apikey", "create", "--plan", "enterprise", "--json"))
    manage("apikey", "rotate", str(made["id"]))
    manage("apikey", "revoke", made["prefix"])
    assert len(json.loads(manage("apikey", "list", "--json"))) == 2
    assert "examples:" in manage("apikey", "--help")
