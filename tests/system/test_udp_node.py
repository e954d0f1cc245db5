"""UDP as a whole node answers it: the prices of HTTP, the keys of the command, workers that are replaced."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.system.nodes import PATIENCE_S, RECOVERY_S, Node, started_node, wait_until

pytestmark = [pytest.mark.quiet, pytest.mark.system, pytest.mark.timeout(300)]

CHANGE_S = 2.0 * RECOVERY_S / 5.0


class Customer(socket.socket):
    """Asks the node over UDP."""

    def __init__(self, node: Node, port: int | None = None) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.node = node
        self.connect(("127.0.0.1", port or node.udp_port))
        self.settimeout(PATIENCE_S)

    def ask(self, key: str | None = None, /, **fields: Any) -> dict[str, Any]:  # Any: JSON
        self.send(msgspec.json.encode({"api_key": key or self.node.key, **fields}))
        found: dict[str, Any] = msgspec.json.decode(self.recv(2_000))
        return found

    def error(self, key: str | None = None, /, **fields: Any) -> str | None:
        return self.ask(key, **({"asset": "BTC"} | fields)).get("error")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    with started_node(folder, database, TRINITY_UDP_WORKERS="2") as node:
        wait_until(node.is_live, lambda: node.said)
        yield node


@pytest.fixture
def customer(node: Node) -> Iterator[Customer]:
    with contextlib.closing(Customer(node)) as customer:
        wait_until(lambda: customer.error() is None, lambda: node.said)
        yield customer


def test_price_is_that_of_http(customer: Customer) -> None:
    """Prices move: the one over UDP must be between two over HTTP that are the same."""

    def is_same() -> bool:
        before = customer.node.get("/price?asset=BTC")[1]
        told = customer.ask(asset="BTC")
        after = customer.node.get("/price?asset=BTC")[1]
        if before["price"] != after["price"]:
            return False
        names = ("asset", "price", "quote", "source", "tier")
        assert [told[name] for name in names] == [before[name] for name in names]
        return True

    for _ in range(5):
        wait_until(is_same)


def test_several_assets_are_answered_in_one_datagram(customer: Customer) -> None:
    told = customer.ask(assets=["btc", "NOPE", "ETH"], id="7")
    assert told["id"] == "7"
    assert [one["asset"] for one in told["prices"]] == ["BTC", "NOPE", "ETH"]
    assert [one.get("error") for one in told["prices"]] == [None, "unknown_asset", None]


def test_summary_tells_what_a_key_has_asked_for(customer: Customer) -> None:
    """From the answers into the spool, by the shipper into the database, and out again in one datagram."""
    key = make_key(customer.node)
    wait_until(lambda: customer.error(key["key"], asset="NOPE") == "unknown_asset", timeout_s=CHANGE_S)
    for _ in range(3):
        assert customer.error(key["key"]) is None
    assert customer.error("tb_live_0123456789ABCDEFGHIJKLMNOPQRSTUV000000") == "unauthorized"
    with contextlib.closing(Customer(customer.node, customer.node.reports_udp_port)) as reports:
        wait_until(lambda: reports.ask(key["key"]).get("answers") == 4)
        told = reports.ask(key["key"], id="7")
        assert (told["id"], told["key"], told["used"], told["limit"]) == ("7", key["id"], 4, 50_000)
        assert told["by_status"] == {"200": 3, "404": 1}
        assert (told["by_asset"], told["other_assets"]) == ({"BTC": 3, "NOPE": 1}, 0)
        assert list(told["by_day"].values()) == [4]
        assert (told["reports_used"], told["reports_limit"]) == (0, 10)
        assert reports.ask(key["key"], asset="BTC")["error"] == "bad_request"
        assert reports.ask("tb_live_" + "x" * 38)["error"] == "unauthorized"
    assert customer.ask(key["key"])["error"] == "bad_request"


def make_key(node: Node) -> dict[str, Any]:  # Any: JSON
    made = node.manage("apikey", "create", "--plan", "pro", "--json")
    assert made.returncode == 0, made.stderr
    key: dict[str, Any] = json.loads(made.stdout)
    return key


def test_what_is_not_listed_is_unknown(customer: Customer) -> None:
    assert customer.error(asset="NOPE") == "unknown_asset"
    assert customer.error(exchange="nobody") == "unknown_asset"


def test_key_made_while_running_is_admitted_and_a_revoked_one_refused(customer: Customer) -> None:
    unknown = "tb_live_0123456789ABCDEFGHIJKLMNOPQRSTUV000000"
    assert customer.error(unknown) == "unauthorized"
    key = make_key(customer.node)
    wait_until(lambda: customer.error(key["key"]) is None, timeout_s=CHANGE_S)
    assert customer.node.manage("apikey", "revoke", str(key["id"])).returncode == 0
    wait_until(lambda: customer.error(key["key"]) == "revoked", timeout_s=CHANGE_S)


def test_worker_with_nothing_fresh_says_stale(customer: Customer) -> None:
    simulator = customer.node.children()["runsimulator"]
    os.kill(simulator, signal.SIGSTOP)
    try:
        time.sleep(0.5)
        told = customer.ask(asset="BTC", max_age_ms=200, id="7")
    finally:
        os.kill(simulator, signal.SIGCONT)
    assert (told["id"], told["error"]) == ("7", "stale")
    assert told["age_ms"] > 200
    wait_until(lambda: customer.error() is None)


def test_workers_are_replaced_by_a_signal_and_every_question_is_answered(customer: Customer) -> None:
    node = customer.node

    def workers() -> set[int]:
        return {pid for name, pid in node.children().items() if name.startswith("runudp")}

    before = workers()
    assert len(before) == 3  # one of them answers summaries
    asked, replaced = 0, re.compile(r"udp(-\d)? was replaced")
    with contextlib.ExitStack() as stack:
        customers = [stack.enter_context(Customer(node)) for _ in range(16)]  # both workers get some
        node.signal(signal.SIGUSR2)
        until_s = time.monotonic() + PATIENCE_S
        while len(replaced.findall(node.said)) < 3:
            assert time.monotonic() < until_s, node.said
            for number, one in enumerate(customers):
                one.send(msgspec.json.encode({"api_key": node.key, "asset": "BTC", "id": str(number)}))
            for number, one in enumerate(customers):
                assert msgspec.json.decode(one.recv(2_000))["id"] == str(number)
            asked += 16
    assert asked > 16
    assert len(workers()) == 3
    assert not workers() & before
    assert "Traceback" not in node.said
