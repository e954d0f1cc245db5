"""Exactly once under whatever happens to writers: at once, killed, cut off at the COMMIT."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import Sum

from telemetry import ledger
from telemetry.envelope import Envelope, pack
from telemetry.ledger import Written, covered, write_envelopes
from telemetry.models import UsageLog, UsageMonth, UsageRollup
from tests.telemetry.lossy import Loss, LossyProxy
from tests.telemetry.usage import NODE, Elsewhere, make_envelope, make_logs, make_records

PLACES = 3_000
RECORDS = make_records(make_logs(PLACES, month=202611))
NAMES = ["1-7", "2-7", "3-7"]


def check_once(using: str = "default", names: list[str] = NAMES) -> None:
    """All places of all segments are there, and each once."""
    states = covered(NODE, names, using=using)
    assert {state.intervals for state in states.values()} == {((0, PLACES),)}
    expected = PLACES * len(names)
    rows = UsageLog.objects.using(using)
    assert rows.count() == rows.values("segment_id", "sequence").distinct().count() == expected
    assert UsageRollup.objects.using(using).aggregate(sum=Sum("answers"))["sum"] == expected
    assert UsageMonth.objects.using(using).aggregate(sum=Sum("counted"))["sum"] == expected


def random_call(choice: random.Random, names: list[str] = NAMES) -> list[Envelope]:
    """Some places of some segments: they overlap what other calls write."""
    envelopes = []
    for name in choice.sample(names, choice.randint(1, len(names))):
        offset = choice.randrange(PLACES)
        count = choice.randint(1, min(700, PLACES - offset))
        envelopes.append(make_envelope(RECORDS, offset, count, segment=name))
    return envelopes


def all_of_it(names: list[str] = NAMES) -> list[Envelope]:
    return [make_envelope(RECORDS, segment=name) for name in names]


# -- at once


def write_all(calls: list[list[Envelope]], using: str) -> int:
    return sum(write_envelopes(call, using=using).rows for call in calls)


@pytest.fixture
def sqlite_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have the embedded database in a file for a while, as a node has it: several processes write into it."""
    path = tmp_path / "usage.sqlite3"
    in_memory = connections["embedded"]  # goes when it is closed
    with monkeypatch.context() as patch:
        patch.setitem(connections.settings, "embedded", in_memory.settings_dict | {"NAME": str(path)})
        connections["embedded"] = connections.create_connection("embedded")
        call_command("migrate", "telemetry", database="embedded", verbosity=0)
        yield path
        connections["embedded"].close()
    connections["embedded"] = in_memory


def play_at_once(using: str) -> None:
    choice = random.Random(5)
    calls = [[random_call(choice) for _ in range(12)] for _ in range(4)]
    writers = [Elsewhere(lambda mine=mine: write_all(mine, using)) for mine in calls]
    written = sum(writer.result() for writer in writers)
    assert written == UsageLog.objects.using(using).count()
    written += write_envelopes(all_of_it(), using=using).rows
    assert written == PLACES * len(NAMES)
    check_once(using)


@pytest.mark.django_db(transaction=True)
def test_writers_of_the_same_segments_at_once_write_each_place_once() -> None:
    play_at_once("default")


@pytest.mark.django_db(transaction=True, databases=["default", "embedded"])
@pytest.mark.usefixtures("sqlite_file")
def test_writers_into_one_sqlite_file_at_once_write_each_place_once() -> None:
    play_at_once("embedded")


@pytest.mark.django_db(transaction=True)
def test_writers_that_name_segments_in_opposite_order_do_not_block_each_other() -> None:
    names = [f"{row}-7" for row in range(1, 30)]
    envelopes = [make_envelope(RECORDS, 0, 50, segment=name) for name in names]

    def write(mine: list[Envelope]) -> int:
        return sum(write_envelopes(mine).rows for _ in range(10))

    writers = [Elsewhere(lambda mine=mine: write(mine)) for mine in (envelopes, envelopes[::-1]) * 2]
    assert sum(writer.result() for writer in writers) == 50 * len(names)


@pytest.mark.django_db(transaction=True)
def test_second_writer_of_a_segment_waits_and_then_finds_what_the_first_has_done() -> None:
    first, second = make_envelope(RECORDS, 0, 100), make_envelope(RECORDS, 50, 100)
    with transaction.atomic():
        assert write_envelopes([first]) == Written(100, 0, 0)
        other = Elsewhere(lambda: write_envelopes([second]))
        wait_until_blocked()
    assert other.result() == Written(50, 50, 0)


def wait_until_blocked() -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    pytest.fail("nobody waits")


