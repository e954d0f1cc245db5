"""The supervisor: its rules by table, and its work on real processes."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trinity_site import children, supervisor
from trinity_site.children import Service, how_it_ended, relay
from trinity_site.supervisor import Keeper, Life, State, Supervisor

PATIENCE_S = 10.0
READY = "import os, sys; os.write(int(sys.argv[sys.argv.index('--ready-fd') + 1]), b'1')\n"
STAYS = "import time; time.sleep(60)"
BEATS = """
import asyncio, sys
from telemetry import running

async def run(then):
    running.say_ready(int(sys.argv[sys.argv.index("--ready-fd") + 1]))
    await then()

async def lives():
    await asyncio.sleep(60)

async def blocks():
    while True:
        pass

running.BEAT_S = 0.05
"""
LEAVES_POLITELY = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("left")))
print("here")
time.sleep(60)
"""
DEAF_TO_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf")
time.sleep(60)
"""


class Recorder:
    """What services printed, and a way to wait for it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._news = asyncio.Event()

    def __call__(self, name: str, line: str) -> None:
        self.lines.append((name, line))
        self._news.set()

    async def sees(self, wanted: tuple[str, str]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while wanted not in self.lines:
                self._news.clear()
                await self._news.wait()


def python(name: str, code: str, *, ready: str = READY, **options: object) -> Service:
    chosen: dict[str, object] = {"grace_s": 5.0, **options}
    return Service(name=name, command=(sys.executable, "-c", ready + code), **chosen)  # type: ignore[arg-type] # a test's own


@contextlib.asynccontextmanager
async def running(services: list[Service]) -> AsyncIterator[tuple[Supervisor, Recorder]]:
    """Run *services* until the block ends, then stop them in order."""
    recorder, stop, started = Recorder(), asyncio.Event(), asyncio.Event()
    node = Supervisor(services, recorder)
    task = asyncio.create_task(node.run(stop, started.set))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await started.wait()
        yield node, recorder
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (a process is watched from outside)
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def quick() -> Life:
    return Life(first_s=0.01, cap_s=0.05)


# Life


def test_first_restart_is_immediate_and_later_ones_wait_twice_as_long_up_to_the_cap() -> None:
    life = Life()
    assert [life.died(0.0) for _ in range(10)] == [0, 0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert life.deaths == 10


def test_wait_begins_anew_after_a_minute_of_health() -> None:
    life = Life()
    life.died(0.0), life.died(0.0)
    life.started()
    life.became_ready(100.0)
    assert life.died(160.0) == 0.0


def test_wait_goes_on_doubling_after_a_short_life() -> None:
    life = Life()
    life.died(0.0)
    life.started()
    life.became_ready(100.0)
    assert life.died(159.9) == 0.25


def test_health_of_an_earlier_process_does_not_count() -> None:
    life = Life()
    life.became_ready(0.0)
    assert life.died(60.0) == 0.0
    life.started()
    assert life.died(200.0) == 0.25


def test_states_follow_the_events() -> None:
    life = Life()
    seen = [life.state]
    for event in (life.started, lambda: life.became_ready(1.0), lambda: life.died(2.0), life.stopped):
        event()
        seen.append(life.state)
    assert seen == [State.STOPPED, State.STARTING, State.READY, State.WAITING, State.STOPPED]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with status 0"),
        (3, "ended with status 3"),
        (-9, "was ended by SIGKILL"),
        (-40, "signal 40"),
    ],
)
def test_ending_is_said_in_words(code: int, words: str) -> None:
    assert words in how_it_ended(code)


# Output


async def read_lines(*chunks: bytes) -> list[str]:
    stream, lines = asyncio.StreamReader(), []
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    await relay(stream, lines.append)
    return lines


async def test_lines_are_put_together_from_chunks() -> None:
    assert await read_lines(b"on", b"e\ntwo\nthr", b"ee") == ["one", "two", "three"]


async def test_line_that_is_not_utf8_is_shown_all_the_same() -> None:
    assert await read_lines(b"a\xffb\n") == ["a�b"]


async def test_endless_line_is_handed_on_in_pieces() -> None:
    lines = await read_lines(b"x" * 200_000)
    assert "".join(lines) == "x" * 200_000
    assert max(map(len, lines)) <= 2 * 65_536


# Processes


