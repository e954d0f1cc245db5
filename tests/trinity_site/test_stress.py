"""The statistics for machines: who may ask, what is told, and a reset that nobody can be tricked into."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Permission, User
from django.http import HttpResponse
from django.test import Client

from telemetry._counters import (
    DROPPED_EMPTY,
    DROPPED_KERNEL,
    HTTP_LATENCY,
    NAMES,
    SYNCMAP_HITS,
    TCP_REQUESTS,
    UDP_PACKETS_RECEIVED,
)
from telemetry.traffic import BASELINE, Traffic
from tests.clients import StatefulClient
from tests.telemetry.counted import CountedNode

pytestmark = pytest.mark.django_db
KEY = {"X_Admin_Key": "an-admin-key-of-some-length"}
STATS, RESET = "/admin/stress-stats", "/admin/stress-reset"
TOKEN = "a" * 32
MAY_LOOK, MAY_RESET = "view_exchangefeed", "change_exchangefeed"


@pytest.fixture(autouse=True)
def key(settings: Any) -> None:  # Any: pytest-django's settings
    settings.ADMIN_API_KEY = KEY["X_Admin_Key"]
    settings.CLUSTER_NODE, settings.AWS_REGION = "Counted", "us-east-2"


@pytest.fixture
def node(tmp_path: Path) -> CountedNode:
    return CountedNode(tmp_path)


def ask(
    traffic: Traffic, path: str, *, method: str = "get", user: User | None = None, **headers: str
) -> Any:  # Any: a test client's response
    """Ask a worker; CSRF tokens are looked at, as everywhere but in tests. Header names have _ for -."""
    client = StatefulClient(state={"runtime": SimpleNamespace(traffic=traffic)}, enforce_csrf_checks=True)
    if user is not None:
        signed_in = Client()
        signed_in.force_login(user)
        client.cookies = signed_in.cookies
        client.cookies["csrftoken"] = TOKEN
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return async_to_sync(getattr(client, method))(path, headers=sent)


def staff(*permissions: str) -> User:
    user = User.objects.create_user("operator", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def problem(response: HttpResponse) -> tuple[int, str]:
    assert response.headers["Content-Type"] == "application/problem+json"
    return response.status_code, json.loads(response.content)["code"]


def was_reset(node: CountedNode) -> bool:
    return (node.folder / BASELINE).exists()


# What is told


def test_stats_tell_counters_rates_and_percentages(node: CountedNode) -> None:
    traffic, worker = node.traffic(), node.worker(32)
    worker.open_socket(7, 33_554_432, 425_984)
    worker.add(TCP_REQUESTS, 7_200)
    worker.add(SYNCMAP_HITS, 3)
    worker.add(UDP_PACKETS_RECEIVED, 100)
    worker.kernel_dropped(24)
    worker.drop(DROPPED_EMPTY)
    worker.latency(HTTP_LATENCY, 1_000, 4)
    response = ask(traffic, STATS, **KEY)
    assert response.status_code == 200
    assert "no-store" in response.headers["Cache-Control"]
    document = response.json()
    assert (document["cluster_node"], document["region"]) == ("Counted", "us-east-2")
    assert {name: document[name] for name in NAMES} == node.reader.totals()
    assert document["rps"] == {"tcp": 2.0, "udp": 0.0, "lrs": 0.0}
    assert document["hit_percent"] == {"tier1": 100.0, "tier2": 0.0, "miss": 0.0}
    assert (document["drop_percent"], document["elapsed_s"]) == (20.1613, 3_600.0)
    assert document["drops"]["kernel"] == {"count": 24, "percent": 19.3548}
    assert document["latency_us"]["http"] == {
        "count": 4, "mean": 1.0, "p50": 1.024, "p90": 1.024, "p99": 1.024, "p99.9": 1.024,
    }  # fmt: skip
    assert document["latency_us"]["udp"]["p99"] is None
    assert document["workers"] == [32]
    assert document["sockets"] == [
        {"worker": 32, "receive_buffer_bytes": 33_554_432, "send_buffer_bytes": 425_984}
    ]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", document["since"])


def test_last_seconds_are_told_beside_what_was_since_the_reset(node: CountedNode) -> None:
    traffic, worker = node.traffic(), node.worker()
    worker.add(TCP_REQUESTS, 36_000)
    traffic.look()
    node.forward(4)
    worker.add(TCP_REQUESTS, 10)
    document = ask(traffic, STATS, **KEY).json()
    assert document["last_seconds"]["rps"]["tcp"] == 2.5
    assert (document["last_seconds"]["tcp_requests"], document["tcp_requests"]) == (10, 36_010)


def test_stats_of_a_node_that_has_counted_nothing_have_no_nan(node: CountedNode) -> None:
    response = ask(node.traffic(), STATS, **KEY)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    document = json.loads(response.content, parse_constant=refuse)
    assert document["hit_percent"] == {"tier1": None, "tier2": None, "miss": None}
    assert document["drop_percent"] is None
    assert document["last_seconds"]["rps"] == {"tcp": None, "udp": None, "lrs": None}


def test_reset_by_one_worker_holds_for_the_other(node: CountedNode) -> None:
    node.worker().add(TCP_REQUESTS, 5)
    node.worker().drop(DROPPED_KERNEL, 5)
    before = bytes(node.memory)
    response = ask(node.traffic(), RESET, **KEY)
    assert response.json() == {
        "cluster_node": "Counted",
        "region": "us-east-2",
        "since": "2025-11-22T13:00:00.000000Z",
    }
    assert node.memory == before
    node.worker().add(TCP_REQUESTS, 1)
    document = ask(node.traffic(), STATS, **KEY).json()
    assert (document["tcp_requests"], document["udp_packets_dropped"]) == (1, 0)
    assert document["since"] == response.json()["since"]


def test_reset_that_cannot_be_kept_is_said(node: CountedNode) -> None:
    os.rmdir(node.folder)
    assert problem(ask(node.traffic(), RESET, method="post", **KEY)) == (500, "internal_error")


def test_process_without_counters_says_so(client: Client) -> None:
    for path in (STATS, RESET):
        assert problem(client.get(path, headers={"X-Admin-Key": KEY["X_Admin_Key"]})) == (503, "not_counting")


# Who may ask


@pytest.mark.parametrize("path", [STATS, RESET])
@pytest.mark.parametrize("headers", [{}, {"X_Admin_Key": "wrong"}, {"X_Admin_Key": ""}])
def test_stranger_is_refused(node: CountedNode, path: str, headers: dict[str, str]) -> None:
    assert problem(ask(node.traffic(), path, **headers)) == (401, "unauthorized")
    assert not was_reset(node)


@pytest.mark.parametrize("path", [STATS, RESET])
def test_staff_without_the_permission_is_forbidden(node: CountedNode, path: str) -> None:
    held = MAY_RESET if path == STATS else MAY_LOOK
    response = ask(node.traffic(), path, user=staff(held), X_CSRFToken=TOKEN)
    assert problem(response) == (403, "forbidden")
    assert not was_reset(node)


def test_staff_that_may_look_is_told(node: CountedNode) -> None:
    assert ask(node.traffic(), STATS, user=staff(MAY_LOOK)).status_code == 200


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X_CSRFToken": "b" * 32},
        {"X_CSRFToken": ""},
        {"X_CSRFToken": TOKEN, "Origin": "http://elsewhere"},
    ],
)
def test_session_alone_resets_nothing_by_whatever_method(
    node: CountedNode, method: str, headers: dict[str, str]
) -> None:
    """A link or a picture on another site makes a browser ask with its session's cookie."""
    response = ask(node.traffic(), RESET, method=method, user=staff(MAY_RESET), **headers)
    assert problem(response) == (403, "forbidden")
    assert not was_reset(node)


@pytest.mark.parametrize("method", ["get", "post"])
def test_session_with_its_csrf_token_resets(node: CountedNode, method: str) -> None:
    response = ask(node.traffic(), RESET, method=method, user=staff(MAY_RESET), X_CSRFToken=TOKEN)
    assert response.status_code == 200
    assert was_reset(node)


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        (STATS, "post", "GET"),
        (RESET, "head", "GET, POST"),
        (RESET, "delete", "GET, POST"),
    ],
)
def test_other_methods_are_refused(node: CountedNode, path: str, method: str, allow: str) -> None:
    response = ask(node.traffic(), path, method=method, **KEY)
    assert (response.status_code, response.headers["Allow"]) == (405, allow)
    assert not was_reset(node)


def test_reset_says_in_the_log_who_did_it(node: CountedNode, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        ask(node.traffic(), RESET, **KEY)
        ask(node.traffic(), RESET, user=staff(MAY_RESET), X_CSRFToken=TOKEN)
    assert "by the admin key" in caplog.text
    assert "by operator" in caplog.text
