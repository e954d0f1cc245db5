"""Whole nodes that are hurt while they answer: every answer is in the database once. See `-m full`."""

from __future__ import annotations

import contextlib
import functools
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.nodes import RECOVERY_S, wait_until
from tests.system.small_disk import SmallDisk, small_disk
from tests.system.whole import Whole, whole_node

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

NODE = ("runhttp", "runudp", "runshipper")
SERVERS = ("runcelery", "database", "valkey")
LOSSES = 3


def sizes(name: str, few: int, many: int) -> pytest.MarkDecorator:
    full = pytest.param(many, marks=[pytest.mark.full, pytest.mark.timeout(3_600)])
    return pytest.mark.parametrize(name, [few, full])


# -- kills


@sizes("kills", 6, 200)
def test_whoever_is_killed_every_answer_is_in_the_database_once(tmp_path: Path, kills: int) -> None:
    with whole_node(tmp_path) as whole:
        kill_at_random(whole, kills, NODE + SERVERS)


@sizes("kills", 3, 60)
def test_embedded_node_loses_nothing_when_its_processes_are_killed(tmp_path: Path, kills: int) -> None:
    with whole_node(tmp_path, embedded=True) as whole:
        kill_at_random(whole, kills, NODE)


def kill_at_random(whole: Whole, kills: int, whom: tuple[str, ...]) -> None:
    """Kill each of *whom* as often, one after another at instants that nobody has chosen.

    Between two kills somebody is answered over HTTP and UDP, and once in a round something gets into the
    database: a node that does nothing but start would lose nothing either.
    """
    with seeded() as seed:
        draw = random.Random(seed)
        whole.ask(seed)
        whole.wait_for_answers(20)
        for turn in range(kills):
            whole.wait_for_progress(stored=turn % len(whom) == 0)
            time.sleep(draw.uniform(0.0, 0.5))
            whole.kill(whom[turn % len(whom)], draw)
        whole.wait_for_answers(20)
        whole.assert_exactly_once()


@contextlib.contextmanager
def seeded() -> Iterator[int]:
    """Draw a seed, and tell it when a test fails by it."""
    seed = random.getrandbits(32)
    try:
        yield seed
    except BaseException as error:
        error.add_note(f"The seed was {seed}.")
        raise


# -- on the way


@sizes("outage_s", 4, 180)
def test_queue_that_is_away_and_unruly_and_commits_whose_replies_are_lost_change_nothing(
    tmp_path: Path, outage_s: int
) -> None:
    with whole_node(tmp_path, lossy=True, TEST_UNRULY="1") as whole:
        assert whole.valkey is not None and whole.proxy is not None
        proxy = whole.proxy
        whole.ask()
        for turn in range(LOSSES):
            proxy.lose = "request" if turn % 3 == 0 else "reply"
            wait_until(lambda: proxy.lose is None, lambda: whole.node.said)
            whole.wait_for_answers(5)
        whole.valkey.kill()
        time.sleep(outage_s)
        whole.wait_for_answers(20)
        whole.valkey.start()
        whole.assert_exactly_once()


# -- the disk: a full one that refuses, and all four with the full sizes

on_demand = functools.partial(pytest.param, marks=pytest.mark.full)


@pytest.mark.quiet
@pytest.mark.parametrize("fault", ["full", on_demand("read-only")])
def test_without_a_disk_nothing_is_answered_that_cannot_be_logged(tmp_path: Path, fault: str) -> None:
    with small_node(tmp_path, "refuse") as (whole, disk):
        disk.hurt(fault)
        with nobody_writes(whole.node.folder / "trinity.sqlite3"):  # what is passed on makes room again
            wait_until(lambda: all(one.is_refused() for one in whole.unlimited), lambda: whole.node.said)
        disk.heal()
        wait_until(
            lambda: not any(one.is_refused() for one in whole.unlimited),
            lambda: whole.node.said,
            timeout_s=RECOVERY_S,
        )
        whole.assert_exactly_once()


@pytest.mark.parametrize("fault", [on_demand("full"), on_demand("read-only")])
def test_without_a_disk_answers_that_are_shed_are_counted(tmp_path: Path, fault: str) -> None:
    with small_node(tmp_path, "shed") as (whole, disk):
        disk.hurt(fault)
        whole.wait_for_answers(1_000)  # more than the segments take that are there
        disk.heal()
        whole.wait_for_answers(200)
        assert whole.assert_all_but_shed() > 100


@contextlib.contextmanager
def nobody_writes(database: Path) -> Iterator[None]:
    """Keep everybody else from writing to an SQLite database."""
    with contextlib.closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.rollback()


@contextlib.contextmanager
def small_node(folder: Path, policy: str) -> Iterator[tuple[Whole, SmallDisk]]:
    node = folder / "node"
    node.mkdir()
    options = {"TRINITY_SPOOL_FULL": policy, "TRINITY_SPOOL_SEGMENT_BYTES": "65536"}
    with small_disk(node / "spool", 8) as disk, whole_node(node, embedded=True, **options) as whole:
        whole.ask()
        whole.wait_for_answers(20)
        yield whole, disk
