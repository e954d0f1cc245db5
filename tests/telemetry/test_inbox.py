"""What a queue brings: written, set aside with its reason, or left to be tried again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
)

from telemetry import inbox
from telemetry.backlog import Backlog
from telemetry.documents import decode, encode
from telemetry.envelope import pack
from telemetry.exceptions import Poison
from telemetry.inbox import is_outage, route, take
from telemetry.ledger import replay
from telemetry.models import Quarantined, UsageLog
from telemetry.packing import Packing
from tests.telemetry.shipping import PARAMETERS
from tests.telemetry.spooling import write_segment


@pytest.fixture
def document(tmp_path: Path) -> bytes:
    """The envelope of a segment with ten records."""
    write_segment(tmp_path, 10)
    packing = Packing(PARAMETERS)
    backlog = Backlog(tmp_path, packing)
    backlog.scan()
    for identity in packing.to_ask():
        packing.note_ledger(identity, [], None, 0)
    (envelope,) = backlog.read(packing.plan(0)[0])
    backlog.close()
    return encode(pack(envelope))


def changed(document: bytes, **fields: Any) -> bytes:
    content: Any = decode(document)
    return encode(content | fields)


def aside() -> list[tuple[bytes, str, int]]:
    return [(bytes(row.document), row.reason, row.tries) for row in Quarantined.objects.all()]


@pytest.mark.django_db
def test_usage_is_written_once_however_often_it_comes(document: bytes) -> None:
    for _ in range(3):
        take(document)
    assert UsageLog.objects.count() == 10
    assert aside() == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"type": "other"}, "nobody takes its type"),
        ({"type": ["usage_log"]}, "nobody takes its type"),
        ({"v": 2}, "another version"),
        ({"count": 11}, "not as long as it says"),
        ({"offset": 1}, "not those of its places"),
        ({"payload": b"usage"}, "cannot be decompressed"),
        ({"more": 1}, "its fields are not"),
    ],
)
def test_poison_is_set_aside_as_it_came_and_never_raises(
    document: bytes, fields: dict[str, Any], reason: str
) -> None:
    poison = changed(document, **fields)
    take(poison)
    take(poison)
    assert UsageLog.objects.count() == 0
    ((kept, why, tries),) = aside()
    assert (kept, tries) == (poison, 2) and reason in why


@pytest.mark.django_db
@pytest.mark.parametrize("document", [b"", b"\xc1", b"\x90", b"\x01", b"usage"])
def test_bytes_that_are_no_document_are_set_aside(document: bytes) -> None:
    take(document)
    assert [kept for kept, _, _ in aside()] == [document]


@pytest.mark.django_db
def test_what_nobody_has_foreseen_is_tried_five_times_and_set_aside(
    document: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail(content: object) -> None:
        calls.append(content)
        raise ZeroDivisionError("division by zero")

    monkeypatch.setitem(inbox.ROUTES, "usage_log", fail)
    take(document)
    assert len(calls) == 5
    assert aside() == [(document, "ZeroDivisionError: division by zero", 1)]


@pytest.mark.django_db
def test_what_was_only_the_moment_is_written(document: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = inbox.ROUTES["usage_log"], []

    def fail_once(content: object) -> None:
        calls.append(content)
        if len(calls) == 1:
            raise MemoryError
        write(content)

    monkeypatch.setitem(inbox.ROUTES, "usage_log", fail_once)
    take(document)
    assert (UsageLog.objects.count(), aside()) == (10, [])


@pytest.mark.django_db
def test_outage_is_told_at_once_and_sets_nothing_aside(
    document: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail(content: object) -> None:
        calls.append(content)
        raise OperationalError("the connection is lost")

    monkeypatch.setitem(inbox.ROUTES, "usage_log", fail)
    with pytest.raises(OperationalError):
        take(document)
    assert (len(calls), aside()) == (1, [])


@pytest.mark.django_db
def test_what_was_set_aside_is_replayed_the_same_way(
    document: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(inbox, "ROUTES", {})  # a worker that is older than the node
        take(document)
    row = Quarantined.objects.get()
    assert replay([row.pk], route) == {}
    row.refresh_from_db()
    assert row.replayed_at is not None and UsageLog.objects.count() == 10


def test_route_says_poison_where_take_would_set_aside() -> None:
    with pytest.raises(Poison):
        route(encode({"type": "unknown"}))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OperationalError(), True),  # away, locked, full, deadlock, timeout
        (InterfaceError(), True),
        (InternalError(), True),  # read-only
        (ProgrammingError(), True),  # not migrated yet
        (DatabaseError(), True),
        (DataError(), False),
        (IntegrityError(), False),
        (Poison(""), False),
        (MemoryError(), False),
        (TypeError(), False),
    ],
)
def test_database_is_at_fault_or_the_envelope(error: Exception, expected: bool) -> None:
    assert is_outage(error) is expected
