"""No key's text is anywhere but in the one answer that shows it: no table, no log, no error page has it."""

import io
import logging
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client, override_settings

from billing import services
from billing.authors import Author, Door
from billing.models import Account
from tests.billing.customers import make_account, make_key

pytestmark = pytest.mark.usefixtures("plans")


class Unseen(list[str]):
    """Texts that the page about an error in this very test does not show."""

    def __repr__(self) -> str:
        return "…"


def dump() -> str:
    """Return every value of every table."""
    parts = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            parts += [
                str(bytes(v) if isinstance(v, memoryview) else v) for row in cursor.fetchall() for v in row
            ]
    return "\n".join(parts)


def used_everywhere(admin: User) -> list[str]:
    """Make, rotate, change and revoke keys through every door; return their texts."""
    account = make_account()
    texts = [make_key(account).text]
    customer, operator = Client(), Client()
    customer.force_login(account.user)
    operator.force_login(admin)
    form = {"name": "bot", "scopes": ["prices"], "networks": ""}
    pages = [
        customer.post("/account/keys/new/", form),
        operator.post(
            "/admin/billing/apikey/add/", {"account": account.pk, "name": "x", "scope_prices": "on"}
        ),
    ]
    newest = account.keys.first()
    assert newest is not None
    pages.append(customer.post(f"/account/keys/{newest.pk}/rotate/", {"overlap_h": 1}))
    texts += [page.context["made"].text for page in pages]
    out = io.StringIO()
    call_command("apikey", "create", "--plan", "pro", stdout=out)
    texts.append(out.getvalue().splitlines()[0])
    found = services.find_key(texts[0])
    services.revoke_key(key=found, author=Author(Door.COMMAND))
    return texts


@override_settings(DEBUG=True)  # so that the database's own log of statements is written too
def test_text_of_a_key_is_in_no_table_and_no_log(admin_user: User, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    connection.force_debug_cursor = True
    try:
        texts = used_everywhere(admin_user)
        statements = "\n".join(query["sql"] for query in connection.queries)
    finally:
        connection.force_debug_cursor = False
    tables = dump()
    assert len(texts) == len(set(texts)) == 5
    for text in texts:
        assert text[:12] in tables  # the prefix, to see that the dump has the keys
        for secret in (text, text[8:40], text[12:30]):
            assert secret not in tables
            assert secret not in statements
            assert secret not in caplog.text


@override_settings(DEBUG=True)
def test_error_page_with_everything_on_it_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    account = make_account()
    client = Client(raise_request_exception=False)
    client.force_login(account.user)
    generate, generated = services.keys.generate, Unseen()

    def remember(randbytes: Callable[[int], bytes]) -> str:
        generated.append(generate(randbytes))
        return generated[-1]

    def fail(row: object, author: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(services.keys, "generate", remember)
    monkeypatch.setattr(services, "_save", fail)
    response = client.post("/account/keys/new/", {"name": "bot", "scopes": ["prices"], "networks": ""})
    assert response.status_code == 500
    page = response.content.decode()
    assert "the disk is full" in page and "services.py" in page
    assert generated[0] not in page and generated[0][8:40] not in page
    assert not Account.objects.get().keys.exists()
