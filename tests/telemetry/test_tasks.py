"""What a worker of the queue does with a message."""

from __future__ import annotations

import pytest
from celery.exceptions import Reject
from django.db import OperationalError

from telemetry import inbox, keeping, tasks
from telemetry.models import Quarantined
from telemetry.tasks import LONGEST_PAUSE_S, Outage, carry, keep


def test_message_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(inbox, "take", taken.append)
    carry(b"document")
    assert taken == [b"document"]


@pytest.mark.django_db
@pytest.mark.parametrize("document", ["text", "\ud800", 5, None, ["a"], {"type": "usage_log"}])
def test_message_that_brings_no_bytes_is_set_aside(document: object) -> None:
    carry(document)
    (row,) = Quarantined.objects.all()
    assert bytes(row.document) == repr(document).encode()


def test_outage_sends_the_message_back_after_a_pause_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def fail(document: bytes) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(tasks, "outage", Outage())
    monkeypatch.setattr(tasks.random, "uniform", lambda least, most: most)
    monkeypatch.setattr(tasks.time, "sleep", pauses.append)
    with monkeypatch.context() as patch:
        patch.setattr(inbox, "take", fail)
        for _ in range(7):
            with pytest.raises(Reject) as rejected:
                carry(b"document")
            assert rejected.value.requeue is True
    assert pauses == [0.5, 1, 2, 4, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    monkeypatch.setattr(inbox, "take", lambda document: None)
    carry(b"document")
    assert tasks.outage.failures == 0


def test_pause_of_an_outage_of_many_hours_is_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.random, "uniform", lambda least, most: most)
    outage = Outage()
    assert [outage.pause_s() for _ in range(2_000)][-1] == LONGEST_PAUSE_S


def test_keeper_sees_to_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(keeping, "keep", lambda: calls.append(1))
    keep()
    assert calls == [1]
