import inspect

import pytest
from django.conf import settings
from django.test import Client
from django.utils.module_loading import import_string


def policy(client: Client, path: str) -> dict[str, str]:
    header = client.get(path).headers["Content-Security-Policy"]
    return dict(directive.strip().partition(" ")[::2] for directive in header.split(";"))


def test_admin_gets_what_unfold_needs(client: Client) -> None:
    allowed = policy(client, "/admin/login/")
    assert allowed["script-src"] == "'self' 'unsafe-eval'"
    assert allowed["style-src"] == "'self' 'unsafe-inline'"


@pytest.mark.parametrize("path", ["/nothing-here", "/admin", "/administration", "//admin/"])
def test_every_other_page_gets_the_strict_policy(client: Client, path: str) -> None:
    allowed = policy(client, path)
    assert (allowed["default-src"], allowed["script-src"]) == ("'none'", "'self'")
    assert (allowed["style-src"], allowed["frame-ancestors"]) == ("'self'", "'none'")


@pytest.mark.parametrize("path", settings.MIDDLEWARE)
def test_middleware_is_async(path: str) -> None:
    middleware = import_string(path)
    assert getattr(middleware, "async_capable", False), inspect.getfile(middleware)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "same-origin"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
    ],
)
def test_security_header_is_sent(client: Client, header: str, value: str) -> None:
    assert client.get("/admin/login/").headers[header] == value


@pytest.mark.parametrize("path", ["exchanges/command_centre.css", "unfold/css/styles.css"])
def test_static_file_is_served_by_the_node_itself(client: Client, path: str) -> None:
    response = client.get(f"/static/{path}")
    assert (response.status_code, response.headers["Content-Type"][:8]) == (200, "text/css")
