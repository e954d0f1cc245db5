import pytest
from django.db import DatabaseError
from django.test import override_settings

from billing.checks import check_gate, check_mail, check_second_factor
from billing.models import KeyQuerySet
from billing.services import revoke_key
from tests.billing.customers import AUTHOR, make_key


@override_settings(TRINITY_STAFF_SECOND_FACTOR=False, EMAIL_HOST="")
def test_what_is_missing_in_service_is_named() -> None:
    assert [found.id for found in (*check_second_factor(), *check_mail())] == ["billing.W001", "billing.W002"]


@override_settings(TRINITY_STAFF_SECOND_FACTOR=True, EMAIL_HOST="mail.example.com")
def test_nothing_is_named_where_nothing_is_missing() -> None:
    assert [*check_second_factor(), *check_mail()] == []


@pytest.mark.usefixtures("plans")
def test_gate_that_is_nearly_full_is_named() -> None:
    made = [make_key() for _ in range(9)]
    with override_settings(TRINITY_GATE_ROWS=11):
        (found,) = check_gate(databases=["default"])
        assert found.id == "billing.W003"
        assert "9 live API keys" in found.msg
        assert check_gate() == [], "only where the database may be asked"
    with override_settings(TRINITY_GATE_ROWS=12):
        assert check_gate(databases=["default"]) == []
    revoke_key(key=made[0].key, author=AUTHOR)  # it makes way
    with override_settings(TRINITY_GATE_ROWS=11):
        assert check_gate(databases=["default"]) == []


def test_database_without_tables_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> int:
        raise DatabaseError

    monkeypatch.setattr(KeyQuerySet, "count", fail)
    assert check_gate(databases=["default"]) == []
