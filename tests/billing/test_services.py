"""Plans, accounts and keys: what is allowed, what is stored, and who is told to look again."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.test import override_settings
from django.utils import timezone

from billing import keys
from billing.authors import Author, Door
from billing.exceptions import (
    AccountOnOtherPlan,
    BillingError,
    KeyNotFound,
    KeyNotLive,
    KeyRefused,
    PlanNotFound,
    PlanRefused,
)
from billing.models import Account, ApiKey, Plan
from billing.rows import key_revision
from billing.services import (
    MOST_KEYS_A_DAY,
    MOST_LIVE_KEYS,
    account_for,
    change_account,
    change_key,
    create_key,
    find_key,
    first_key,
    get_plan,
    open_account,
    revoke_key,
    rotate_key,
    save_plan,
    user_changed,
)
from billing.sharing import Announcer
from tests.billing.customers import AUTHOR, fresh, make_account, make_key

pytestmark = pytest.mark.usefixtures("plans")


# Plans


def test_changed_plan_touches_its_keys_and_no_others() -> None:
    mine, other = make_key().key, make_key(make_account("bob@example.com", "free")).key
    before = key_revision()
    save_plan(name="pro", columns={"burst": 40}, author=AUTHOR)
    assert Plan.objects.get(name="pro").burst == 40
    assert (fresh(mine).revision, fresh(other).revision) == (before + 1, other.revision)


def test_plan_saved_as_it_is_touches_nothing() -> None:
    key = make_key().key
    save_plan(name="pro", columns={"burst": 20}, author=AUTHOR)
    assert fresh(key).revision == key.revision
    assert Plan.history.filter(name="pro").count() == 1


@pytest.mark.parametrize(
    ("name", "columns", "field"),
    [
        ("Big Plan", {"title": "Big", "price": "$1"}, "name"),
        ("big", {"title": "", "price": "$1"}, "title"),
        ("pro", {"burst": None}, "__all__"),
        ("pro", {"requests_per_second": 0}, "__all__"),
        ("pro", {"requests_per_month": -1}, "requests_per_month"),
        ("pro", {"partner": True}, "__all__"),
    ],
)
def test_plan_that_cannot_be_is_refused_with_the_field(
    name: str, columns: dict[str, Any], field: str
) -> None:
    with pytest.raises(PlanRefused) as refused:
        save_plan(name=name, columns=columns, author=AUTHOR)
    assert field in refused.value.errors
    assert Plan.objects.get(name="pro").burst == 20


def test_database_itself_refuses_a_partner_plan_with_limits() -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Plan.objects.filter(name="pro").update(partner=True)


# Accounts


def test_account_of_a_user_is_opened_once_on_the_free_plan() -> None:
    user = User.objects.create_user("ada@example.com")
    assert open_account(user=user) == open_account(user=user)
    assert Account.objects.get().plan.name == "free"


def test_account_of_a_new_address_has_a_user_without_a_password() -> None:
    account = make_account()
    assert (account.user.username, account.user.email) == ("ada@example.com", "ada@example.com")
    assert not account.user.has_usable_password()


def test_account_on_another_plan_is_named_and_changed_only_when_asked() -> None:
    key = make_key().key
    with pytest.raises(AccountOnOtherPlan, match=r"ada@example.com is on the plan pro"):
        account_for(email="ada@example.com", plan="partner", author=AUTHOR)
    account_for(email="ada@example.com", plan="partner", author=AUTHOR, change_plan=True)
    assert Account.objects.get().plan.name == "partner"
    assert fresh(key).revision > key.revision


def test_unknown_plan_is_named() -> None:
    with pytest.raises(PlanNotFound, match="'gold'"):
        make_account(plan="gold")
    assert not User.objects.exists()


def test_report_addon_takes_the_cap_on_reports_away() -> None:
    account = make_account()
    assert account.reports_per_month == 10
    change_account(account=account, plan=account.plan, report_addon=True, author=AUTHOR)
    assert Account.objects.get().reports_per_month is None


def test_changed_user_touches_the_keys() -> None:
    key = make_key().key
    user_changed(user=key.account.user)
    assert fresh(key).revision > key.revision


# Keys


def test_new_key_has_the_format_and_leaves_only_its_digest() -> None:
    made = make_key()
    row = fresh(made.key)
    assert keys.is_wellformed(made.text)
    assert bytes(row.digest) == keys.digest(made.text)
    assert row.prefix == made.text[:12]
    assert made.text not in repr(made)
    columns = [str(getattr(row, field.attname)) for field in ApiKey._meta.concrete_fields]
    assert not any(made.text[12:] in column for column in columns)


def test_no_two_keys_are_alike() -> None:
    account = make_account()
    assert len({make_key(account).text for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": "  "}, "name"),
        ({"name": "x" * 61}, "name"),
        ({"scopes": []}, "__all__"),
        ({"scopes": ["prices", "orders"]}, "scopes"),
        ({"networks": ["nowhere"]}, "networks"),
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, "expires_at"),
    ],
)
def test_key_that_cannot_be_is_refused_with_the_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(KeyRefused) as refused:
        make_key(**options)
    assert list(refused.value.errors) == [field]
    assert not ApiKey.objects.exists()


def test_customer_has_a_bound_on_live_keys_and_the_operator_has_none() -> None:
    account = make_account()
    author = Author(Door.ACCOUNT, account.user)
    made = [make_key(account, author=author) for _ in range(MOST_LIVE_KEYS)]
    with pytest.raises(KeyRefused, match="revoke one first"):
        make_key(account, author=author)
    make_key(account)
    for one in made[:2]:
        revoke_key(key=one.key, author=author)
    make_key(account, author=author)


def test_customer_has_a_bound_on_keys_of_a_day_however_they_end() -> None:
    account = make_account()
    author = Author(Door.ACCOUNT, account.user)
    for _ in range(MOST_KEYS_A_DAY - 1):
        revoke_key(key=make_key(account, author=author).key, author=author)
    last = make_key(account, author=author).key
    revoke_key(key=make_key(make_account("grace@example.com"), author=author).key, author=author)
    for make in (lambda: make_key(account, author=author), lambda: rotate_key(key=last, author=author)):
        with pytest.raises(KeyRefused, match="60 keys were made within a day"):
            make()
    assert ApiKey.objects.of(account).count() == MOST_KEYS_A_DAY
    make_key(account)  # the operator may
    ApiKey.objects.of(account).update(created_at=timezone.now() - timedelta(hours=24))
    make_key(account, author=author)


def test_customer_has_no_more_live_keys_by_rotating_them() -> None:
    account = make_account(plan="free")
    author = Author(Door.ACCOUNT, account.user)
    made = [make_key(account, author=author).key for _ in range(MOST_LIVE_KEYS)]
    with pytest.raises(KeyRefused, match="revoke one first"):
        rotate_key(key=made[0], author=author)
    assert fresh(made[0]).state == "live", "nothing has happened"
    rotate_key(key=made[0], author=author, overlap_h=0)
    revoke_key(key=made[1], author=author)
    rotate_key(key=made[2], author=author)
    assert ApiKey.objects.of(account).live().count() == MOST_LIVE_KEYS


def test_rotation_ends_the_key_that_was_rotated_before() -> None:
    first = make_key().key
    second = rotate_key(key=first, author=AUTHOR, overlap_h=48).key
    assert fresh(first).state == "expiring"
    third = rotate_key(key=second, author=AUTHOR).key
    assert [fresh(key).state for key in (first, second, third)] == ["expired", "expiring", "live"]
    assert fresh(first).revision == fresh(third).revision, "the gate is told"


def test_change_names_who_did_it_and_how() -> None:
    user = User.objects.create_user("operator")
    key = make_key().key
    change_key(
        key=key,
        name="other bot",
        scopes=["reports"],
        networks=["192.0.2.7"],
        author=Author(Door.ADMIN, user),
    )
    row = fresh(key)
    assert (row.name, row.scopes, row.networks) == ("other bot", ["reports"], ["192.0.2.7/32"])
    entry = ApiKey.history.filter(id=key.pk).first()
    assert (entry.history_user, entry.history_change_reason, entry.history_type) == (user, "admin", "~")


def test_rotated_key_has_a_successor_and_stays_for_the_overlap() -> None:
    old = make_key(scopes=["prices"], networks=["192.0.2.0/24"]).key
    made = rotate_key(key=old, author=AUTHOR, overlap_h=2)
    new, ended = fresh(made.key), fresh(old)
    assert (new.name, new.scopes, new.networks, new.expires_at) == ("bot", ["prices"], ["192.0.2.0/24"], None)
    assert new.rotated_from == old
    assert bytes(new.digest) != bytes(ended.digest)
    assert ended.expires_at is not None
    assert abs(ended.expires_at - timezone.now() - timedelta(hours=2)) < timedelta(minutes=1)
    assert (ended.state, ended.state_at(ended.expires_at)) == ("expiring", "expired")
    assert new.revision == ended.revision > old.revision


def test_rotation_without_overlap_ends_the_old_key_at_once() -> None:
    old = make_key().key
    rotate_key(key=old, author=AUTHOR, overlap_h=0)
    assert fresh(old).state == "expired"


def test_rotation_never_makes_a_key_last_longer() -> None:
    end = timezone.now() + timedelta(hours=1)
    old = make_key(expires_at=end).key
    made = rotate_key(key=old, author=AUTHOR)
    assert (fresh(old).expires_at, fresh(made.key).expires_at) == (end, end)


@pytest.mark.parametrize("overlap_h", [-1, 24 * 30 + 1])
def test_overlap_out_of_bounds_is_refused(overlap_h: int) -> None:
    with pytest.raises(KeyRefused):
        rotate_key(key=make_key().key, author=AUTHOR, overlap_h=overlap_h)
    assert ApiKey.objects.count() == 1


def test_key_is_rotated_once() -> None:
    old = make_key().key
    rotate_key(key=old, author=AUTHOR)
    with pytest.raises(KeyNotLive, match="rotated already"):
        rotate_key(key=old, author=AUTHOR)


def revoke(key: ApiKey) -> None:
    revoke_key(key=key, author=AUTHOR)


def test_revoked_key_stays_revoked_from_the_first_time() -> None:
    key = make_key().key
    revoke(key)
    first = fresh(key)
    revoke(key)
    assert first.state == "revoked"
    assert (fresh(key).revoked_at, fresh(key).revision) == (first.revoked_at, first.revision)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: rotate_key(key=key, author=AUTHOR),
        lambda key: change_key(key=key, name="x", scopes=["prices"], networks=[], author=AUTHOR),
    ],
)
def test_revoked_key_cannot_be_changed(change: Callable[[ApiKey], object]) -> None:
    key = make_key().key
    revoke(key)
    with pytest.raises(KeyNotLive, match="is revoked"):
        change(key)


def test_row_of_a_key_cannot_be_deleted_with_its_account() -> None:
    account = make_key().key.account
    with pytest.raises(Exception, match="protected"):
        account.delete()
    with pytest.raises(Exception, match="protected"):
        account.user.delete()


# Finding


def test_key_is_found_by_number_prefix_and_text() -> None:
    made = make_key()
    prefix = made.key.prefix
    names = (str(made.key.pk), prefix, f"{prefix}…", made.text, f" {made.text}\n")
    assert {find_key(name).pk for name in names} == {made.key.pk}


def test_key_that_is_not_there_is_not_found() -> None:
    other = keys.generate(lambda count: bytes(count))
    for name in ("", "0", "9" * 40, "tb_live_zzzz", other, "ada@example.com"):
        with pytest.raises(KeyNotFound):
            find_key(name)


def test_complaint_about_a_key_shows_no_more_than_its_prefix() -> None:
    text = make_key().text
    wrong = text[:-1] + ("a" if text[-1] != "a" else "b")
    with pytest.raises(KeyNotFound) as missed:
        find_key(wrong)
    assert text[12:20] not in str(missed.value)


def test_prefix_of_two_keys_is_not_enough() -> None:
    one, other = make_key().key, make_key().key
    ApiKey.objects.filter(pk=other.pk).update(prefix=one.prefix)
    with pytest.raises(KeyNotFound):
        find_key(one.prefix)


def test_first_key_is_made_where_there_is_none() -> None:
    made = first_key(name="Demo key", plan="pro", author=AUTHOR)
    assert made is not None
    assert (made.key.account.plan.name, made.key.account.user.email) == ("pro", "")
    assert first_key(name="Demo key", plan="pro", author=AUTHOR) is None


# The revision


def test_every_change_of_a_key_has_a_number_of_its_own() -> None:
    made = make_key()
    numbers = [made.key.revision]
    numbers.append(change_key(key=made.key, name="x", scopes=["prices"], networks=[], author=AUTHOR).revision)
    numbers.append(rotate_key(key=made.key, author=AUTHOR).key.revision)
    numbers.append(revoke_key(key=made.key, author=AUTHOR).revision)
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == key_revision()


def test_refused_change_raises_no_number() -> None:
    account = make_account()
    before = key_revision()
    with pytest.raises(BillingError):
        create_key(account=account, name="", author=AUTHOR)
    assert key_revision() == before


@pytest.mark.django_db(transaction=True)
def test_changes_at_once_are_committed_in_the_order_of_their_numbers() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time anyway")
    import threading

    from django.db import connections

    account = make_account()
    seen: list[tuple[int, int]] = []

    def change() -> None:
        try:
            with transaction.atomic():
                number = make_key(account).key.revision
                seen.append((number, key_revision()))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=change) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [number for number, _ in seen]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 6
    assert get_plan("pro") and all(number == now for number, now in seen)


def test_change_of_a_key_is_announced_once_it_is_committed(
    django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[int] = []
    monkeypatch.setattr(Announcer, "announce", lambda self: announced.append(key_revision()))
    key = make_key().key
    with override_settings(REDIS_URL="redis://127.0.0.1:1/0"):
        with django_capture_on_commit_callbacks(execute=True):
            revoke_key(key=key, author=AUTHOR)
            assert announced == []
        assert announced == [key_revision()]
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        user_changed(user=key.account.user)
    assert callbacks == [], "there is nobody to tell"


def test_valkey_that_is_away_refuses_no_change(django_capture_on_commit_callbacks: Any) -> None:
    key = make_key().key
    with (
        override_settings(REDIS_URL="redis://127.0.0.1:1/0"),
        django_capture_on_commit_callbacks(execute=True),
    ):
        revoke_key(key=key, author=AUTHOR)
    assert fresh(key).state == "revoked"
