"""A node as docs/operations.md sets it up: production settings, PostgreSQL, Valkey, a proxy that ends TLS."""

import http.client
import os
import re
from collections.abc import Iterator
from contextlib import closing
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urlsplit

import psycopg
import pytest
from redis import Redis
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.system.nodes import Node, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

HOST = "prices.example.com"
SITE = f"https://{HOST}"


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Make a database beside the tests' own and return its address."""
    server = os.environ["DATABASE_URL"]
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE production")
        yield urlsplit(server)._replace(path="/production").geturl()
        connection.execute("DROP DATABASE production WITH (FORCE)")


@pytest.fixture(scope="module")
def node(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(
        tmp_path_factory.mktemp("production"),
        DJANGO_SETTINGS_MODULE="trinity_site.settings.prod",
        DJANGO_SECRET_KEY="0123456789abcdefghij" * 3,
        DJANGO_ALLOWED_HOSTS=HOST,
        TRINITY_TLS_PROXY="1",
        TRINITY_HTTP_WORKERS="2",
        DATABASE_URL=database,
        REDIS_URL=os.environ["TEST_VALKEY_URL"],
    )
    node.prepare()
    try:
        node.start()
        wait_until(node.is_live, lambda: node.said)
        yield node
    finally:
        node.clear_away()


def ask(node: Node, path: str, body: str | None = None, **headers: str) -> http.client.HTTPResponse:
    """Ask as the proxy does, which passes the visitor's Host on and says that it was reached with TLS."""
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=30)) as connection:
        method = "GET" if body is None else "POST"
        connection.request(method, path, body, {"Host": HOST, "X-Forwarded-Proto": "https", **spelled})
        answer = connection.getresponse()
        answer.text = answer.read().decode()  # type: ignore[attr-defined]  # read before the connection closes
        return answer


@pytest.mark.parametrize("path", ["/", "/docs", "/status", "/account/login/", "/static/trinity/site.css"])
def test_page_opens_behind_the_proxy(node: Node, path: str) -> None:
    answer = ask(node, path)
    assert (answer.status, "max-age" in answer.headers["Strict-Transport-Security"]) == (200, True)


def test_page_without_tls_is_sent_to_tls(node: Node) -> None:
    answer = ask(node, "/docs", X_Forwarded_Proto="http")
    assert (answer.status, answer.headers["Location"]) == (301, f"{SITE}/docs")


def test_page_under_another_name_is_refused(node: Node) -> None:
    assert ask(node, "/", Host="elsewhere.example.com").status == 400


def test_price_is_answered_and_kept_in_tier_2(node: Node) -> None:
    assert node.get("/price?asset=BTC")[0] == 200
    with Redis.from_url(os.environ["TEST_VALKEY_URL"]) as valkey:
        wait_until(lambda: bool(valkey.hgetall("tb:price:BTC")), "no price reached Valkey")


def test_form_is_taken_from_its_own_origin_and_from_no_other(node: Node) -> None:
    page = ask(node, "/account/login/")
    cookie = SimpleCookie(page.headers["Set-Cookie"])["csrftoken"]
    assert cookie["secure"]
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)  # type: ignore[attr-defined]
    assert token
    form = urlencode({"csrfmiddlewaretoken": token[1], "login": "ada@example.com"})
    sent = {
        "Content_Type": "application/x-www-form-urlencoded",
        "Cookie": f"csrftoken={cookie.value}",
        "Referer": f"{SITE}/account/login/",
    }
    assert ask(node, "/account/login/", form, Origin=SITE, **sent).status == 302
    assert ask(node, "/account/login/", form, Origin="https://elsewhere.example.com", **sent).status == 403


def test_socket_opens_from_its_own_origin_and_from_no_other(node: Node) -> None:
    address = f"ws://127.0.0.1:{node.http_port}/live/prices"
    with connect(address, origin=SITE, additional_headers={"X-Forwarded-Proto": "https"}) as socket:
        assert "price/BTC" in str(socket.recv(timeout=30))
    with pytest.raises(InvalidStatus):
        connect(address, origin="https://elsewhere.example.com").close()
