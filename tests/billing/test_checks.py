from django.test import override_settings

from billing.checks import check_mail, check_second_factor


@override_settings(TRINITY_STAFF_SECOND_FACTOR=False, EMAIL_HOST="")
def test_what_is_missing_in_service_is_named() -> None:
    assert [found.id for found in (*check_second_factor(), *check_mail())] == ["billing.W001", "billing.W002"]


@override_settings(TRINITY_STAFF_SECOND_FACTOR=True, EMAIL_HOST="mail.example.com")
def test_nothing_is_named_where_nothing_is_missing() -> None:
    assert [*check_second_factor(), *check_mail()] == []