async def test_service_starts_after_the_one_before_is_ready(tmp_path: Path) -> None:
    first = f"import os, time; time.sleep(0.3); open({str(tmp_path / 'ready')!r}, 'w')\n"
    second = f"import os; print(os.path.exists({str(tmp_path / 'ready')!r}))\n"
    services = [python("one", STAYS, ready=first + READY), python("two", second + STAYS)]
    async with running(services) as (_, recorder):
        await recorder.sees(("two", "True"))


async def test_service_beside_another_does_not_wait_for_it_but_the_next_one_does(
    tmp_path: Path,
) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    waits_for_two = f"import os, time\nwhile not os.path.exists({two!r}): time.sleep(0.01)\n"
    services = [
        python("one", STAYS, ready=f"{waits_for_two}open({one!r}, 'w')\n{READY}"),
        python("two", STAYS, ready=f"open({two!r}, 'w')\n{READY}", beside=True),
        python("three", f"import os; print(sorted(os.listdir({str(tmp_path)!r})))\n{STAYS}"),
    ]
    async with running(services) as (_, recorder):
        await recorder.sees(("three", "['one', 'two']"))


@pytest.mark.parametrize(
    "silent", [STAYS, "import os, sys; os.close(int(sys.argv[2]))\n" + STAYS], ids=["waits", "closes"]
)
async def test_service_that_never_becomes_ready_does_not_hold_up_the_others(silent: str) -> None:
    services = [python("one", silent, ready="", start_s=0.3), python("two", STAYS)]
    async with running(services) as (node, _):
        assert not node.keepers[0].ready.is_set()
        assert node.keepers[0].life.state is State.STARTING
        assert node.keepers[1].ready.is_set()


async def test_service_that_is_not_to_be_waited_for_is_not(caplog: pytest.LogCaptureFixture) -> None:
    services = [python("one", STAYS, ready="", start_s=0.0), python("two", STAYS)]
    async with running(services) as (node, _):
        assert node.keepers[1].ready.is_set()
    assert "not ready" not in caplog.text


async def test_services_stop_in_reverse_order() -> None:
    services = [python(name, LEAVES_POLITELY) for name in ("one", "two", "three")]
    async with running(services) as (_, recorder):
        for service in services:
            await recorder.sees((service.name, "here"))
    assert [name for name, line in recorder.lines if line == "left"] == ["three", "two", "one"]


async def test_killed_service_is_started_again() -> None:
    keeper = Keeper(python("one", STAYS), Recorder(), quick())
    task = asyncio.create_task(keeper.keep())
    await until(lambda: keeper.life.state is State.READY)
    assert keeper.process is not None
    first = keeper.process.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: keeper.life.deaths == 1 and keeper.life.state is State.READY)
    assert keeper.process.pid != first
    await keeper.stop()
    await task


@pytest.mark.parametrize("hangs", ["stopped by a signal", "busy for ever"])
async def test_service_that_falls_silent_is_killed_and_started_again(
    hangs: str, caplog: pytest.LogCaptureFixture
) -> None:
    then = "blocks" if hangs == "busy for ever" else "lives"
    service = python("one", f"asyncio.run(run({then}))", ready=BEATS, silent_s=0.5)
    keeper = Keeper(service, Recorder(), quick())
    task = asyncio.create_task(keeper.keep())
    await until(keeper.ready.is_set)
    assert keeper.process is not None
    first = keeper.process.pid
    if then == "lives":
        os.kill(first, signal.SIGSTOP)
    await until(lambda: keeper.life.deaths == 1 and keeper.life.state is State.READY)
    assert not is_alive(first)
    assert "one has hung for 0.5 s: killing it" in caplog.text
    await keeper.stop()
    await task


async def test_service_that_beats_is_left_alone_and_so_is_one_that_is_not_ready_yet() -> None:
    services = [
        python("one", "asyncio.run(run(lives))", ready=BEATS, silent_s=1.0),
        python("two", STAYS, ready="", silent_s=1.0, start_s=0.1),
    ]
    async with running(services) as (node, _):
        await asyncio.sleep(1.5)
        assert [keeper.life.deaths for keeper in node.keepers] == [0, 0]


async def test_service_that_is_stopping_has_its_grace_however_silent() -> None:
    leaves_slowly = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1.0), sys.exit(print("left"))))
print("here")
time.sleep(60)
"""
    async with running([python("one", leaves_slowly, silent_s=0.5)]) as (_, recorder):
        await recorder.sees(("one", "here"))
    assert ("one", "left") in recorder.lines


async def test_suspended_machine_is_no_hung_service() -> None:
    code = f"""
