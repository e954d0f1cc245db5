"""How the queue is spoken to, by its address."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from trinity_site.celery import KEEPER, QUEUE, TASK, broker_options, is_loopback, make_app
from trinity_site.queue_worker import LOST, DueAtOnce, Signs, stopping_on_signals


def options(url: str, **changes: Any) -> dict[str, Any]:
    return broker_options(url, **({"region": "", "timeout_s": 5.0} | changes))


@pytest.mark.parametrize("url", ["redis://h:6379/0", "rediss://h"])
def test_valkey_and_redis_have_names_of_their_own_and_give_up_in_time(url: str) -> None:
    chosen = options(url)
    assert chosen["global_keyprefix"] == "tb:queue:"
    assert (chosen["socket_timeout"], chosen["socket_connect_timeout"]) == (5.0, 5.0)


def test_sqs_encodes_the_payload_once_and_gives_up_after_one_try_in_time() -> None:
    chosen = options("sqs://", region="eu-west-1", timeout_s=2.5)
    assert chosen["sqs_base64_encoding"] is False and chosen["region"] == "eu-west-1"
    assert chosen["client-config"] == {
        "connect_timeout": 2.5,
        "read_timeout": 2.5,
        "retries": {"total_max_attempts": 1},
    }


@pytest.mark.parametrize(
    ("url", "secure"),
    [
        ("sqs://", True),
        ("sqs://key:secret@sqs.example.com//", True),
        ("sqs://key:secret@10.0.0.1:4566//", True),
        ("sqs://key:secret@127.0.0.1:4566//", False),
        ("sqs://key:secret@localhost:4566//", False),
        ("sqs://key:secret@[::1]:4566//", False),
    ],
)
def test_sqs_is_spoken_to_in_the_clear_on_loopback_alone(url: str, secure: bool) -> None:
    assert options(url)["is_secure"] is secure


@pytest.mark.parametrize("host", [None, "", "localhost.example.com", "127.0.0.1.example.com"])
def test_other_hosts_are_no_loopback(host: str | None) -> None:
    assert not is_loopback(host)


def test_app_takes_no_pickle_keeps_no_results_and_listens_to_no_commands() -> None:
    conf = make_app("redis://h").conf
    assert conf.accept_content == ["msgpack", "json"] and conf.task_ignore_result
    assert conf.result_backend is None and not conf.worker_enable_remote_control
    assert (conf.task_acks_late, conf.task_reject_on_worker_lost, conf.worker_prefetch_multiplier) == (
        *(True, True),
        1,
    )


def test_tasks_have_the_names_under_which_they_are_sent() -> None:
    app = make_app("memory://")
    app.loader.import_default_modules()
    app.finalize()
    assert {TASK, KEEPER} <= app.tasks.keys()
    assert [queue.name for queue in app.conf.task_queues] == [QUEUE]


def test_everything_is_due_when_beat_begins() -> None:
    scheduler = DueAtOnce(make_app("memory://"), lazy=True)
    scheduler.setup_schedule()
    assert list(scheduler.schedule) == ["keep"]
    assert scheduler.schedule["keep"].is_due()[0]


class Loop:
    """A worker's event loop and its consumer, which takes messages while *takes* is true."""

    def __init__(self) -> None:
        self.takes = True
        self.beat: Callable[[], None] = lambda: None
        qos = SimpleNamespace(can_consume=lambda: self.takes)
        self.consumer = SimpleNamespace(task_consumer=SimpleNamespace(channel=SimpleNamespace(qos=qos)))

    def call_repeatedly(self, period_s: float, act: Callable[[], None]) -> None:
        self.beat = act


def test_signs_of_life_end_quietly_with_the_supervisor() -> None:
    ours, its = os.pipe()
    loop = Loop()
    Signs(loop.consumer, ready_fd=its).register_with_event_loop(loop.consumer, loop)
    assert os.read(ours, 10) == b"1"
    loop.beat()
    assert os.read(ours, 10) == b"1"
    os.close(ours)
    loop.beat()
    os.close(its)


def test_worker_that_is_given_nothing_more_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "should_stop", None)
    loop = Loop()
    Signs(loop.consumer).register_with_event_loop(loop.consumer, loop)
    loop.beat()
    assert state.should_stop is None
    loop.takes = False
    loop.beat()
    assert state.should_stop == LOST


def test_first_signal_asks_the_worker_to_leave_and_the_second_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "should_stop", None)
    before = signal.getsignal(signal.SIGTERM)
    with stopping_on_signals():
        signal.raise_signal(signal.SIGTERM)
        assert state.should_stop == 0
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is before
