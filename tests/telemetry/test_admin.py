"""Envelopes that were set aside, in the command centre."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from telemetry.documents import encode
from telemetry.envelope import pack
from telemetry.ledger import set_aside
from telemetry.models import Quarantined, UsageLog
from tests.telemetry.usage import make_envelope, make_logs, make_records

pytestmark = pytest.mark.django_db
PAGE = "/admin/telemetry/quarantined/"


@pytest.fixture
def _rows() -> None:
    set_aside(encode(pack(make_envelope(make_records(make_logs(10))))), "an old fault")
    set_aside(b"no envelope", "it is no mapping")


def replay(client: Client) -> str:
    ids = list(Quarantined.objects.values_list("pk", flat=True))
    done = client.post(PAGE, {"action": "replay", "_selected_action": ids}, follow=True)
    return " ".join(str(message) for message in done.context["messages"])


@pytest.mark.usefixtures("_rows")
def test_pages_open_and_show_what_was_wrong(admin_client: Client) -> None:
    row = Quarantined.objects.get(reason="it is no mapping")
    for path in (PAGE, f"{PAGE}?state=waiting&q=mapping", f"{PAGE}{row.pk}/change/"):
        page = admin_client.get(path)
        assert page.status_code == 200
        assert "it is no mapping" in page.text
    assert "it is no mapping" not in admin_client.get(f"{PAGE}?state=replayed").text


@pytest.mark.usefixtures("_rows")
def test_replay_writes_what_can_be_written_and_tells_the_rest(admin_client: Client) -> None:
    assert replay(admin_client) == "1 written. 1 still cannot be written."
    assert UsageLog.objects.count() == 10
    (left,) = Quarantined.objects.waiting()
    assert left.tries == 2
    assert replay(admin_client) == "1 written. 1 still cannot be written.", "again changes nothing"
    assert UsageLog.objects.count() == 10


@pytest.mark.usefixtures("_rows")
def test_who_may_only_look_cannot_replay(client: Client) -> None:
    user = User.objects.create_user("grace", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_quarantined"))
    client.force_login(user)
    assert client.get(PAGE).status_code == 200
    replay(client)
    assert not UsageLog.objects.exists()


@pytest.mark.usefixtures("_rows")
def test_command_centre_says_that_something_was_set_aside(admin_client: Client) -> None:
    assert "2 envelopes of usage could not be written" in admin_client.get("/admin/").text
    Quarantined.objects.all().delete()
    assert "envelopes of usage" not in admin_client.get("/admin/").text