import asyncio, sys
from trinity_site.children import Service
from trinity_site.supervisor import Supervisor
child = Service("one", (sys.executable, "-c", {BEATS + "asyncio.run(run(lives))"!r}), silent_s=2.0)
supervisor = Supervisor([child], print)
asyncio.run(supervisor.run(asyncio.Event(), lambda: print(supervisor.keepers[0].process.pid)))
"""
    command = (sys.executable, "-u", "-c", code)
    parent = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    try:
        child = int(await parent.stdout.readline())
        await asyncio.sleep(0.1)
        for pid in (child, parent.pid):
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(2.5)  # longer than it may be silent
        os.kill(parent.pid, signal.SIGCONT)
        await asyncio.sleep(0.2)  # the supervisor wakes first, and has heard nothing for 2.7 s
        os.kill(child, signal.SIGCONT)
        await asyncio.sleep(0.5)
        assert is_alive(child)
    finally:
        parent.kill()
        await parent.wait()
    await until(lambda: not is_alive(child))


async def test_service_that_ends_by_itself_is_started_again() -> None:
    keeper = Keeper(python("one", "pass"), Recorder(), quick())
    task = asyncio.create_task(keeper.keep())
    await until(lambda: keeper.life.deaths >= 2)
    await keeper.stop()
    await task


async def test_command_that_is_missing_is_tried_again() -> None:
    keeper = Keeper(Service(name="one", command=("/nowhere/at/all",)), Recorder(), quick())
    task = asyncio.create_task(keeper.keep())
    await until(lambda: keeper.life.deaths >= 2)
    await keeper.stop()
    await task


async def test_process_deaf_to_sigterm_is_killed_after_its_grace() -> None:
    async with running([python("one", DEAF_TO_SIGTERM, grace_s=0.1)]) as (node, recorder):
        await recorder.sees(("one", "deaf"))
        assert node.keepers[0].process is not None
        pid = node.keepers[0].process.pid
    assert not is_alive(pid)


async def test_kill_ends_deaf_processes_at_once() -> None:
    async with running([python("one", DEAF_TO_SIGTERM, grace_s=60.0)]) as (node, recorder):
        await recorder.sees(("one", "deaf"))
        node.kill()


async def test_kill_reaches_a_process_that_is_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper(python("one", DEAF_TO_SIGTERM, ready="", grace_s=60.0), Recorder())
    start = children.start_process

    async def slowly_made(
        service: Service, **options: Any
    ) -> tuple[asyncio.subprocess.Process, int, int | None]:
        process, ready, go = await start(service, **options)
        assert process.stdout is not None
        await process.stdout.readline()  # deaf from here on
        keeper.kill()
        return process, ready, go

    monkeypatch.setattr(children, "start_process", slowly_made)
    async with asyncio.timeout(PATIENCE_S):
        await keeper.keep()
    assert keeper.process is not None
    assert keeper.process.returncode == -signal.SIGKILL


async def test_stop_after_a_kill_does_not_soften_it() -> None:
    keeper = Keeper(python("one", STAYS), Recorder())
    keeper.kill()
    stopping = asyncio.create_task(keeper.stop())
    await keeper.keep()
    await stopping
    assert keeper._asked is signal.SIGKILL


ROLLS = """
import os, select, signal, sys, time
from telemetry.running import wait_to_begin
def descriptor(name):
    return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else None
