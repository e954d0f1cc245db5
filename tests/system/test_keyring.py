"""Keys made by the command in the gate of real processes: in time, and counted whatever is killed."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from billing._gate import ADMITTED, REVOKED, Gate
from tests.system.nodes import RECOVERY_S, ROOT, Node, is_alive, started_node, wait_until
from tests.valkeys import ValkeyServer
from trinity_site.shared_memory import open_gate

pytestmark = [pytest.mark.quiet, pytest.mark.system, pytest.mark.timeout(300)]

ROWS = 65_536
CHANGE_S = 2.0 * RECOVERY_S / 5.0  # the promise, on a machine that has nothing else to do
ANNOUNCED_S = 1.0 * RECOVERY_S / 5.0
SAVED_S = 15.0


class Customer:
    """Makes keys by the command, and asks the gate as a worker does."""

    def __init__(self, node: Node, gate: Gate) -> None:
        self.node = node
        self.gate = gate

    def make_key(self) -> tuple[bytes, int]:
        """Return a new key's text and number."""
        done = self.node.manage("apikey", "create", "--plan", "pro", "--json")
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        return made["key"].encode(), made["id"]

    def revoke(self, number: int) -> None:
        done = self.node.manage("apikey", "revoke", str(number))
        assert done.returncode == 0, done.stderr

    def ask(self, key: bytes) -> int:
        return self.gate.admit(key, time.monotonic_ns(), int(time.time())).code

    def use(self, key: bytes, times: int) -> None:
        """Ask until so many were admitted."""
        for _ in range(times):
            wait_until(lambda: self.ask(key) == ADMITTED)

    def used(self, key: bytes) -> int:
        """Return how much of the month's cap is used up."""
        verdict = self.gate.admit(key, time.monotonic_ns(), int(time.time()), take=False)
        return verdict.cap - verdict.cap_remaining

    def saved(self) -> int:
        """Return what the database has counted for all keys."""
        with closing(sqlite3.connect(self.node.folder / "trinity.sqlite3")) as database:
            (count,) = database.execute(
                "SELECT coalesce(sum(count), 0) FROM billing_monthly_count"
            ).fetchone()
        return int(count)


@contextmanager
def customer_of(node: Node) -> Iterator[Customer]:
    with open_gate(node.environment["CLUSTER_NODE"], node.folder, rows=ROWS) as gate:
        wait_until(lambda: gate.month(time.monotonic_ns()) > 0, lambda: node.said)
        yield Customer(node, gate)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Node]:
    with started_node(tmp_path_factory.mktemp("node"), database) as node:
        yield node


@pytest.fixture
def customer(node: Node) -> Iterator[Customer]:
    with customer_of(node) as customer:
        yield customer


def test_key_works_and_is_revoked_within_2_s(customer: Customer) -> None:
    key, number = customer.make_key()
    wait_until(lambda: customer.ask(key) == ADMITTED, timeout_s=CHANGE_S)
    customer.revoke(number)
    wait_until(lambda: customer.ask(key) == REVOKED, timeout_s=CHANGE_S)


def test_gate_judges_while_the_keyring_is_dead_and_follows_when_it_is_back(customer: Customer) -> None:
    key, number = customer.make_key()
    wait_until(lambda: customer.ask(key) == ADMITTED)
    killed = customer.node.children()["runkeyring"]
    os.kill(killed, signal.SIGKILL)
    assert customer.ask(key) == ADMITTED
    customer.revoke(number)
    wait_until(lambda: customer.ask(key) == REVOKED, timeout_s=RECOVERY_S + CHANGE_S)
    assert not is_alive(killed)


def test_counts_outlive_a_killed_keyring(customer: Customer) -> None:
    key, _ = customer.make_key()
    wait_until(lambda: customer.ask(key) == ADMITTED)
    used = customer.used(key)
    os.kill(customer.node.children()["runkeyring"], signal.SIGKILL)
    customer.use(key, 10)  # while there is none
    assert customer.used(key) == used + 10
    before = customer.saved()
    wait_until(lambda: customer.saved() >= before + 10, timeout_s=SAVED_S + RECOVERY_S)
    assert customer.used(key) == used + 10


def test_saved_counts_outlive_the_kill_of_everything(tmp_path: Path, database: Path) -> None:
    with started_node(tmp_path, database) as node:
        with customer_of(node) as customer:
            key, _ = customer.make_key()
            wait_until(lambda: customer.ask(key) == ADMITTED)
            customer.use(key, 20)
            wait_until(lambda: customer.saved() == 21, timeout_s=SAVED_S)
        children = node.children()
        for pid in (node.pid, *children.values()):
            os.kill(pid, signal.SIGKILL)
        node.wait()
        wait_until(lambda: not any(map(is_alive, children.values())))
        for segment in node.segments():
            segment.unlink()  # as a machine that was switched off does
        node.log.write_text("")
        node.start()
        with customer_of(node) as customer:
            assert customer.used(key) == 21


def test_orderly_stop_saves_the_last_counts(tmp_path: Path, database: Path) -> None:
    with started_node(tmp_path, database) as node:
        with customer_of(node) as customer:
            key, _ = customer.make_key()
            customer.use(key, 7)
            node.signal(signal.SIGTERM)
            assert node.wait() == 0
            assert customer.saved() == 7
        assert "Traceback" not in node.said


def test_second_keyring_is_refused(customer: Customer) -> None:
    done = customer.node.manage("runkeyring")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(customer.node.children()["runkeyring"]) in done.stderr


@contextmanager
def keyring_alone(folder: Path, **environment: str) -> Iterator[Customer]:
    """Run the keyring of a node that has nothing else."""
    node = Node(folder, **environment)
    command = [sys.executable, str(ROOT / "manage.py"), "runkeyring"]
    with node.log.open("ab") as output:
        process = subprocess.Popen(command, env=node.environment, stdout=output, stderr=output)
    try:
        with customer_of(node) as customer:
            yield customer
    finally:
        process.terminate()
        process.wait()


def test_with_valkey_a_key_is_revoked_on_every_node_within_1_s_and_counts_are_shared(
    tmp_path: Path, database: Path
) -> None:
    server, folders = ValkeyServer(tmp_path), (tmp_path / "one", tmp_path / "other")
    for folder in folders:
        folder.mkdir()
    shared = f"sqlite:///{shutil.copy(database, tmp_path)}"
    options = {"REDIS_URL": server.url, "DATABASE_URL": shared}
    try:
        with keyring_alone(folders[0], **options) as here, keyring_alone(folders[1], **options) as there:
            key, number = here.make_key()
            for customer in (here, there):
                wait_until(lambda who=customer: who.ask(key) == ADMITTED)
            here.use(key, 5)
            wait_until(lambda: here.used(key) == there.used(key) >= 7, timeout_s=RECOVERY_S)
            here.revoke(number)
            for customer in (here, there):
                wait_until(lambda who=customer: who.ask(key) == REVOKED, timeout_s=ANNOUNCED_S)
    finally:
        server.kill()
