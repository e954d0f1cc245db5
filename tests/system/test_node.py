"""A whole node, started and stopped as in life: nothing is lost, and nothing is left behind."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pricing._board import BoardReader
from tests.system.nodes import RECOVERY_S, Node, is_alive, started_node, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def lasting_node(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Node]:
    with started_node(tmp_path_factory.mktemp("node"), database) as node:
        yield node


@pytest.fixture
def running_node(lasting_node: Node) -> Node:
    """The node that tests share: each leaves it to heal, and the next begins when it has."""
    everyone = {"runsimulator", "runfeeds", "runhttp"}
    wait_until(lambda: set(lasting_node.children()) == everyone, lambda: lasting_node.said)
    wait_until(lasting_node.is_live, lambda: lasting_node.said)
    return lasting_node


@pytest.fixture
def own_node(tmp_path: Path, database: Path) -> Iterator[Node]:
    """A node that a test may stop."""
    with started_node(tmp_path, database) as node:
        yield node


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


def test_http_worker_that_is_killed_again_and_again_is_back_within_5_s(running_node: Node) -> None:
    for _ in range(3):
        killed = running_node.children()["runhttp"]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda gone=killed: not is_alive(gone))
        killed_s = time.monotonic()
        assert running_node.get("/price?asset=BTC")[0] == 200
        assert time.monotonic() - killed_s < RECOVERY_S


def test_prices_are_answered_while_the_feed_process_is_dead(running_node: Node) -> None:
    os.kill(running_node.children()["runfeeds"], signal.SIGKILL)
    status, price = running_node.get("/price?asset=BTC")
    assert (status, price["tier"]) == (200, 1)


def test_killed_http_worker_loses_no_waiting_connection(running_node: Node) -> None:
    killed = running_node.children()["runhttp"]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not is_alive(killed))
    status, price = running_node.get("/price?asset=BTC")  # waits in the backlog for the next worker
    assert (status, price["asset"]) == (200, "BTC")
    assert running_node.children()["runhttp"] != killed


def test_one_signal_stops_everything_in_order(own_node: Node) -> None:
    children = own_node.children()
    assert set(children) == {"runsimulator", "runfeeds", "runhttp"}
    assert own_node.segments()
    own_node.signal(signal.SIGTERM)
    assert own_node.wait() == 0
    assert_nothing_is_left(own_node, children)
    assert "Traceback" not in own_node.said


def test_second_signal_kills_at_once(own_node: Node) -> None:
    children = own_node.children()
    os.kill(children["runhttp"], signal.SIGSTOP)  # deaf to everything but SIGKILL
    own_node.signal(signal.SIGINT)
    wait_until(lambda: "Stopping" in own_node.said)
    started_s = time.monotonic()

    def gone_when_asked_again() -> bool:
        own_node.signal(signal.SIGINT)
        return own_node.has_ended()

    wait_until(gone_when_asked_again)
    assert time.monotonic() - started_s < 6.0  # the grace of the deaf one is 8 s
    assert_nothing_is_left(own_node, children)


def test_killed_supervisor_takes_its_children_with_it(own_node: Node) -> None:
    children = own_node.children()
    own_node.signal(signal.SIGKILL)
    own_node.wait()
    assert_nothing_is_left(own_node, children)


def test_taken_port_is_named_with_its_variable(lasting_node: Node, tmp_path: Path) -> None:
    node = Node(tmp_path, TRINITY_HTTP_PORT=str(lasting_node.http_port))
    done = node.manage("runnode")
    assert done.returncode == 1
    assert f"Port {lasting_node.http_port} is taken" in done.stderr
    assert "TRINITY_HTTP_PORT=" in done.stderr
    assert "Traceback" not in done.stderr
