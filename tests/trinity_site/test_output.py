"""Output that never waits: for a terminal that is paused, a pipe that is full, a reader that has gone."""

import asyncio
import fcntl
import logging
import os
import pty
import re
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trinity_site.output import Output, logging_to

LINE = "x" * 99 + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def read_until(descriptor: int, satisfied: Callable[[str], bool]) -> str:
    os.set_blocking(descriptor, False)
    text = ""
    async with asyncio.timeout(10):
        while not satisfied(text):
            await asyncio.sleep(0.001)
            try:
                text += os.read(descriptor, 65_536).decode()
            except BlockingIOError:
                continue
    return text


async def test_full_pipe_blocks_nobody_and_gets_the_rest_when_it_is_read(pipe: tuple[int, int]) -> None:
    output = Output(pipe[1])
    for _ in range(5_000):  # 500 kB; a pipe holds 64 KiB
        output.write(LINE)
    text = await read_until(pipe[0], lambda text: len(text) >= 500_000)
    assert text == LINE * 5_000
    output.close()


async def test_what_is_too_much_is_left_out_and_counted(pipe: tuple[int, int]) -> None:
    output = Output(pipe[1], most_bytes=10_000)
    for _ in range(5_000):
        output.write(LINE)
    text = await read_until(pipe[0], lambda text: text.endswith("were left out here)\n"))
    assert (lost := re.search(r"\((\d+) lines", text))
    assert text.count(LINE) + int(lost[1]) == 5_000
    output.write("again\n")
    assert await read_until(pipe[0], lambda text: "\n" in text) == "again\n"
    output.close()


async def test_paused_terminal_blocks_nobody() -> None:
    ours, its = pty.openpty()
    termios.tcflow(its, termios.TCOOFF)  # Ctrl-S
    output = Output(its)
    for number in range(2_000):
        output.write(f"{number}\n")
    termios.tcflow(its, termios.TCOON)
    text = await read_until(ours, lambda text: "1999\r\n" in text)
    assert text.split() == [str(number) for number in range(2_000)]
    output.close()
    os.close(its)
    os.close(ours)


async def test_reader_that_has_gone_is_no_error() -> None:
    ours, its = os.pipe()
    output = Output(its)
    os.close(ours)
    output.write(LINE)
    output.write(LINE)
    assert not output._kept
    output.close()
    os.close(its)


async def test_file_is_added_to(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        file.write("first\n")
        file.flush()
        output = Output(file.fileno())
        output.write("second\n")
        output.close()
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


async def test_others_who_write_there_are_left_alone(pipe: tuple[int, int]) -> None:
    output = Output(pipe[1])
    assert not fcntl.fcntl(pipe[1], fcntl.F_GETFL) & os.O_NONBLOCK
    output.close()


async def test_log_goes_there_for_a_while(pipe: tuple[int, int]) -> None:
    handler, root = logging.StreamHandler(), logging.getLogger()
    before = handler.stream
    root.addHandler(handler)
    try:
        output = Output(pipe[1])
        with logging_to(output):
            logging.getLogger("trial").error("it broke")
        output.close()
    finally:
        root.removeHandler(handler)
    assert "it broke\n" in os.read(pipe[0], 4_096).decode().splitlines(keepends=True)
    assert handler.stream is before
