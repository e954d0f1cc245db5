"""Plans, accounts, keys and records in the command centre."""

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from billing import keys, reports
from billing.models import Account, ApiKey, MonthlyCount, Plan, ReportCount, SecurityEvent
from billing.rows import key_page
from billing.security import Attempt, record
from billing.services import revoke_key, rotate_key
from billing.usage import month_of, save_counts
from tests.billing.customers import AUTHOR, fresh, make_account, make_key

pytestmark = pytest.mark.usefixtures("plans", "_rows")
PLANS, ACCOUNTS, KEYS = "/admin/billing/plan/", "/admin/billing/account/", "/admin/billing/apikey/"
COUNTS, EVENTS = "/admin/billing/monthlycount/", "/admin/billing/securityevent/"
REPORTS = "/admin/billing/reportcount/"
TEXT = re.compile(r"tb_live_[0-9A-Za-z]{38}")


@pytest.fixture
def _rows(plans: None) -> None:
    key = make_key(networks=["192.0.2.0/24"]).key
    reports.take(account_id=key.account_id, month=202611)
    save_counts(node="BeastMain", month=month_of(timezone.now()), counts={key.pk: 4_321})
    record([Attempt(SecurityEvent.Kind.KEY_UNKNOWN, "192.0.2.66", count=17)])


def form_of(client: Client, path: str) -> dict[str, Any]:  # Any: form values
    """Return what a browser would send when nothing is changed in the form at *path*."""
    form = client.get(path).context["adminform"].form
    values = {name: form[name].value() for name in form.fields}
    values |= {name: field.prepare_value(values[name]) for name, field in form.fields.items()}
    return {name: value for name, value in values.items() if value is not None and value is not False}


@pytest.mark.parametrize(
    "path",
    [
        PLANS,
        f"{PLANS}add/",
        ACCOUNTS,
        f"{ACCOUNTS}add/",
        f"{ACCOUNTS}?plan__id__exact=1&report_addon__exact=1&user__is_active__exact=1&q=ada",
        KEYS,
        f"{KEYS}add/",
        f"{KEYS}?state=live&scope_prices__exact=1&q=tb_live_",
        f"{KEYS}?state=expiring",
        f"{KEYS}?state=expired",
        f"{KEYS}?state=revoked",
        COUNTS,
        f"{COUNTS}?node=BeastMain&q=bot",
        REPORTS,
        f"{REPORTS}?month=202611&account__plan__id__exact=1&account__report_addon__exact=0&q=ada",
        EVENTS,
        f"{EVENTS}?kind__exact=key_unknown&q=192.0.2",
    ],
)
def test_page_renders(admin_client: Client, path: str) -> None:
    assert admin_client.get(path).status_code == 200


@pytest.mark.parametrize("model", [Plan, Account, ApiKey])
@pytest.mark.parametrize("page", ["change", "history"])
def test_page_of_one_row_renders(admin_client: Client, model: type[Any], page: str) -> None:
    row = model.objects.first()
    path = f"/admin/billing/{model._meta.model_name}/{row.pk}/{page}/"
    assert admin_client.get(path).status_code == 200


@pytest.mark.parametrize("page", ["rotate", "revoke"])
def test_question_about_a_key_renders(admin_client: Client, page: str) -> None:
    assert admin_client.get(f"{KEYS}{ApiKey.objects.get().pk}/{page}/").status_code == 200


def test_sidebar_has_the_pages(admin_client: Client) -> None:
    page = admin_client.get(KEYS).content.decode()
    for path in (PLANS, ACCOUNTS, KEYS, COUNTS, REPORTS, EVENTS):
        assert f'href="{path}"' in page


def test_lists_show_what_matters(admin_client: Client) -> None:
    page = admin_client.get(KEYS).content.decode()
    assert "4,321" in page and ApiKey.objects.get().prefix in page and "live" in page
    assert "192.0.2.66" in admin_client.get(EVENTS).content.decode()
    assert "$300/month" in admin_client.get(PLANS).content.decode()


@pytest.mark.parametrize(
    ("model", "path"), [(MonthlyCount, COUNTS), (ReportCount, REPORTS), (SecurityEvent, EVENTS)]
)
def test_records_can_be_read_and_nothing_else(admin_client: Client, model: type[Any], path: str) -> None:
    pk = model.objects.get().pk
    assert admin_client.get(f"{path}{pk}/change/").status_code == 200
    assert admin_client.post(f"{path}{pk}/change/", {"count": 1}).status_code == 403
    for page in ("add/", f"{pk}/delete/"):
        assert admin_client.get(f"{path}{page}").status_code == 403
    admin_client.post(path, {"action": "delete_selected", "_selected_action": [pk]})
    assert model.objects.count() == 1


