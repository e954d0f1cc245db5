"""The segments of a node's spool as the shipper goes through them: found, looked at, read, deleted.

However much there is, only as many are looked at as are wanted next, and few files are open: what waits costs
a name.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from telemetry._spool import Tally
from telemetry.envelope import BIGGEST, Envelope, compress
from telemetry.exceptions import LayoutError
from telemetry.packing import Identity, Packing, Part
from telemetry.segments import Segment, find_segments, remove_left
from telemetry.seldom import Seldom

BAD = ".bad"
YOUNG_S = 60.0
MOST_OPEN = 32
"""Segments kept open beside those that are written: to open one that its writer has left costs reading it."""

logger = logging.getLogger(__name__)


class Backlog:
    """The spool below *root*, for one thread at a time. Raises nothing for a file that the disk refuses."""

    def __init__(
        self, root: Path, packing: Packing, *, mono_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.set_aside = 0
        """Files that were no segments."""
        self._root, self._packing, self._mono_ns = root, packing, mono_ns
        self._may_tell, self._may_tidy = Seldom(mono_ns), Seldom(mono_ns)
        self._identities: dict[Path, Identity] = {}
        self._paths: dict[Identity, Path] = {}
        self._live: dict[Identity, Segment] = {}
        self._left: OrderedDict[Identity, Segment] = OrderedDict()  # final ones, the last used one last

    def scan(self) -> None:
        """See how far the known segments go now, and look at further ones, the oldest first, if wanted."""
        if self._may_tidy():
            self._tidy()
        found = sorted(find_segments(self._root), key=lambda path: path.name)
        for path in self._identities.keys() - set(found):  # somebody has removed it
            self.forget(self._identities[path])
        for segment in list(self._live.values()):
            with self._telling(segment.path):
                self._look(segment)
        for path in found:
            if not self._packing.wants_more:
                return
            if path not in self._identities:
                with self._telling(path):
                    self._add(path)

    def read(self, part: Part, payload_bytes: int | None = None) -> list[Envelope]:
        """Make envelopes of a part: one, or more where its payload would be longer than *payload_bytes*.

        None of a segment that has vanished, or that the disk does not give out now.
        """
        path = self._paths.get(part.identity)
        if path is not None:  # else a part before this one has shown that it is no segment any more
            with self._telling(path):
                return self._read(part, payload_bytes)
        return []

    def delete(self, identity: Identity) -> None:
        """Delete a segment that the database has all of, or leave it to the next call if the disk refuses."""
        path = self._paths[identity]
        with self._telling(path):
            path.unlink(missing_ok=True)
            self.forget(identity)

    def forget(self, identity: Identity) -> None:
        self._packing.forget(identity)
        path = self._paths.pop(identity, None)
        if path is not None:
            del self._identities[path]
        for segments in (self._live, self._left):
            if (segment := segments.pop(identity, None)) is not None:
                segment.close()

    def close(self) -> None:
        for identity in list(self._paths):
            self.forget(identity)

    @contextmanager
    def _telling(self, path: Path) -> Iterator[None]:
        """Set aside a file that is no segment, and pass over one that the disk refuses: others it may not."""
        try:
            try:
                yield
            except LayoutError as error:
                self._put_aside(path, error)
        except FileNotFoundError:  # somebody has removed it: the next scan finds it gone
            pass
        except OSError as error:
            if self._may_tell():
                logger.error("%s is refused by the disk; it is tried again and again (%s)", path, error)

    def _tidy(self) -> None:
        """Remove what dead workers of rows that nobody has any more have left; the young are being made."""
        for folder in self._root.glob("[0-9]*"):
            with self._telling(folder):
                remove_left(folder, older_s=YOUNG_S)

    def _add(self, path: Path) -> None:
        """Look at a segment for the first time."""
        segment = Segment(path)
        self._identities[path] = segment.identity
        self._paths[segment.identity] = path
        self._live[segment.identity] = segment
        self._look(segment)

    def _look(self, segment: Segment) -> None:
        identity, extent = segment.identity, segment.look()
        self._packing.note(identity, end=extent.end, final=extent.final, now_ns=self._mono_ns())
        if extent.final:
            del self._live[identity]
            self._keep(identity, segment)

    def _keep(self, identity: Identity, segment: Segment) -> None:
        self._left[identity] = segment
        if len(self._left) > MOST_OPEN:
            _, oldest = self._left.popitem(last=False)
            oldest.close()

    def _opened(self, identity: Identity) -> Segment:
        segment = self._live.get(identity) or self._left.pop(identity, None)
        if segment is None:
            segment = Segment(self._paths[identity])
        if identity not in self._live:
            self._keep(identity, segment)
        return segment

    def _read(self, part: Part, payload_bytes: int | None) -> list[Envelope]:
        segment = self._opened(part.identity)
        envelope = make_envelope(segment, part)
        if payload_bytes is None or len(envelope.payload) <= payload_bytes or envelope.count < 2:
            return [envelope]
        middle = (part.start + part.end) // 2
        first, second = part._replace(end=middle, final=False), part._replace(start=middle)
        return [*self._read(first, payload_bytes), *self._read(second, payload_bytes)]

    def _put_aside(self, path: Path, error: LayoutError) -> None:
        """Give a file that is no segment a name that nobody looks for: it may still be worth something."""
        if path in self._identities:
            self.forget(self._identities[path])
        aside = path.with_name(path.name + BAD)
        path.rename(aside)
        self.set_aside += 1
        logger.error("%s: %s. It is set aside as %s", path, error, aside.name)


def make_envelope(segment: Segment, part: Part) -> Envelope:
    node, name = segment.identity
    reading = segment.read(part.start, part.end - part.start)
    # Nothing checks these words, and one that was flipped must not keep its segment out of the database.
    tally = Tally(*(min(word, BIGGEST) for word in segment.tally()))
    return Envelope(
        node=node,
        segment=name,
        boot_ns=segment.header.boot_ns,
        offset=reading.start,
        count=reading.end - reading.start,
        damaged=reading.damaged,
        final=part.final and reading.end == part.end,
        tally=tally,
        payload=compress(reading.records),
    )
