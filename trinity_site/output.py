"""Lines for a terminal, a pipe or a file that may not take them: nobody waits, and losses are counted.

A paused terminal (Ctrl-S, `| less`) takes nothing. A supervisor that waited for it would neither read what
its children say nor start again what dies.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator

MOST_BYTES = 1_048_576


class Output:
    """A stream for text that never blocks. To be made and used inside a running event loop."""

    def __init__(self, descriptor: int, *, most_bytes: int = MOST_BYTES) -> None:
        self._descriptor = open_anew(descriptor)
        self._most_bytes = most_bytes
        self._kept = bytearray()
        self._lost = 0
        self._loop = asyncio.get_running_loop()

    def write(self, text: str) -> None:
        """Write whole lines, now or as soon as they are taken; count them when too many wait already."""
        line = text.encode(errors="replace")
        if len(self._kept) + len(line) > self._most_bytes:
            self._lost += 1
        else:
            self._kept += line
            self.flush()

    def flush(self) -> None:
        """Write what is taken now; go on by itself when there is room again."""
        try:
            while self._kept:
                del self._kept[: os.write(self._descriptor, self._kept)]
                if not self._kept and self._lost:
                    self._kept += f"({self._lost} lines were left out here)\n".encode()
                    self._lost = 0
        except BlockingIOError:
            self._loop.add_writer(self._descriptor, self.flush)
            return
        except OSError:  # whoever read it is gone (`./run up | head`); the node is not stopped by that
            self._kept.clear()
        self._loop.remove_writer(self._descriptor)

    def close(self) -> None:
        self._loop.remove_writer(self._descriptor)
        os.close(self._descriptor)


def open_anew(descriptor: int) -> int:
    """Open the same file again, not to block; setting *descriptor* itself so would set the shell's, too.

    What cannot be opened by name (a socket, another user's terminal) is written to as it is.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    return os.dup(descriptor)


@contextlib.contextmanager
def logging_to(output: Output) -> Iterator[None]:
    """Let what this process logs go there until the context is left."""
    with contextlib.ExitStack() as stack:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                stack.callback(handler.setStream, handler.setStream(output))
        yield
