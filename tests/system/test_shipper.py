"""Shipper and workers as processes: ready, alive, stopped by signals; usage arrives exactly once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.fakes.sqs_proxy import SqsProxy
from tests.ministack import Ministack
from tests.system.nodes import ROOT, wait_until
from tests.system.usage import Installation, Process, installed
from tests.valkeys import ValkeyServer

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    server = Ministack(tmp_path_factory.mktemp("ministack") / "log")
    yield server
    server.close()


@pytest.fixture
def sqs(ministack: Ministack) -> Iterator[SqsProxy]:
    proxy = SqsProxy(ministack.port)
    yield proxy
    proxy.close()
    ministack.forget()  # what was doubled or delayed would come to the next one, whose node has the same name


def ends_in_order(process: Process) -> bool:
    began_s = time.monotonic()
    return process.stop() == 0 and time.monotonic() - began_s < 8  # its grace


# -- one way and the other


def test_shipper_writes_to_the_database_where_there_is_no_queue(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        writer = installation.writer()
        shipper = installation.start("runshipper")
        writer.write(3_000)
        installation.wait_for(3_000)
        assert len(installation.files()) == 2  # the current one, and the next
        writer.close()
        assert ends_in_order(shipper)
        installation.assert_exactly_once(3_000)


def test_usage_goes_through_valkey(tmp_path: Path, valkey: ValkeyServer) -> None:
    with installed(tmp_path, valkey.url) as installation:
        goes_through_the_queue(installation)


def test_usage_goes_through_sqs(tmp_path: Path, sqs: SqsProxy) -> None:
    with installed(tmp_path, sqs.url) as installation:
        goes_through_the_queue(installation)
    assert sqs.operations["SendMessage"] == len(sqs.bytes_sent) > 0
    assert max(sqs.bytes_sent) < 256 * 1024
    assert not sqs.operations["SendMessageBatch"]  # whose answer may hide what has failed


def goes_through_the_queue(installation: Installation) -> None:
    writer = installation.writer()
    worker = installation.start("runcelery", "--beat")
    shipper = installation.start("runshipper")
    writer.write(3_000)
    installation.wait_for(3_000)
    writer.write(100)
    writer.close()
    assert ends_in_order(shipper)
    installation.assert_exactly_once(3_100)
    worker.signs()
    wait_until(lambda: worker.signs() > 0)
    assert ends_in_order(worker)


def test_worker_without_a_queue_says_what_is_missing(tmp_path: Path) -> None:
    environment = {**os.environ, "TRINITY_DATA_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": ""}
    environment.pop("DJANGO_SETTINGS_MODULE")
    environment.pop("CELERY_BROKER_URL", None)
    command = [sys.executable, ROOT / "manage.py", "runcelery"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "CELERY_BROKER_URL is not set" in done.stderr


# -- the queue goes away


def test_worker_leaves_when_valkey_dies_and_a_new_one_goes_on(tmp_path: Path, valkey: ValkeyServer) -> None:
    with installed(tmp_path, valkey.url) as installation:
        writer = installation.writer()
        installation.keep("runcelery")
        installation.keep("runshipper", impatient=True)
        writer.write(1_000)
        installation.wait_for(1_000)
        (worker,) = installation.kept("runcelery")
        valkey.kill()
        wait_until(lambda: not worker.is_alive(), installation.said)
        writer.write(1_000)
        time.sleep(1.0)
        valkey.start()
        writer.close()
        installation.wait_for(2_000)
        installation.assert_exactly_once(2_000)


def test_worker_that_could_not_acknowledge_what_it_has_written_leaves(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    """What it holds counts as its one message for good: it would never be given another."""
    with installed(tmp_path, valkey.url) as installation:
        writer = installation.writer()
        worker = installation.start("runcelery")
        installation.start("runshipper")
        with installation.connect() as connection, connection.transaction():
            connection.execute("LOCK TABLE usage_logs")
            writer.write(100)
            wait_until(lambda: installation.ask("SELECT count(*) FROM pg_locks WHERE NOT granted") > (0,))
            valkey.kill()
        installation.wait_for(100)
        wait_until(lambda: not worker.is_alive(), installation.said, timeout_s=20.0)
        assert worker.process.returncode == 1
        writer.close()


@pytest.mark.parametrize("queue", ["valkey", "sqs"])
def test_database_that_is_away_costs_nothing(
    tmp_path: Path, queue: str, request: pytest.FixtureRequest
) -> None:
    with installed(tmp_path, request.getfixturevalue(queue).url) as installation:
        writer = installation.writer()
        worker = installation.start("runcelery")
        installation.start("runshipper", impatient=True)
        writer.write(500)
        installation.wait_for(500)
        with installation.connect() as connection:
            connection.execute("ALTER TABLE usage_logs RENAME TO usage_away")
            writer.write(500)
            wait_until(lambda: "goes back to the queue" in installation.said(), installation.said)
            connection.execute("ALTER TABLE usage_away RENAME TO usage_logs")
        writer.close()
        installation.wait_for(1_000)
        installation.assert_exactly_once(1_000)
        assert worker.is_alive()


@pytest.mark.parametrize("faults", [("throttle", "break", "down"), ("forget", "double", "delay")])
def test_whatever_sqs_does_usage_arrives_once(tmp_path: Path, sqs: SqsProxy, faults: Sequence[str]) -> None:
    """Half of all messages suffer it for a while; workers that leave are started again, as in a node."""
    with installed(tmp_path, sqs.url) as installation:
        writer = installation.writer()
        installation.keep("runcelery")
        installation.keep("runshipper", impatient=True)
        for fault in faults:
            sqs.fail(fault, 0.5, "SendMessage" if fault in ("forget", "double", "delay") else "")
            for _ in range(5):
                writer.write(200)
                time.sleep(0.3)
            installation.revive()
        sqs.heal()
        writer.close()
        installation.wait_for(3_000)
        installation.assert_exactly_once(3_000)


# -- kills


@pytest.mark.parametrize(
    "kills", [4, pytest.param(200, marks=[pytest.mark.full, pytest.mark.timeout(3_600)])]
)
def test_killed_at_random_instants_nothing_is_lost_and_nothing_is_there_twice(
    tmp_path: Path, valkey: ValkeyServer, kills: int
) -> None:
    draw = random.Random(kills)
    with installed(tmp_path, valkey.url) as installation:
        writer = installation.writer(rate=4_000)
        installation.keep("runshipper", impatient=True)
        for _ in range(2):
            installation.keep("runcelery")
        writer.start()
        for turn in range(kills):
            time.sleep(draw.uniform(0.05, 0.6))
            whom = ("runshipper", "runcelery", "connections", "valkey")[turn % 4]
            if whom == "valkey":
                valkey.kill()
                valkey.start()
            elif whom == "connections":
                installation.ask(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            else:
                draw.choice(installation.kept(whom)).process.kill()
            installation.revive()
        writer.close()
        installation.wait_for(writer.written)
        installation.assert_exactly_once(writer.written)
