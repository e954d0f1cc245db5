"""What a node counts, as rates: of the last seconds, and since somebody reset them.

Counters have one writer each and are never set back. A reset keeps a snapshot in the data folder instead,
which every worker of the node subtracts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from telemetry.rates import Rates, Snapshot, compare
from telemetry.running import repeat
from telemetry.seldom import Seldom

BASELINE = "counters-baseline.json"
PERIOD_S = 1.0
RECENT = 5
"""Periods that "the last seconds" are."""

logger = logging.getLogger(__name__)
_decoder = msgspec.json.Decoder(Snapshot)


class Counted(Protocol):
    """What telemetry._counters.CounterReader tells."""

    @property
    def epoch_ns(self) -> int: ...
    @property
    def epoch_mono_ns(self) -> int: ...
    def totals(self) -> Mapping[str, int]: ...
    def drops(self) -> Mapping[str, int]: ...
    def unrecorded(self) -> Mapping[str, int]: ...
    def latencies(self) -> Mapping[str, list[int]]: ...
    def took_ns(self) -> Mapping[str, int]: ...
    def workers(self) -> list[int]: ...
    def sockets(self) -> Mapping[int, tuple[int, int]]: ...


class Traffic:
    """The counters of one node as one process sees them. Any thread may ask."""

    def __init__(
        self,
        counted: Counted,
        folder: Path,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.counted = counted
        self._file = folder / BASELINE
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns
        self._may_log = Seldom(mono_ns)
        self._recent: tuple[Snapshot, ...] = ()  # replaced, never changed: other threads read it

    async def run(self) -> None:
        """Keep the snapshots of the last seconds until cancelled."""
        await repeat(self._look, PERIOD_S, "Reading the counters")

    async def _look(self) -> None:
        self.look()

    def look(self) -> None:
        """Take a snapshot for `lately`; once a second."""
        self._recent = (*self._recent[-RECENT:], self.snapshot())

    def snapshot(self) -> Snapshot:
        counted = self.counted
        return Snapshot(
            epoch_ns=counted.epoch_ns,
            wall_ns=self._wall_ns(),
            mono_ns=self._mono_ns(),
            totals=dict(counted.totals()),
            drops=dict(counted.drops()),
            latencies=dict(counted.latencies()),
            took_ns=dict(counted.took_ns()),
        )

    def lately(self) -> Rates:
        """Compare with about five seconds ago, or with the first look of a younger process."""
        now, recent = self.snapshot(), self._recent
        return compare(recent[0] if recent else now, now)

    def since_reset(self) -> tuple[Rates, int]:
        """Compare with the last reset, else with the beginning; and say when that was, by the wall clock."""
        now = self.snapshot()
        then = self._baseline(now) or Snapshot(now.epoch_ns, now.epoch_ns, self.counted.epoch_mono_ns)
        return compare(then, now), then.wall_ns

    def reset(self) -> int:
        """Count from now on, in every worker of the node; and say when that is, by the wall clock."""
        snapshot = self.snapshot()
        replace_file(self._file, msgspec.json.encode(snapshot))
        return snapshot.wall_ns

    def _baseline(self, now: Snapshot) -> Snapshot | None:
        """Read what a reset has kept; None when it was of counters that are gone."""
        try:
            kept = _decoder.decode(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            if self._may_log():
                logger.warning("%s is not what a reset writes, and is left aside: %s", self._file, error)
            return None
        return kept if kept.epoch_ns == now.epoch_ns and kept.mono_ns <= now.mono_ns else None


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that others read: they find the old one or the new one, and never a part."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
