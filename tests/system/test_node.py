"""A whole node, started and stopped as in life: nothing is lost, and nothing is left behind."""

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pricing._board import BoardReader
from tests.system.nodes import RECOVERY_S, Node, is_alive, started_node, wait_until
from trinity_site.roles import FIRST_REPORTS_ROW, FIRST_UDP_ROW, REPORTS_UDP_ROW

pytestmark = [pytest.mark.quiet, pytest.mark.system, pytest.mark.timeout(300)]

EVERYONE = {
    *("runsimulator", "runfeeds", "runkeyring", "runshipper", "runhttp-1", "runhttp-2"),
    *(f"runudp-{FIRST_UDP_ROW}", f"runudp-{FIRST_UDP_ROW + 1}", f"runreports-{FIRST_REPORTS_ROW}"),
    f"runudp-{REPORTS_UDP_ROW}",
}
SILENT_S = 10.0  # after which a process that hangs is killed


@pytest.fixture(scope="module")
def lasting_node(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Node]:
    with started_node(tmp_path_factory.mktemp("node"), database) as node:
        yield node


@pytest.fixture
def running_node(lasting_node: Node) -> Node:
    """The node that tests share: each leaves it to heal, and the next begins when it has."""
    wait_until(lambda: everyone_is_ready(lasting_node), lambda: lasting_node.said)
    wait_until(lasting_node.is_live, lambda: lasting_node.said)
    return lasting_node


@pytest.fixture
def own_node(tmp_path: Path, database: Path) -> Iterator[Node]:
    """A node that a test may stop."""
    with started_node(tmp_path, database) as node:
        yield node


def everyone_is_ready(node: Node) -> bool:
    children, said = node.children(), node.said
    return set(children) == EVERYONE and all(f"(process {pid})" in said for pid in children.values())


def assert_nothing_is_left(node: Node, children: dict[str, int]) -> None:
    wait_until(lambda: not any(map(is_alive, children.values())), f"still alive: {children}")
    wait_until(lambda: node.segments() == [], "shared memory is left behind")
    for port in (node.http_port, node.health_port, node.simulator_port):
        socket.create_server(("127.0.0.1", port)).close()


def test_price_comes_live_from_the_simulated_exchange(running_node: Node) -> None:
    status, price = running_node.get("/price?asset=BTC")
    assert status == 200
    assert price["tier"] == 1
    assert price["source"] == f"{price['exchange']}-ws-sim"
    assert price["age_ms"] < 13_000


def test_health_and_pages_keep_to_their_ports(running_node: Node) -> None:
    assert running_node.get("/health/live") == (200, {"status": "live"})
    status, ready = running_node.get("/health/ready")
    assert (status, ready["feeds"]["alive"]) == (200, True)
    with socket.create_connection(("127.0.0.1", running_node.health_port)) as connection:
        connection.sendall(b"GET /admin/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 404")


def test_feed_process_that_is_killed_again_and_again_is_back_within_5_s(running_node: Node) -> None:
    for _ in range(3):
        killed = running_node.children()["runfeeds"]
        os.kill(killed, signal.SIGKILL)
        killed_ns = time.monotonic_ns()
        with running_node.board() as board:
            wait_until(
                lambda since=killed_ns: is_traded_again(board, since),
                lambda: running_node.said,
                timeout_s=RECOVERY_S,
            )
        assert running_node.children()["runfeeds"] != killed
        assert running_node.get("/health/ready")[0] == 200


def is_traded_again(board: BoardReader, since_ns: int) -> bool:
    price = board.best("BTC", time.monotonic_ns(), 10**12)
    return price is not None and price.received_mono_ns > since_ns


def test_killed_http_worker_leaves_another_that_answers_at_once(running_node: Node) -> None:
    killed = running_node.children()["runhttp-1"]
    os.kill(killed, signal.SIGKILL)
    for _ in range(20):
        assert running_node.get("/price?asset=BTC", timeout_s=RECOVERY_S)[0] == 200
    wait_until(lambda: running_node.children().get("runhttp-1", killed) != killed, "it was not started again")