def test_reports_are_listed_with_the_cap_that_holds_now(admin_client: Client) -> None:
    account = ReportCount.objects.get().account
    for _ in range(2):
        reports.take(account_id=account.pk, month=202611)
    reports.take(account_id=make_account("bob@example.com").pk, month=202611)

    def rows(query: str = "") -> list[list[str]]:
        page = admin_client.get(f"{REPORTS}{query}").content.decode()
        found = [
            re.findall(r'class="[^"]*field-\w+[^"]*"[^>]*>(.*?)</t[hd]>', one, re.DOTALL)
            for one in page.split("<tr")
        ]
        return [[re.sub(r"<[^>]+>|\s+", " ", cell).strip() for cell in row] for row in found if row]

    cap, name = str(account.reports_per_month), str(account)
    assert [row[1:2] + row[3:] for row in rows()] == [[name, "3", cap], ["bob@example.com", "1", "10"]]
    Account.objects.filter(pk=account.pk).update(report_addon=True)
    assert [row[3:] for row in rows(f"?q={name}")] == [["3", "none"]]


@pytest.mark.parametrize(("model", "path"), [(Plan, PLANS), (Account, ACCOUNTS), (ApiKey, KEYS)])
def test_rows_are_never_deleted(admin_client: Client, model: type[Any], path: str) -> None:
    row = model.objects.first()
    assert admin_client.post(f"{path}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert model.objects.filter(pk=row.pk).exists()


# Plans and accounts


def test_saved_plan_reaches_its_keys_and_names_who_did_it(admin_client: Client) -> None:
    plan, key = Plan.objects.get(name="pro"), ApiKey.objects.get()
    path = f"{PLANS}{plan.pk}/change/"
    response = admin_client.post(path, {**form_of(admin_client, path), "burst": 99})
    assert response.status_code == 302, response.context["adminform"].form.errors
    assert [row.burst for row in key_page(after=key.revision)] == [99]
    entry = Plan.history.filter(name="pro").first()
    assert (entry.history_user.username, entry.history_change_reason) == ("admin", "admin")


def test_plan_without_a_burst_is_refused_in_words(admin_client: Client) -> None:
    path = f"{PLANS}{Plan.objects.get(name='pro').pk}/change/"
    page = admin_client.post(path, {**form_of(admin_client, path), "burst": ""}).content.decode()
    assert "Give both a rate and a burst" in page


def test_account_is_made_with_an_address(admin_client: Client) -> None:
    plan = Plan.objects.get(name="partner")
    form = {"email": "Bob@Example.com", "plan": plan.pk, "report_addon": "on"}
    response = admin_client.post(f"{ACCOUNTS}add/", form)
    assert response.status_code == 302, response.context["adminform"].form.errors
    account = Account.objects.get(user__username="bob@example.com")
    assert (account.plan, account.report_addon) == (plan, True)
    page = admin_client.post(f"{ACCOUNTS}add/", form).content.decode()
    assert "has an account already" in page


def test_account_on_another_plan_gives_its_keys_the_new_limits(admin_client: Client) -> None:
    account = Account.objects.get()
    form = {"plan": Plan.objects.get(name="partner").pk}
    assert admin_client.post(f"{ACCOUNTS}{account.pk}/change/", form).status_code == 302
    assert [row.partner for row in key_page()] == [True]


def test_inactive_user_has_refused_keys(admin_client: Client) -> None:
    user = Account.objects.get().user
    path = f"/admin/auth/user/{user.pk}/change/"
    form = {
        "username": user.username,
        "email": user.email,
        "date_joined_0": "2026-11-22",
        "date_joined_1": "12:00:00",
    }
    response = admin_client.post(path, form)
    assert response.status_code == 302, response.context["adminform"].form.errors
    assert [row.revoked for row in key_page()] == [True]


def test_user_with_an_account_cannot_be_deleted(admin_client: Client) -> None:
    user = Account.objects.get().user
    assert admin_client.post(f"/admin/auth/user/{user.pk}/delete/", {"post": "yes"}).status_code == 403


# Keys


def new_key(client: Client, **values: Any) -> Any:  # Any: form values, a response
    account = Account.objects.get()
    form = {
        "account": account.pk,
        "name": "made here",
        "scope_prices": "on",
        "networks": "192.0.2.7",
        **values,
    }
    return client.post(f"{KEYS}add/", form)


def test_new_key_is_shown_once(admin_client: Client) -> None:
    response = new_key(admin_client)
    (text,) = set(TEXT.findall(response.content.decode()))
    key = ApiKey.objects.get(name="made here")
    assert bytes(key.digest) == keys.digest(text)
    assert (key.scopes, key.networks) == (["prices"], ["192.0.2.7/32"])
    assert "no-store" in response.headers["Cache-Control"]
    for path in (KEYS, f"{KEYS}{key.pk}/change/", f"{KEYS}{key.pk}/history/", "/admin/"):
        assert not TEXT.search(admin_client.get(path).content.decode())
    entry = LogEntry.objects.get()
    assert text not in f"{entry.object_repr} {entry.change_message}"
    assert text not in str(dict(admin_client.session))
    assert text not in str(admin_client.cookies)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"networks": "10.1.2.3/8"}, "did you mean"),
        ({"scope_prices": ""}, "for prices, for reports, or for both"),
        ({"name": ""}, "This field is required"),
        ({"expires_at_0": "2001-01-01", "expires_at_1": "00:00:00"}, "must be in the future"),
    ],
)
def test_new_key_that_cannot_be_is_refused_in_words(
    admin_client: Client, values: dict[str, str], complaint: str
) -> None:
    response = new_key(admin_client, **values)
    while response.status_code == 302:  # what only the service sees comes as a message
        response = admin_client.get(response.headers["Location"])
    assert complaint in response.content.decode()
    assert ApiKey.objects.count() == 1


