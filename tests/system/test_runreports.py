"""A whole node for reports: real processes, real sockets, SQLite."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.system.nodes import Node, started_node, wait_until
from udp_engine.client import PriceClient
from udp_engine.parameters import Parameters
from udp_engine.questions import Retry

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PATIENT = Retry(total_s=60, attempts=7)  # a worker may have to start first


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("reports")
    with started_node(folder, database, SERVER_TYPE="REPORT_SERVER") as node:
        yield node


def ask(node: Node, path: str, *, port: int = 0, key: str | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port or node.reports_port, timeout=30)
    try:
        connection.request("GET", path, headers={"X-API-Key": node.key if key is None else key})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def told(node: Node, path: str) -> dict[str, int]:
    status, _, body = ask(node, path)
    assert status == 200, body
    figures: dict[str, int] = json.loads(body)["totals"]
    return figures


def test_node_for_reports_runs_what_it_needs_and_nothing_else(node: Node) -> None:
    assert set(node.children()) == {"runkeyring", "runshipper", "runreports-63", "runudp-71"}
    assert "/reports/summary" in node.said
    assert "/price" not in node.said
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", node.http_port))


def test_ready_when_the_database_answers_and_the_keys_are_known(node: Node) -> None:
    status, _, body = ask(node, "/health/ready", port=node.reports_health_port)
    assert (status, json.loads(body)["status"]) == (200, "ready")
    assert b"trinity_lrs_requests_total" in ask(node, "/metrics", port=node.reports_health_port)[2]


def test_reports_are_told_of_in_reports_themselves(node: Node) -> None:
    """From the answer into the spool, by the shipper into the database, and out again."""
    path = "/reports/report-summary?endpoint=reports/usage"
    before = told(node, path)
    for name in ("csv", "xlsx", "pdf", "text", "tsv"):
        assert ask(node, f"/reports/usage?format={name}")[0] == 200
    assert ask(node, "/reports/usage?format=xml")[0] == 400

    def arrived() -> bool:
        figures = told(node, path)  # others of these tests may have asked for some, too
        return figures["ok"] >= before["ok"] + 5 and figures["refused"] >= before["refused"] + 1

    wait_until(arrived, "the reports are not in the reports")
    assert told(node, "/reports/report-summary")["answers"] > before["answers"] + 6  # these summaries, too
    assert told(node, "/reports/report-summary")["counted"] == 0


def test_lines_come_in_pieces_over_a_real_socket(node: Node) -> None:
    status, headers, body = ask(node, "/reports/report-usage?format=csv")
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    assert body.startswith(b"at,key_id,")


def test_documentation_is_on_the_same_port(node: Node) -> None:
    status, headers, body = ask(node, "/docs", key="")
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/html")
    assert b"report_quota_exceeded" in body
    assert b"/price?asset" not in body
    assert ask(node, "/static/trinity/mark.svg", key="")[0] == 200
    assert ask(node, "/admin/", key="")[0] == 404


def roll(node: Node) -> None:
    """Have all workers replaced, one after another, and wait for the last one."""
    last = "reports-udp was replaced"
    before = node.said.count(last)
    node.signal(signal.SIGUSR2)
    wait_until(lambda: node.said.count(last) > before, "it was not replaced")


def test_report_worker_is_replaced_without_losing_a_connection(node: Node) -> None:
    before = node.children()["runreports-63"]
    roll(node)
    assert node.children()["runreports-63"] != before
    assert ask(node, "/reports/summary")[0] == 200


def test_killed_report_worker_comes_back(node: Node) -> None:
    killed = node.children()["runreports-63"]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: node.children().get("runreports-63", killed) != killed, "it did not come back")
    assert ask(node, "/reports/summary")[0] == 200


def summary(node: Node) -> dict[str, Any]:  # Any: JSON
    with PriceClient("127.0.0.1", node.reports_udp_port, key=node.key, retry=PATIENT) as client:
        return msgspec.structs.asdict(client.summary())


def test_summary_tells_over_udp_what_reports_there_were(node: Node) -> None:
    time.sleep(Parameters().summary_ms / 1_000)  # what another test was told is told again for so long
    before = summary(node)
    assert ask(node, "/reports/usage")[0] == 200
    wait_until(
        lambda: summary(node)["reports_used"] == before["reports_used"] + 1,
        lambda: f"there were {before['reports_used']} reports and one more, told are {summary(node)}",
    )
    assert (before["answers"], before["used"], before["limit"]) == (0, 0, None)


def test_summaries_are_told_in_the_reports_of_reports(node: Node) -> None:
    path = "/reports/report-summary?endpoint=reports/summary&protocol=udp"
    before = told(node, path)["answers"]
    for _ in range(3):
        summary(node)
    wait_until(lambda: told(node, path)["answers"] >= before + 3)
    assert told(node, path)["counted"] == 0


def test_summary_worker_is_replaced_and_comes_back(node: Node) -> None:
    before = node.children()["runudp-71"]
    roll(node)
    replaced = node.children()["runudp-71"]
    assert replaced != before
    assert summary(node)["month"]
    os.kill(replaced, signal.SIGKILL)
    wait_until(lambda: node.children().get("runudp-71", replaced) != replaced, "it did not come back")
    assert summary(node)["month"]
    assert "Traceback" not in node.said