wait_to_begin(descriptor("--ready-fd"), descriptor("--go-fd"))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("left", os.getpid())))
print("begun", os.getpid())
os.write(descriptor("--ready-fd"), b"1")
time.sleep(60)
"""


def rolling(name: str, code: str = ROLLS, **changes: Any) -> Service:
    return replace(python(name, code, ready=""), rolls=True, **changes)


async def test_rolling_replaces_one_after_another_and_nobody_begins_before_the_other_left() -> None:
    async with running([rolling("one"), rolling("two"), python("fixed", STAYS)]) as (node, recorder):
        await until(lambda: sum(line.startswith("begun") for _, line in recorder.lines) == 2)
        before = [keeper.process.pid for keeper in node.keepers if keeper.process]
        await node.roll()
        await until(lambda: sum(line.startswith("begun") for _, line in recorder.lines) == 4)
        after = [keeper.process.pid for keeper in node.keepers if keeper.process]
        assert [old == new for old, new in zip(before, after, strict=True)] == [False, False, True]
        assert [keeper.life.deaths for keeper in node.keepers] == [0, 0, 0]
        told = [(name, line.split()[0]) for name, line in recorder.lines if name == "one"]
        assert told == [("one", "begun"), ("one", "left"), ("one", "begun")]
        assert recorder.lines.index(("two", f"left {before[1]}")) > recorder.lines.index(
            ("one", f"begun {after[0]}")
        )


async def test_process_whose_successor_dies_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    broken = "import sys\nif '--go-fd' in sys.argv: sys.exit(1)\n" + ROLLS
    async with running([rolling("one", broken)]) as (node, recorder):
        await until(lambda: recorder.lines != [])
        first = node.keepers[0].process
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(supervisor, "START_S", 0.5)
            await node.roll()
        assert node.keepers[0].process is first
        assert first is not None and first.returncode is None
    assert "was not replaced" in caplog.text


async def test_stop_in_the_middle_of_rolling_leaves_no_process() -> None:
    never_ready = ROLLS.replace(
        "wait_to_begin(descriptor", "if descriptor('--go-fd'): time.sleep(60)\nwait_to_begin(descriptor"
    )
    async with running([rolling("one", never_ready)]) as (node, recorder):
        await until(lambda: recorder.lines != [])
        rolls = asyncio.create_task(node.roll())
        await asyncio.sleep(0.2)
    await rolls
    assert [line.split()[0] for _, line in recorder.lines] == ["begun", "left"]


async def test_stop_during_start_stops_what_has_started() -> None:
    stop = asyncio.Event()
    node = Supervisor([python("one", LEAVES_POLITELY, ready=""), python("two", STAYS)], Recorder())
    task = asyncio.create_task(node.run(stop))
    await until(lambda: node.keepers[0].process is not None)
    stop.set()
    async with asyncio.timeout(PATIENCE_S):
        await task
    assert node.keepers[1].process is None


def test_other_loops_can_start_processes_after_it() -> None:
    async def run() -> None:
        stop = asyncio.Event()
        stop.set()
        await Supervisor([], Recorder()).run(stop)

    async def ends() -> int:
        process = await asyncio.create_subprocess_exec("true")
        return await process.wait()

    asyncio.run(run())
    with contextlib.closing(asyncio.new_event_loop()) as loop:  # not set as the current one, as playwright's
        assert loop.run_until_complete(ends()) == 0


async def test_cancelled_supervisor_leaves_no_process() -> None:
    node = Supervisor([python("one", STAYS)], Recorder())
    task = asyncio.create_task(node.run(asyncio.Event()))
    await until(lambda: node.keepers[0].ready.is_set())
    assert node.keepers[0].process is not None
    pid = node.keepers[0].process.pid
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not is_alive(pid))


async def test_service_gets_its_environment_and_descriptors(tmp_path: Path) -> None:
    with (tmp_path / "shared").open("w+") as file:
        number = file.fileno()
        code = (
            f"import os, time; os.write({number}, os.environ['WORD'].encode()); print('done'); time.sleep(60)"
        )
        async with running([python("one", code, environment={"WORD": "hello"}, descriptors=(number,))]) as (
            _,
            recorder,
        ):
            await recorder.sees(("one", "done"))
        assert (tmp_path / "shared").read_text() == "hello"


async def test_children_get_one_signal_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    notes = """
import signal, sys
stop = {signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, stop)  # kept for the line below, however early it comes
print("here", flush=True)
signal.sigwait(stop)
again = signal.sigtimedwait(stop, 0.3)
open(sys.argv[1], "w").write("once" if again is None else "again")
"""
    code = f"""
import asyncio, sys
from trinity_site.children import Service
from trinity_site.supervisor import Supervisor
folder = sys.argv[1]
command = (sys.executable, "-c", {READY + notes!r})
children = [Service(name, (*command, f"{{folder}}/{{name}}")) for name in ("one", "two")]
supervisor = Supervisor(children, lambda name, line: print(supervisor.keepers[name == "two"].process.pid))
asyncio.run(supervisor.run(asyncio.Event()))
"""
    command = (sys.executable, "-u", "-c", code, str(tmp_path))
    parent = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    children = [int(await parent.stdout.readline()) for _ in range(2)]
    assert all(map(is_alive, children))
    threads = os.listdir(f"/proc/{parent.pid}/task")
    assert len(threads) == 1, "the kernel signals the children once for every thread that dies"
    parent.kill()
    await parent.wait()
    await until(lambda: not any(map(is_alive, children)))
    assert [(tmp_path / name).read_text() for name in ("one", "two")] == ["once", "once"]
