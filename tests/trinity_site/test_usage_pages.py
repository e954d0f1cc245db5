"""Everybody's usage and the Reconcile page of the command centre."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from billing.seeding import seed_plans
from billing.usage import month_of, save_counts
from telemetry._spool import REPORT_USAGE
from telemetry.models import UsageLog
from telemetry.spool import Spool
from tests.billing.customers import make_key
from tests.telemetry.reported import make_usage, write_usage
from tests.telemetry.spooling import SMALL
from tests.trinity_site.test_books import answered, ship
from trinity_site import usage_pages
from trinity_site.usage_pages import recent_months

OVERVIEW, RECONCILE = "/admin/usage/overview/", "/admin/usage/reconcile/"
MONTH = month_of(timezone.now())
in_threads = pytest.mark.django_db(transaction=True)


def member(*rights: str) -> Client:
    user = User.objects.create_user("watcher", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    client = Client()
    client.force_login(user)
    return client


# Everybody's usage


@pytest.mark.django_db
def test_overview_adds_all_accounts_up(admin_client: Client) -> None:
    now_ns = int(timezone.now().timestamp()) * 10**9
    logs = [log._replace(time_ns=now_ns) for log in make_usage(100)]
    write_usage(logs)
    page = admin_client.get(OVERVIEW)
    prices = [log for log in logs if log.endpoint < REPORT_USAGE]
    assert len({log.account_id for log in prices}) == 2
    assert page.context["cards"][0][:2] == ("Answers", str(len(prices)))
    assert [chart.name for chart in page.context["charts"]] == [
        "time",
        "asset",
        "source",
        "status",
        "protocol",
        "endpoint",
    ]
    assert page.content.count(b'role="img"') == 6


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("asked", "shown"),
    [("", "Last 24 hours"), ("?period=7d", "Last 7 days"), ("?period=nothing", "Last 24 hours")],
)
def test_overview_has_a_period(admin_client: Client, asked: str, shown: str) -> None:
    page = admin_client.get(OVERVIEW + asked).content.decode()
    assert re.findall(r'aria-current="true">([^<]*)</a>', page) == [shown]
    assert page.count("Nothing was answered in this time.") == 6


@pytest.mark.django_db
@pytest.mark.parametrize("path", [OVERVIEW, RECONCILE])
def test_stranger_is_led_to_the_sign_in(client: Client, path: str) -> None:
    assert client.get(path).status_code == 302
    customer = User.objects.create_user("customer")
    client.force_login(customer)
    assert client.get(path, follow=True).status_code in (302, 403)


@pytest.mark.django_db
def test_pages_ask_for_their_rights() -> None:
    watcher = member("view_quarantined")
    assert [watcher.get(path).status_code for path in (OVERVIEW, RECONCILE)] == [403, 403]
    User.objects.all().delete()
    assert member("view_usagesegment").get(RECONCILE).status_code == 403  # what was billed is not for them
    User.objects.all().delete()
    assert member("view_usagerollup").get(OVERVIEW).status_code == 200


@pytest.mark.django_db
def test_sidebar_has_the_pages_that_one_may_see(admin_client: Client) -> None:
    paths = (OVERVIEW, RECONCILE, "/admin/telemetry/quarantined/", "/admin/telemetry/usagesegment/")
    page = admin_client.get(OVERVIEW).content.decode()
    assert all(f'href="{path}"' in page for path in paths)
    page = member("view_usagerollup").get(OVERVIEW).content.decode()
    assert [f'href="{path}"' in page for path in paths] == [True, False, False, False]


# The books


@pytest.fixture
def place(settings: LazySettings, tmp_path: Path) -> LazySettings:
    settings.TRINITY_DATA_DIR, settings.CLUSTER_NODE = tmp_path, "Books"
    return settings


@pytest.fixture
def books(transactional_db: None, place: LazySettings) -> Iterator[int]:
    """Ten answers, in all books; give the key."""
    seed_plans()
    key_id = int(make_key().key.pk)
    (place.TRINITY_DATA_DIR / "spool").mkdir()
    spool = Spool(place.TRINITY_DATA_DIR / "spool", node="Books", row=1, parameters=SMALL)
    spool.prepare()
    answered(spool, key_id)
    save_counts(node="Books", month=MONTH, counts={key_id: 10})
    ship(place)
    yield key_id
    spool.close()


def checks(answer: Any) -> dict[str, int]:  # Any: as Django has it
    return {check.name: check.difference for check in answer.context["report"].checks}


@in_threads
def test_books_that_agree(admin_client: Client, books: int) -> None:
    answer = admin_client.get(RECONCILE)
    page = answer.content.decode()
    assert '<span class="tb-badge tb-live">No difference</span>' in page
    assert "tb-differs" not in page
    assert set(checks(answer).values()) == {0}
    assert "no-store" in answer.headers["Cache-Control"]


@in_threads
def test_rows_are_compared_when_the_button_is_pressed(admin_client: Client, books: int) -> None:
    row = UsageLog.objects.order_by("sequence").first()
    assert row is not None
    UsageLog.objects.filter(pk=row.pk).delete()
    quick = admin_client.get(RECONCILE).content.decode()
    assert "No difference" in quick and "ledger = rows" not in quick
    answer = admin_client.post(RECONCILE, {"node": "Books", "month": MONTH})
    assert checks(answer)["ledger = rows"] == 1
    page = answer.content.decode()
    assert '<tr class="tb-differs"><th scope="row">ledger = rows</th>' in page
    assert "the ledger has 10 rows, the table 9" in page
    assert "Every row was counted." in page


@in_threads
def test_difference_is_told_with_its_place(admin_client: Client, books: int) -> None:
    save_counts(node="Books", month=MONTH, counts={books: 500})
    page = admin_client.get(RECONCILE).content.decode()
    assert '<span class="tb-badge tb-refused">1 difference</span>' in page
    assert "490 were counted and not logged" in page


@in_threads
def test_another_node_and_month_can_be_chosen(admin_client: Client, books: int) -> None:
    save_counts(node="Other", month=MONTH, counts={books: 3})
    page = admin_client.get(RECONCILE).content.decode()
    assert re.findall(r'<option value="(\w+)"', page)[:2] == ["Books", "Other"]
    answer = admin_client.get(RECONCILE, {"node": "Other", "month": recent_months(MONTH)[1]})
    report = answer.context["report"]
    assert (report.node, report.month) == ("Other", recent_months(MONTH)[1])
    assert b"are not on this machine" in answer.content


@in_threads
@pytest.mark.parametrize("chosen", [{"node": "nobody"}, {"month": "209913"}, {"month": "now"}])
def test_node_or_month_that_cannot_be_is_refused(
    admin_client: Client, place: LazySettings, chosen: dict[str, str]
) -> None:
    answer = admin_client.get(RECONCILE, chosen)
    assert b"Select a valid choice" in answer.content
    assert "report" not in answer.context


@in_threads
def test_one_comparison_at_a_time(admin_client: Client, place: LazySettings) -> None:
    with usage_pages._reconciling:
        answer = admin_client.get(RECONCILE)
    assert b"Somebody compares already" in answer.content
    assert b"No difference" in admin_client.get(RECONCILE).content


@in_threads
def test_button_asks_for_a_token(admin_user: User, place: LazySettings) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(RECONCILE, {"node": "Books", "month": MONTH}).status_code == 403


@pytest.mark.parametrize(
    ("month", "months"),
    [(202611, [202611, 202610, 202609, 202608]), (202701, [202701, 202612, 202611, 202610])],
)
def test_months_to_choose_from(month: int, months: list[int]) -> None:
    assert recent_months(month) == months
