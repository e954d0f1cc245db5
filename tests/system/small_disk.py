"""A disk for a spool that can be filled and be made read-only: a small tmpfs, which only root may mount."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

BLOCK = b"\0" * 16_384


class SmallDisk:
    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._mounted = 0
        self._ballast = folder / "ballast"
        self._healing = threading.Event()
        folder.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder)

    def hurt(self, fault: str) -> None:
        """Leave no space, not even what is deleted, or make it read-only for whoever opens a file."""
        if fault == "read-only":
            self._mount("--bind", self.folder, self.folder)
            mount("-o", "remount,bind,ro", self.folder)
            return
        self._healing.clear()
        self._filling = threading.Thread(target=self._fill, name="ballast")
        self._filling.start()

    def heal(self) -> None:
        self._healing.set()
        if self._ballast.exists():
            self._filling.join()
            self._ballast.unlink()
        while self._mounted > 1:
            self._unmount()

    def close(self) -> None:
        self.heal()
        self._unmount()

    def _fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as ballast:
            while not self._healing.wait(0.005):
                with contextlib.suppress(OSError):
                    while os.write(ballast.fileno(), BLOCK):
                        continue

    def _mount(self, *words: object) -> None:
        mount(*words)
        self._mounted += 1

    def _unmount(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)  # files may be open
        self._mounted -= 1


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    try:
        disk = SmallDisk(folder, megabytes)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a small disk")
    try:
        yield disk
    finally:
        disk.close()
