"""The keyring's store on Django's models, in both kinds of database."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, connection

from billing import database
from billing.database import open_store
from billing.models import Installation
from billing.ratelimit import SECOND_NS
from billing.rows import KeyRow, key_page, key_revision
from billing.services import revoke_key, save_plan
from billing.store import Store
from billing.usage import load_counts, save_counts
from telemetry.models import FoldedMonth
from tests.billing.customers import AUTHOR, fresh, make_account, make_key

pytestmark = pytest.mark.usefixtures("plans")
MONTH = 202611


@pytest.fixture
def store() -> Store:
    return open_store("A")


@async_to_sync
async def read_rows(store: Store, after: int = 0) -> list[Sequence[KeyRow]]:
    return [chunk async for chunk in store.key_rows(after)]


@pytest.mark.django_db(transaction=True)  # outside of a transaction connections are closed after every use
def test_rows_come_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "key_page", partial(key_page, size=2))
    for _ in range(3):
        make_key()
    save_plan(name="pro", columns={"burst": 99}, author=AUTHOR)  # all of them with one number
    make_key(make_account("grace@example.com"))
    pages = read_rows(store)
    assert [len(page) for page in pages] == [2, 2]
    assert [row for page in pages for row in page] == key_page()
    revision = async_to_sync(store.key_revision)()
    assert revision == key_revision()
    assert read_rows(store, revision) == []


def test_row_that_changes_between_two_pages_is_not_missed() -> None:
    one, two = make_key().key, make_key().key
    (first,) = key_page(after=0, size=1)
    assert first.key_id == one.pk
    revoke_key(key=two, author=AUTHOR)
    (second,) = key_page(after=0, last=first, size=1)
    assert (second.key_id, second.revoked) == (two.pk, True)


def test_counts_and_uses_go_out_and_come_back(store: Store) -> None:
    key, used = make_key().key, datetime(2026, 11, 22, 12, tzinfo=UTC)
    async_to_sync(store.save_counts)(MONTH, {key.pk: 5})
    async_to_sync(store.save_last_uses)({key.pk: used})
    save_counts(node="B", month=MONTH, counts={key.pk: 7})
    assert async_to_sync(store.installation)() == Installation.objects.get().name
    assert load_counts(node="A", month=MONTH) == {key.pk: 5}
    assert async_to_sync(store.load_counts)(MONTH) == {key.pk: 5}
    assert async_to_sync(store.load_others)(MONTH) == {key.pk: 7}
    assert fresh(key).last_used_at == used
    FoldedMonth.objects.create(key_id=key.pk, month=MONTH, node="Gone", counted=3)
    async_to_sync(store.save_logged)(MONTH)
    assert load_counts(node="Gone", month=MONTH) == {key.pk: 3}


def test_clock_of_the_database_is_asked_where_it_is_another(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor != "postgresql":
        assert store.now_ns is None
        return
    assert store.now_ns is not None
    now_ns = async_to_sync(store.now_ns)()
    assert now_ns is not None
    assert abs(now_ns - time.time_ns()) < 60 * SECOND_NS

    def fail() -> None:
        raise DatabaseError

    with monkeypatch.context() as patch:
        patch.setattr(connection, "cursor", fail)
        assert async_to_sync(store.now_ns)() is None
