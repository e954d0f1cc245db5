import io
import json

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.management import call_command

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("firstadmin", *arguments, stdout=out)
    return out.getvalue()


def test_first_admin_can_sign_in_with_the_printed_password() -> None:
    printed = json.loads(run("--json"))
    user = authenticate(**printed)
    assert user is not None
    assert user.is_superuser


def test_password_is_printed_once() -> None:
    text = run()
    assert "sign in as admin with " in text
    assert run() == ""


def test_nothing_is_made_beside_an_administrator() -> None:
    User.objects.create_superuser("somebody")
    assert run() == ""
    assert User.objects.count() == 1


def test_name_that_is_taken_by_another_account_is_left_to_it() -> None:
    User.objects.create_user("admin")
    assert json.loads(run("--json"))["username"].startswith("admin-")
