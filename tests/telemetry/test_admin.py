"""What was set aside, and the ledger, in the command centre."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client

from telemetry import admin as pages
from telemetry.documents import encode
from telemetry.envelope import pack
from telemetry.ledger import set_aside, write_envelopes
from telemetry.models import Quarantined, UsageLog, UsageSegment
from tests.telemetry.usage import make_envelope, make_logs, make_records

pytestmark = pytest.mark.django_db
ASIDE, SEGMENTS = "/admin/telemetry/quarantined/", "/admin/telemetry/usagesegment/"
RECORDS = make_records(make_logs(10))


def kept_aside(document: bytes | None = None, reason: str = "IntegrityError: too long") -> Quarantined:
    """Set a document aside; one that can be written, unless another is given."""
    set_aside(encode(pack(make_envelope(RECORDS))) if document is None else document, reason)
    return Quarantined.objects.latest("pk")


def spoilt() -> Quarantined:
    return kept_aside(encode(pack(make_envelope(RECORDS)) | {"type": "<b>other"}), "nobody takes its type")


def member(*rights: str) -> Client:
    user = User.objects.create_user("watcher", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    client = Client()
    client.force_login(user)
    return client


def replay(client: Client, *rows: Quarantined) -> Any:  # Any: as Django has it
    form = {"action": "replay", "_selected_action": [row.pk for row in rows]}
    return client.post(ASIDE, form, follow=True)


def said(answer: Any) -> list[str]:  # Any: as above
    return [str(message) for message in answer.context["messages"]]


# What was set aside


def test_list_shows_reason_size_and_state(admin_client: Client) -> None:
    row = kept_aside()
    page = admin_client.get(ASIDE).content.decode()
    for text in ("IntegrityError: too long", "bytes", "set aside", f"{ASIDE}{row.pk}/change/"):
        assert text in page
    assert admin_client.get(f"{ASIDE}?state=replayed").context["cl"].result_count == 0
    assert admin_client.get(f"{ASIDE}?state=waiting&q=too+long").context["cl"].result_count == 1


def test_times_are_told_by_24_hours_and_with_their_zone(admin_client: Client) -> None:
    row = kept_aside()
    Quarantined.objects.update(received_at=datetime(2026, 11, 23, 15, 4, 5, tzinfo=UTC))
    for path in (ASIDE, f"{ASIDE}{row.pk}/change/"):
        assert "2026-11-23 15:04:05 UTC" in admin_client.get(path).content.decode()


def test_list_leaves_the_documents_where_they_are(admin_client: Client) -> None:
    kept_aside()
    (row,) = admin_client.get(ASIDE).context["cl"].result_list
    assert "document" in row.get_deferred_fields()


def test_page_of_one_shows_its_fields_and_records(admin_client: Client) -> None:
    page = admin_client.get(f"{ASIDE}{kept_aside().pk}/change/").content.decode()
    assert "Its records" in page
    assert page.count('<tr><td class="tb-cell">20') == 10
    assert "<code>segment</code>" in page
    assert 'name="_save"' not in page


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"\xc1 nothing", ("it cannot be decoded", "c1206e6f 7468696e")),
        (encode({"type": "<script>"}), ("of another version or type", "&lt;script&gt;")),
    ],
)
def test_page_of_what_cannot_be_read_says_why(
    admin_client: Client, document: bytes, words: tuple[str, ...]
) -> None:
    page = admin_client.get(f"{ASIDE}{kept_aside(document).pk}/change/").content.decode()
    assert all(word in page for word in words)
    assert "<script>" not in page


def test_replay_writes_what_can_be_written_and_says_why_the_rest_cannot(admin_client: Client) -> None:
    good, bad = kept_aside(), spoilt()
    messages = said(replay(admin_client, good, bad))
    assert "1 written to the database." in messages
    assert any("nobody takes its type" in message for message in messages)
    assert UsageLog.objects.count() == 10
    assert [row.replayed_at is not None for row in Quarantined.objects.order_by("pk")] == [True, False]
    assert LogEntry.objects.get().get_change_message() == "Replayed."


def test_replaying_twice_changes_nothing(admin_client: Client) -> None:
    row = kept_aside()
    for _ in range(2):
        replay(admin_client, row)
    assert UsageLog.objects.count() == 10


def test_failure_of_one_replay_keeps_no_other_from_its_turn(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = kept_aside(), spoilt()

    def route(document: bytes) -> None:
        if document == bytes(first.document):
            raise RuntimeError("out of the blue")

    monkeypatch.setattr(pages, "route", route)
    messages = said(replay(admin_client, first, second))
    assert any("RuntimeError: out of the blue" in message for message in messages)
    assert "1 written to the database." in messages


def test_replay_of_one_asks_first(admin_client: Client) -> None:
    path = f"{ASIDE}{kept_aside().pk}/replay/"
    assert b"Write it to the database now?" in admin_client.get(path).content
    assert UsageLog.objects.count() == 0
    assert "It is written to the database." in said(admin_client.post(path, follow=True))
    assert UsageLog.objects.count() == 10
    assert admin_client.get(f"{ASIDE}9999/replay/").status_code == 404


def test_who_may_only_look_replays_nothing() -> None:
    row = kept_aside()
    watcher = member("view_quarantined")
    assert b'value="replay"' not in watcher.get(ASIDE).content
    replay(watcher, row)
    assert watcher.post(f"{ASIDE}{row.pk}/replay/").status_code == 403
    assert UsageLog.objects.count() == 0
    assert member_is_refused(ASIDE)


def member_is_refused(path: str) -> bool:
    User.objects.filter(username="watcher").delete()
    return member().get(path).status_code == 403


def test_what_waits_cannot_be_deleted_by_anybody(admin_client: Client) -> None:
    row = kept_aside()
    assert admin_client.post(f"{ASIDE}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    form = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    admin_client.post(ASIDE, form)
    assert Quarantined.objects.count() == 1


def test_what_was_replayed_can_be_deleted_one_by_one(admin_client: Client) -> None:
    row = kept_aside()
    replay(admin_client, row)
    form = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    admin_client.post(ASIDE, form)
    assert Quarantined.objects.count() == 1
    assert admin_client.post(f"{ASIDE}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert Quarantined.objects.count() == 0


def test_what_has_come_again_is_not_deleted_on_an_older_page(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = kept_aside()
    replay(admin_client, row)
    monkeypatch.setattr(pages.QuarantinedAdmin, "has_delete_permission", lambda *_: True)
    kept_aside()
    admin_client.post(f"{ASIDE}{row.pk}/delete/", {"post": "yes"})
    assert Quarantined.objects.count() == 1


def test_nothing_can_be_added_or_written_over(admin_client: Client) -> None:
    row = kept_aside()
    assert admin_client.get(f"{ASIDE}add/").status_code == 403
    assert admin_client.post(f"{ASIDE}{row.pk}/change/", {"reason": "none"}).status_code == 403
    assert Quarantined.objects.get().reason == "IntegrityError: too long"


# The ledger


def segment_with(
    name: str, *parts: tuple[int, int], final: bool = False, damaged: tuple[int, ...] = ()
) -> None:
    envelopes = []
    for start, count in parts:
        is_last = final and (start, count) == parts[-1]
        lost = [place for place in damaged if start <= place < start + count]
        envelopes.append(make_envelope(RECORDS, start, count, damaged=lost, segment=name, final=is_last))
    write_envelopes(envelopes)


@pytest.fixture
def segments() -> None:
    segment_with("1-1", (0, 4), (4, 6), final=True, damaged=(2,))
    segment_with("1-2", (0, 4), (8, 2), final=True)
    segment_with("1-3", (0, 4))


@pytest.mark.usefixtures("segments")
def test_list_says_what_of_each_segment_is_there(admin_client: Client) -> None:
    page = admin_client.get(SEGMENTS)
    model_admin = page.context["cl"].model_admin
    shown = {
        row.name: tuple(
            getattr(model_admin, column)(row)
            for column in ("places", "in_ledger", "logs", "damaged", "state")
        )
        for row in page.context["cl"].result_list
    }
    assert shown == {
        "1-1": ("10", "10", "9", "1", "whole"),
        "1-2": ("10", "6", "6", "0", "incomplete"),
        "1-3": ("not told yet", "4", "4", "0", "open"),
    }


@pytest.mark.usefixtures("segments")
@pytest.mark.parametrize(("state", "name"), [("whole", "1-1"), ("incomplete", "1-2"), ("open", "1-3")])
def test_list_can_be_filtered_by_state(admin_client: Client, state: str, name: str) -> None:
    found = admin_client.get(f"{SEGMENTS}?state={state}&node=BeastMain").context["cl"].result_list
    assert [row.name for row in found] == [name]


@pytest.mark.usefixtures("segments")
def test_page_of_a_segment_shows_its_places(admin_client: Client) -> None:
    row = UsageSegment.objects.get(name="1-2")
    page = admin_client.get(f"{SEGMENTS}{row.pk}/change/").content.decode().partition("What its process")[0]
    places = re.findall(r'<tr><td class="tb-cell">(\d+)</td><td class="tb-cell">(\d+)</td>', page)
    assert places == [("0", "4"), ("8", "10")]


@pytest.mark.usefixtures("segments")
def test_ledger_is_read_only(admin_client: Client) -> None:
    row = UsageSegment.objects.get(name="1-1")
    assert admin_client.get(f"{SEGMENTS}add/").status_code == 403
    for page in ("change", "delete"):
        assert admin_client.post(f"{SEGMENTS}{row.pk}/{page}/", {"post": "yes"}).status_code == 403
    assert UsageSegment.objects.count() == 3
    assert member_is_refused(SEGMENTS)
