"""One node per data folder: a lock on a file there, which the kernel frees however its holder ends."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from django.core.management.base import CommandError

NAME = "node.lock"  # holds the process id of the node that has it, or had it last


@contextlib.contextmanager
def sole_node(folder: Path, command: str) -> Iterator[None]:
    """Be the only node on *folder* until left; CommandError that names the other one and *command*."""
    try:
        file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CommandError(f"{folder / NAME} cannot be opened ({error.strerror}).") from error
    try:
        lock(file, folder, command)
        yield
    finally:
        os.close(file)


def lock(file: int, folder: Path, command: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(file, 20, 0).decode().strip() or "just started"
        raise CommandError(
            f"A node runs on {folder} already: process {pid}. "
            f"Stop it first, or give this one a folder of its own: TRINITY_DATA_DIR=/another/folder {command}"
        ) from None
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