@pytest.mark.django_db
def test_writer_that_hangs_holds_its_locks_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []

    def look(*arguments: object) -> None:
        with connection.cursor() as cursor:
            for name in ("idle_in_transaction_session_timeout", "lock_timeout"):
                cursor.execute(f"SHOW {name}")
                found.append(cursor.fetchone()[0])

    monkeypatch.setattr(ledger, "_keep", look)
    write_envelopes([make_envelope(RECORDS)])
    assert found == ["1min", "30s"]


# -- cut off


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> Iterator[LossyProxy]:
    """Have whoever connects from now on go by way of a proxy."""
    settings = connection.settings_dict
    connection.ensure_connection()
    with LossyProxy(settings["HOST"], int(settings["PORT"])) as proxy, monkeypatch.context() as patch:
        patch.setitem(connections.settings["default"], "PORT", proxy.port)
        yield proxy


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("loss", "committed"), [("request", 0), ("reply", 100)])
def test_write_that_is_cut_off_at_the_commit_is_done_again_and_written_once(
    lossy: LossyProxy, loss: Loss, committed: int
) -> None:
    write_envelopes([make_envelope(RECORDS, 0, 50)])  # the day is made, the minute's folding done
    lossy.lose = loss
    with pytest.raises(DatabaseError):
        Elsewhere(lambda: write_envelopes([make_envelope(RECORDS, 50, 100)])).result()
    assert lossy.lose is None
    wait_for_rows(50 + committed)
    again = Elsewhere(lambda: write_envelopes([make_envelope(RECORDS, 50, 100)])).result()
    assert again == Written(100 - committed, committed, 0)
    assert UsageLog.objects.count() == 150
    assert UsageRollup.objects.aggregate(sum=Sum("answers"))["sum"] == 150


def wait_for_rows(count: int) -> None:
    """The server may still be at it: nobody has heard of the end."""
    deadline = time.monotonic() + 10
    while UsageLog.objects.count() != count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert UsageLog.objects.count() == count


@pytest.mark.django_db(transaction=True)
def test_backend_that_is_terminated_leaves_all_or_nothing() -> None:
    choice, lost, number = random.Random(3), 0, 0
    while number < 12 or lost == 0:  # some are done by then, and some have not begun
        writer = Elsewhere(
            lambda number=number: write_envelopes([make_envelope(RECORDS, segment=f"{number}-7")])
        )
        time.sleep(choice.uniform(0.002, 0.03))
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        try:
            writer.result()
        except DatabaseError:
            lost += 1
        assert UsageLog.objects.count() % PLACES == 0
        number += 1
        assert number < 200
    names = [f"{number}-7" for number in range(number)]
    write_envelopes(all_of_it(names))
    check_once(names=names)


# -- killed


def start_writer(calls: Path, seed: int, url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.telemetry.ledger_writer", str(calls), str(seed)]
    environment = os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "trinity_site.settings.test"}
    writer = subprocess.Popen(command, cwd=Path(__file__).parents[2], env=environment, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    return writer


def drill(calls: Path, url: str, kills: int) -> None:
    """Kill writers, two at a time, at random instants."""
    choice = random.Random(11)
    for seed in range(0, kills, 2):
        writers = [start_writer(calls, seed + which, url) for which in range(2)]
        for writer in writers:
            time.sleep(choice.uniform(0.0, 0.12))
            writer.kill()
            assert writer.wait() == -9
            assert writer.stdout is not None
            writer.stdout.close()


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    choice = random.Random(7)
    path = tmp_path / "calls"
    path.write_bytes(pickle.dumps([[*map(pack, random_call(choice))] for _ in range(60)]))
    return path


def postgres_url() -> str:
    settings: dict[str, Any] = connection.settings_dict  # Any: Django's own
    return f"postgres://{settings['USER']}@{settings['HOST']}:{settings['PORT']}/{settings['NAME']}"


@pytest.mark.django_db(transaction=True)
def test_writers_killed_at_random_instants_leave_each_place_written_once(calls: Path) -> None:
    drill(calls, postgres_url(), 8)
    assert 0 < write_envelopes(all_of_it()).rows < PLACES * len(NAMES)
    check_once()


@pytest.mark.django_db(transaction=True, databases=["default", "embedded"])
def test_writers_of_a_sqlite_file_killed_at_random_instants_leave_each_place_written_once(
    calls: Path, sqlite_file: Path
) -> None:
    drill(calls, f"sqlite:///{sqlite_file}", 6)
    write_envelopes(all_of_it(), using="embedded")
    check_once("embedded")


@pytest.mark.full
@pytest.mark.timeout(1_800)
@pytest.mark.django_db(transaction=True)
def test_two_hundred_writers_killed(calls: Path) -> None:
    drill(calls, postgres_url(), 200)
    write_envelopes(all_of_it())
    check_once()