def test_key_is_changed_with_history(admin_client: Client) -> None:
    key = ApiKey.objects.get()
    path = f"{KEYS}{key.pk}/change/"
    form = {"name": "renamed", "scope_reports": "on", "networks": ""}
    assert admin_client.post(path, form).status_code == 302
    row = fresh(key)
    assert (row.name, row.scopes, row.networks, row.revision > key.revision) == (
        "renamed",
        ["reports"],
        [],
        True,
    )
    assert key.history.first().history_user.username == "admin"


def test_key_is_rotated_and_the_new_one_shown_once(admin_client: Client) -> None:
    old = ApiKey.objects.get()
    response = admin_client.post(f"{KEYS}{old.pk}/rotate/", {"overlap_h": 1})
    (text,) = set(TEXT.findall(response.content.decode()))
    assert bytes(ApiKey.objects.get(rotated_from=old).digest) == keys.digest(text)
    again = admin_client.post(f"{KEYS}{old.pk}/rotate/", {"overlap_h": 1}, follow=True)
    assert "rotated already" in again.content.decode()


def test_key_is_revoked_and_cannot_be_changed_after(admin_client: Client) -> None:
    key = ApiKey.objects.get()
    page = admin_client.post(f"{KEYS}{key.pk}/revoke/", follow=True).content.decode()
    assert "is refused from now on" in page
    assert (
        admin_client.post(f"{KEYS}{key.pk}/change/", {"name": "x", "scope_prices": "on"}).status_code == 403
    )
    assert (fresh(key).state, fresh(key).name) == ("revoked", "bot")
    assert LogEntry.objects.get().change_message == "Revoked."


def test_keys_are_revoked_from_the_list(admin_client: Client) -> None:
    make_key()
    chosen = list(ApiKey.objects.values_list("pk", flat=True))
    admin_client.post(KEYS, {"action": "revoke", "_selected_action": chosen})
    assert not ApiKey.objects.live().exists()
    assert all(row.revoked for row in key_page())


def test_state_filter_finds_each_state(admin_client: Client) -> None:
    account = make_account()
    for name in ("gone", "leaving", "over"):
        key = make_key(account, name=name).key
        if name == "gone":
            revoke_key(key=key, author=AUTHOR)
        else:
            rotate_key(key=key, author=AUTHOR, overlap_h=0 if name == "over" else 1)
            ApiKey.objects.filter(rotated_from=key).update(name="successor")
    for state, name in (("revoked", "gone"), ("expiring", "leaving"), ("expired", "over")):
        rows = admin_client.get(f"{KEYS}?state={state}").context["cl"].result_list
        assert [row.name for row in rows] == [name]
    rows = admin_client.get(f"{KEYS}?state=live").context["cl"].result_list
    assert {row.name for row in rows} == {"bot", "successor"}


def test_staff_without_rights_sees_and_changes_nothing(client: Client) -> None:
    client.force_login(User.objects.create_user("helper", is_staff=True))
    key = ApiKey.objects.get()
    for path in (PLANS, ACCOUNTS, KEYS, COUNTS, EVENTS, f"{KEYS}{key.pk}/rotate/", f"{KEYS}{key.pk}/revoke/"):
        assert client.get(path).status_code == 403
        assert client.post(path).status_code == 403
    assert fresh(key).state == "live"
