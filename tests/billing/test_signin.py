"""Signing in through a real client: codes, passwords and second factors; and what becomes of guessing."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core import mail
from django.core.cache import cache
from django.db.models import Sum
from django.test import Client, RequestFactory, override_settings
from django.urls import reverse

from billing.models import Account, SecurityEvent
from billing.signin import DEVICE_COOKIE, SecondFactorAdapter, is_known_device
from tests.billing.customers import make_account
from trinity_site.consumers import may_view

pytestmark = pytest.mark.usefixtures("plans", "_no_limits_yet")
Kind = SecurityEvent.Kind
LOGIN, STAFF, SIGNUP = "/account/login/", "/account/login/staff/", "/account/signup/"
CODE = re.compile(r"^\s*([A-Z0-9]{3,5}-?[A-Z0-9]{3,5})\s*$", re.MULTILINE)
EMAIL = "ada@example.com"
PASSWORD = "correct horse battery"


@pytest.fixture
def _no_limits_yet(plans: None) -> None:
    cache.clear()


@pytest.fixture
def admin() -> User:
    return User.objects.create_superuser("root", email="", password=PASSWORD)


def code_in_mail() -> str:
    found = CODE.search(str(mail.outbox[-1].body))
    assert found, mail.outbox[-1].body
    return found[1]


def ask_for_code(client: Client, email: str = EMAIL) -> None:
    response = client.post(LOGIN, {"login": email})
    assert response.headers["Location"].startswith(reverse("account_confirm_login_code"))


def sign_in(client: Client, email: str = EMAIL) -> None:
    ask_for_code(client, email)
    response = client.post(reverse("account_confirm_login_code"), {"code": code_in_mail()})
    assert (response.status_code, response.headers["Location"]) == (302, "/account/")


def password(client: Client, name: str, word: str, address: str = "192.0.2.1") -> bool:
    response = client.post(STAFF, {"login": name, "password": word}, REMOTE_ADDR=address)
    return response.status_code == 302


def events() -> dict[tuple[str, str], int]:
    """Return how often what was tried on whom, wherever it came from."""
    rows = SecurityEvent.objects.order_by().values_list("kind", "subject").annotate(Sum("count"))
    return {(kind, subject): count for kind, subject, count in rows}


def secret_of(response_context: object) -> str:
    url = response_context["totp_url"]  # type: ignore[index]  # a template's context
    return parse_qs(urlsplit(url).query)["secret"][0]


def totp(secret: str) -> str:
    return format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time()))))


# Customers


def test_customer_opens_an_account_with_an_address_and_a_code(client: Client) -> None:
    response = client.post(SIGNUP, {"email": "Ada@Example.com"})
    assert response.headers["Location"] == reverse("account_email_verification_sent")
    assert client.get("/account/").status_code == 302
    response = client.post(response.headers["Location"], {"code": code_in_mail()})
    assert response.headers["Location"] == "/account/"
    page = client.get("/account/").content.decode()
    assert "Free" in page and EMAIL in page
    user = User.objects.get()
    assert (user.username, user.has_usable_password()) == (EMAIL, False)
    assert Account.objects.get().plan.name == "free"


def test_customer_signs_in_with_a_code_and_out_again(client: Client) -> None:
    make_account()
    sign_in(client)
    assert client.get("/account/").status_code == 200
    assert client.post("/account/logout/").headers["Location"] == "/"
    assert client.get("/account/").status_code == 302


def test_code_works_in_the_browser_that_asked_for_it_only(client: Client) -> None:
    make_account()
    ask_for_code(client)
    other = Client()
    other.post(reverse("account_confirm_login_code"), {"code": code_in_mail()})
    assert other.get("/account/").status_code == 302


def test_code_works_once(client: Client) -> None:
    make_account()
    ask_for_code(client)
    code = code_in_mail()
    client.post(reverse("account_confirm_login_code"), {"code": code})
    client.post("/account/logout/")
    client.post(reverse("account_confirm_login_code"), {"code": code})
    assert client.get("/account/").status_code == 302


def test_answer_for_an_unknown_address_is_the_same(client: Client) -> None:
    make_account()
    known = client.post(LOGIN, {"login": EMAIL})
    unknown = Client().post(LOGIN, {"login": "nobody@example.com"})
    assert (known.status_code, known.headers["Location"]) == (
        unknown.status_code,
        unknown.headers["Location"],
    )
    assert "code" not in str(mail.outbox[-1].subject).lower()
    assert mail.outbox[-1].to == ["nobody@example.com"]


def test_sign_up_with_a_taken_address_looks_like_any_other(client: Client) -> None:
    make_account()
    response = client.post(SIGNUP, {"email": EMAIL})
    assert response.headers["Location"] == reverse("account_email_verification_sent")
    assert User.objects.count() == 1


def test_next_page_may_not_be_elsewhere(client: Client) -> None:
    make_account()
    client.post(f"{LOGIN}?next=https://evil.example/", {"login": EMAIL, "next": "https://evil.example/"})
    response = client.post(reverse("account_confirm_login_code"), {"code": code_in_mail()})
    assert response.headers["Location"] == "/account/"


@pytest.mark.parametrize(
    "path",
    ["/account/password/set/", "/account/password/change/", "/account/password/reset/", "/account/email/"],
)
def test_there_are_no_passwords_for_customers(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", [LOGIN, STAFF, SIGNUP])
def test_sign_in_page_is_the_site_s_own_under_the_strict_policy(client: Client, path: str) -> None:
    response = client.get(path)
    page = response.content.decode()
    assert 'class="brand"' in page and "account.css" in page
    assert "script-src 'self';" in response.headers["Content-Security-Policy"] + ";"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\son\w+=", page)


def test_form_without_its_token_is_refused() -> None:
    client = Client(enforce_csrf_checks=True)
    assert client.post(LOGIN, {"login": EMAIL}).status_code == 403


# Guessing


def test_third_wrong_code_ends_the_attempt_and_is_seen(client: Client) -> None:
    make_account()
    ask_for_code(client)
    code = code_in_mail()
    for _ in range(3):
        client.post(reverse("account_confirm_login_code"), {"code": "WRNG-WRNG"})
    client.post(reverse("account_confirm_login_code"), {"code": code})
    assert client.get("/account/").status_code == 302
    assert events() == {(Kind.CODE_REFUSED, EMAIL): 3}


def test_guesser_with_many_addresses_has_nine_guesses_at_an_account() -> None:
    make_account()
    guesses = 0
    for number in range(30):
        client = Client(REMOTE_ADDR=f"192.0.2.{number}")
        if client.post(LOGIN, {"login": EMAIL}).status_code != 302:
            continue
        for _ in range(10):
            response = client.post(reverse("account_confirm_login_code"), {"code": "WRNG-WRNG"})
            guesses += 1
            if response.status_code == 302:  # sent back to the start
                break
    assert guesses == 9
    assert events()[Kind.RATE_LIMITED, ""] == 27
    assert len(mail.outbox) == 3


def test_claimed_address_of_a_proxy_is_believed_by_nobody(admin: User) -> None:
    client = Client()
    for number in range(30):
        client.post(
            STAFF, {"login": f"u{number}", "password": "x"}, headers={"X-Forwarded-For": f"10.0.0.{number}"}
        )
    response = client.post(
        STAFF, {"login": "root", "password": PASSWORD}, headers={"X-Forwarded-For": "10.0.1.1"}
    )
    assert response.status_code in (200, 429)
    assert "_auth_user_id" not in client.session


@override_settings(ALLAUTH_TRUSTED_PROXY_COUNT=1)
def test_address_that_the_own_proxy_names_counts(admin: User) -> None:
    for number in range(11):
        headers = {"X-Forwarded-For": f"10.9.9.9, 192.0.2.{number}"}
        Client().post(STAFF, {"login": f"u{number}", "password": "x"}, headers=headers)
    sources = set(SecurityEvent.objects.values_list("source", flat=True))
    assert "192.0.2.10" in sources and "10.9.9.9" not in sources


def test_password_is_guessed_at_five_times_wherever_the_guesses_come_from(admin: User) -> None:
    for number in range(20):
        assert not password(Client(), "root", f"guess {number}", f"192.0.2.{number}")
    assert not password(Client(), "root", PASSWORD, "192.0.2.99")
    seen = events()
    assert seen[Kind.PASSWORD_REFUSED, "root"] == 5
    assert seen[Kind.RATE_LIMITED, ""] == 16


def test_owner_gets_in_on_a_known_device_while_others_guess(admin: User) -> None:
    own = Client(REMOTE_ADDR="198.51.100.1")
    assert password(own, "root", PASSWORD, "198.51.100.1")
    own.get("/account/", REMOTE_ADDR="198.51.100.1")
    own.post("/account/logout/", REMOTE_ADDR="198.51.100.1")
    for number in range(20):
        password(Client(), "root", f"guess {number}", f"192.0.2.{number}")
    assert not password(Client(), "root", PASSWORD, "203.0.113.1")
    assert password(own, "root", PASSWORD, "203.0.113.1")


def test_customer_gets_a_code_on_a_known_device_while_others_ask(client: Client) -> None:
    make_account()
    sign_in(client)
    client.get("/account/")
    client.post("/account/logout/")
    for number in range(10):
        Client(REMOTE_ADDR=f"192.0.2.{number}").post(LOGIN, {"login": EMAIL})
    sign_in(client)


def test_known_device_is_known_for_one_account_only(client: Client) -> None:
    make_account()
    sign_in(client)
    client.get("/account/")
    request = RequestFactory().get("/")
    request.COOKIES[DEVICE_COOKIE] = client.cookies[DEVICE_COOKIE].value
    assert is_known_device(request, EMAIL)
    assert not is_known_device(request, "bob@example.com")
    request.COOKIES[DEVICE_COOKIE] += "x"
    assert not is_known_device(request, EMAIL)
    assert EMAIL not in client.cookies[DEVICE_COOKIE].value


def test_too_many_mails_from_one_address_are_slowed_down_and_seen() -> None:
    statuses = [
        Client(REMOTE_ADDR="192.0.2.1").post(SIGNUP, {"email": f"x{number}@example.com"}).status_code
        for number in range(25)
    ]
    assert statuses == [302] * 20 + [429] * 5
    response = Client(REMOTE_ADDR="192.0.2.1").post(SIGNUP, {"email": "y@example.com"})
    assert response.headers["Retry-After"] == "60"
    assert b"That was too often" in response.content
    assert events()[Kind.RATE_LIMITED, ""] == 6


def test_password_in_the_wrong_field_is_not_recorded(admin: User) -> None:
    password(Client(), PASSWORD, "root")
    assert events() == {(Kind.PASSWORD_REFUSED, ""): 1}


# The staff


@override_settings(TRINITY_STAFF_SECOND_FACTOR=True)
@pytest.mark.django_db(transaction=True)  # allauth remembers the new factor when it is committed
def test_first_admin_is_led_to_set_up_a_second_factor_and_then_let_in(client: Client, admin: User) -> None:
    assert client.get("/admin/").headers["Location"] == "/admin/login/?next=/admin/"
    page = client.get("/admin/login/?next=/admin/").headers["Location"]
    assert page == f"{STAFF}?next=/admin/"
    form = {"login": "root", "password": PASSWORD, "next": "/admin/"}
    assert client.post(page, form).headers["Location"] == "/admin/"
    assert client.get("/admin/").headers["Location"] == "/account/second-factor/"
    page = client.get("/account/second-factor/").content
    assert b"needs a second factor" in page and b"Authenticator App" in page

    activate = "/account/second-factor/totp/activate/"
    again = client.get(activate).headers["Location"]
    assert again.startswith("/account/reauthenticate/")
    assert client.post(again, {"password": PASSWORD}).headers["Location"] == activate
    secret = secret_of(client.get(activate).context)
    assert client.post(activate, {"code": totp(secret)}).status_code == 302
    assert client.get("/admin/").status_code == 200
    stored = Authenticator.objects.get(type="totp").data["secret"]
    assert secret not in stored
    assert SecondFactorAdapter().decrypt(stored) == secret


@override_settings(TRINITY_STAFF_SECOND_FACTOR=True)
def test_second_factor_is_asked_for_at_every_sign_in(client: Client, admin: User) -> None:
    secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
    Authenticator.objects.create(
        user=admin, type="totp", data={"secret": SecondFactorAdapter().encrypt(secret)}
    )
    response = client.post(STAFF, {"login": "root", "password": PASSWORD})
    assert response.headers["Location"] == "/account/second-factor/authenticate/"
    assert client.get("/admin/").headers["Location"] == "/admin/login/?next=/admin/"
    client.post(response.headers["Location"], {"code": "000000"})
    assert events() == {(Kind.SECOND_FACTOR_REFUSED, "root"): 1}
    client.post(response.headers["Location"], {"code": totp(secret)})
    assert client.get("/admin/").status_code == 200


@override_settings(TRINITY_STAFF_SECOND_FACTOR=True)
@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "path", ["/admin/exchange-feeds", "/admin/billing/apikey/", "/admin/auth/user/1/change/"]
)
def test_session_without_a_second_factor_is_refused_everywhere(admin: User, path: str, method: str) -> None:
    client = Client()
    client.force_login(admin)
    response = getattr(client, method)(path, headers={"Accept": "application/json"})
    assert (response.status_code, b"second factor" in response.content) == (403, True)


@override_settings(TRINITY_STAFF_SECOND_FACTOR=True)
def test_second_factor_of_somebody_else_in_the_session_is_none(admin: User) -> None:
    client = Client()
    client.force_login(admin)
    session = client.session
    session["second_factor"] = str(admin.pk + 1)
    session.save()
    assert client.get("/admin/").headers["Location"] == "/account/second-factor/"


@override_settings(TRINITY_STAFF_SECOND_FACTOR=True)
def test_socket_of_the_command_centre_asks_for_the_second_factor(admin: User) -> None:
    client = Client()
    client.force_login(admin)
    scope = {"user": admin, "session": client.session}
    assert not async_to_sync(may_view)(scope, "exchangefeed")
    scope["session"]["second_factor"] = str(admin.pk)
    assert async_to_sync(may_view)(scope, "exchangefeed")


def test_customer_may_not_enter_the_command_centre(client: Client) -> None:
    make_account()
    sign_in(client)
    assert client.get("/admin/login/").status_code == 403
    assert client.get("/admin/billing/apikey/").status_code == 302


def test_secret_of_a_second_factor_outlives_a_new_secret_key() -> None:
    encrypted = SecondFactorAdapter().encrypt("JBSWY3DP")
    with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=["tests-only-" + "0" * 48]):
        assert SecondFactorAdapter().decrypt(encrypted) == "JBSWY3DP"