def test_http_workers_all_killed_again_and_again_are_back_within_5_s_for_those_who_wait(
    running_node: Node,
) -> None:
    for _ in range(3):
        wait_until(lambda: everyone_is_ready(running_node), lambda: running_node.said)
        killed = running_node.workers()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda gone=killed: not any(map(is_alive, gone)))
        killed_s = time.monotonic()
        status, price = running_node.get("/price?asset=BTC")  # waits in the backlog for the next worker
        assert time.monotonic() - killed_s < RECOVERY_S
        assert (status, price["asset"]) == (200, "BTC")


def test_processes_that_hang_are_replaced(running_node: Node) -> None:
    hung = {
        name: running_node.children()[name] for name in ("runfeeds", "runhttp-1", f"runudp-{FIRST_UDP_ROW}")
    }
    for pid in hung.values():
        os.kill(pid, signal.SIGSTOP)
    hung_ns = time.monotonic_ns()
    assert running_node.get("/price?asset=BTC", timeout_s=RECOVERY_S)[0] == 200  # the other worker
    with running_node.board() as board:
        wait_until(
            lambda: is_traded_again(board, hung_ns),
            lambda: running_node.said,
            timeout_s=SILENT_S + RECOVERY_S,
        )
    now = running_node.children()
    assert not any(now.get(name) == pid for name, pid in hung.items())


def test_prices_are_answered_while_the_feed_process_is_dead(running_node: Node) -> None:
    os.kill(running_node.children()["runfeeds"], signal.SIGKILL)
    status, price = running_node.get("/price?asset=BTC")
    assert (status, price["tier"]) == (200, 1)


def test_one_signal_stops_everything_in_order(own_node: Node) -> None:
    wait_until(lambda: everyone_is_ready(own_node), lambda: own_node.said)
    children = own_node.children()
    assert own_node.segments()
    own_node.signal(signal.SIGTERM)
    assert own_node.wait() == 0
    assert_nothing_is_left(own_node, children)
    assert "Traceback" not in own_node.said


def test_second_signal_kills_at_once(own_node: Node) -> None:
    children = own_node.children()
    os.kill(children["runhttp-1"], signal.SIGSTOP)  # deaf to everything but SIGKILL
    own_node.signal(signal.SIGINT)
    wait_until(lambda: "Stopping" in own_node.said)
    started_s = time.monotonic()

    while not own_node.has_ended():  # whatever it is doing, down to its last line
        own_node.signal(signal.SIGINT)
        time.sleep(0.0005)
    assert time.monotonic() - started_s < 6.0  # the grace of the deaf one is 8 s
    assert own_node.wait() == 0
    assert "Traceback" not in own_node.said
    assert_nothing_is_left(own_node, children)


def test_killed_supervisor_takes_its_children_with_it(own_node: Node) -> None:
    children = own_node.children()
    own_node.signal(signal.SIGKILL)
    own_node.wait()
    assert_nothing_is_left(own_node, children)


def test_taken_port_is_named_with_its_variable_and_what_was_typed(lasting_node: Node, tmp_path: Path) -> None:
    node = Node(tmp_path, TRINITY_HTTP_PORT=str(lasting_node.http_port))
    done = node.manage("runnode", "--typed", "./run demo")
    assert done.returncode == 1
    assert f"Port {lasting_node.http_port} is taken" in done.stderr
    assert re.search(r"TRINITY_HTTP_PORT=\d+ \./run demo\n$", done.stderr)
    assert "Traceback" not in done.stderr


def test_second_node_on_the_same_folder_is_refused_and_harms_nobody(running_node: Node) -> None:
    second = Node(running_node.folder, CLUSTER_NODE=running_node.environment["CLUSTER_NODE"])
    done = second.manage("runnode", "--typed", "./run demo")
    assert done.returncode == 1
    assert f"process {running_node.pid}." in done.stderr
    assert "TRINITY_DATA_DIR=" in done.stderr
    assert "Traceback" not in done.stderr
    assert running_node.is_live()
