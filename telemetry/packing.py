"""Which records of the spool are to be sent, sent again, or let go of. Sans-I/O.

The database's ledger is the only acknowledgement. What was sent is *on its way* until the ledger has it; when
that has not happened in time it is as if it had never been sent, and is cut into parts anew. Whatever arrives
twice, late or in another order changes nothing there, so nothing needs to be known of what became of a part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from telemetry.parameters import ShipperParameters

PATIENCE_NS = 60_000_000_000
"""How long the ledger may take before a part is sent again; as long it counts as on its way."""
MOST_DOUBLINGS = 4
"""Where nothing of a segment arrives at all, patience doubles so often: 16 minutes."""

Identity = tuple[str, str]  # node and segment
Interval = tuple[int, int]  # places from the first one up to the second


class Part(NamedTuple):
    """Places of one segment that make one envelope."""

    identity: Identity
    start: int
    end: int
    final: bool
    """Whether the segment ends with it."""


class Flight(NamedTuple):
    part: Part
    sent_ns: int


@dataclass(slots=True)
class Shipment:
    """One segment: how far it goes, what the ledger has of it, and what is on its way."""

    identity: Identity
    end: int = 0
    final: bool = False
    asked: bool = False
    """Whether the ledger has been asked: before that nothing is sent, it may all have arrived long ago."""
    covered: tuple[Interval, ...] = ()
    ended: int | None = None
    """Where the segment ends, once the ledger knows."""
    flights: list[Flight] = field(default_factory=list)
    sent_ns: int = 0
    """When a part was last sent, and up to where parts ever were."""
    sent_end: int = 0
    grown_ns: int = 0
    waiting_since_ns: int | None = None
    """Since when the first record that was never sent has been there; None when there is none."""
    misses: int = 0
    """How often in a row something did not arrive in time while nothing else did."""

    def grow(self, end: int, *, final: bool, now_ns: int) -> None:
        self.final = final
        if end > self.end:
            self.end, self.grown_ns = end, now_ns
            if self.waiting_since_ns is None:
                self.waiting_since_ns = now_ns

    def settle(self, covered: Sequence[Interval], ended: int | None, now_ns: int) -> bool:
        """Take what the ledger had at *now_ns*, and give up waiting for what it should have had by then.

        Says whether something has arrived since it was last asked.
        """
        arrives = self.asked and (tuple(covered), ended) != (self.covered, self.ended)
        self.covered, self.ended, self.asked = tuple(covered), ended, True
        pending = [flight for flight in self.flights if not self._has_arrived(flight.part)]
        patience_ns = PATIENCE_NS << min(self.misses, MOST_DOUBLINGS)
        self.flights = [flight for flight in pending if now_ns - flight.sent_ns < patience_ns]
        if arrives:
            self.misses = 0
        elif pending and not self.flights:  # they were sent one after the other, and are one miss together
            self.misses += 1
        return arrives

    def send(self, part: Part, now_ns: int) -> None:
        self.flights.append(Flight(part, now_ns))
        self.sent_ns, self.sent_end = now_ns, max(self.sent_end, part.end)
        if part.end == self.end:
            self.waiting_since_ns = None
        elif self.waiting_since_ns is not None:
            self.waiting_since_ns = self.grown_ns

    def due(self, batch_size: int, flush_ns: int, now_ns: int) -> list[Part]:
        """Cut what is unsent into parts, but for the end of a live segment while that may wait."""
        if not self.asked:
            return []
        places = [
            (first, min(first + batch_size, end))
            for start, end in self.unsent()
            for first in range(start, end, batch_size)
        ]
        if places and places[-1][1] == self.end:
            first, last = places[-1]
            if last - first < batch_size and self._may_wait(flush_ns, now_ns):
                places.pop()
        ends = self.final and not self.is_ended and not any(flight.part.final for flight in self.flights)
        if ends and (not places or places[-1][1] < self.end):
            places.append((self.end, self.end))
        return [Part(self.identity, first, last, ends and last == self.end) for first, last in places]

    def unsent(self) -> Iterator[Interval]:
        """Yield what is neither in the ledger nor on its way."""
        on_way = ((flight.part.start, flight.part.end) for flight in self.flights)
        return gaps(self.end, [*self.covered, *on_way])

    def _may_wait(self, flush_ns: int, now_ns: int) -> bool:
        """Whether what is at the end may yet become a full envelope."""
        since_ns = self.waiting_since_ns
        return not self.final and since_ns is not None and now_ns - since_ns < flush_ns

    @property
    def is_ended(self) -> bool:
        """Whether the ledger knows where it ends, and with that its final tally."""
        return self.ended is not None and self.ended >= self.end

    @property
    def is_done(self) -> bool:
        """Whether all of it that there will ever be is in the database."""
        return self.final and self.is_ended and not any(gaps(self.end, self.covered))

    def _has_arrived(self, part: Part) -> bool:
        lacking = any(end > part.start for start, end in gaps(part.end, self.covered))
        return not lacking and (self.is_ended or not part.final)


class Packing:
    """All segments that have been looked at. Times are of one monotonic clock."""

    def __init__(self, parameters: ShipperParameters) -> None:
        self._batch_size = parameters.sqs_batch_size
        self._buffer_size = parameters.sqs_buffer_size
        self._flush_ns = parameters.sqs_flush_ms * 1_000_000
        self._shipments: dict[Identity, Shipment] = {}
        self._unheard_since_ns: int | None = None
        """When the first part was sent after the last news of any segment."""
        self._sent_ns = 0

    def __contains__(self, identity: Identity) -> bool:
        return identity in self._shipments

    def note(self, identity: Identity, *, end: int, final: bool, now_ns: int) -> None:
        """Note how far a segment goes."""
        shipment = self._shipments.setdefault(identity, Shipment(identity))
        shipment.grow(end, final=final, now_ns=now_ns)

    def note_ledger(
        self, identity: Identity, covered: Sequence[Interval], ended: int | None, now_ns: int
    ) -> None:
        """Note what the ledger has of a segment, asked at *now_ns*: places in order, and where it ends."""
        if identity not in self._shipments or not self._shipments[identity].settle(covered, ended, now_ns):
            return
        if self._is_silent(now_ns):  # what did not arrive meanwhile was no fault of its own
            for shipment in self._shipments.values():
                shipment.misses = 0
        self._unheard_since_ns = None

    def plan(self, now_ns: int, *, flush: bool = False) -> list[Part]:
        """Name what is to be sent now, the oldest segment first; *flush* lets nothing wait for more.

        While nothing arrives it is one part a minute: a queue that nobody empties must not grow for that.
        """
        if not self._is_silent(now_ns):
            return self._fitting(now_ns, flush=flush)
        return [] if now_ns - self._sent_ns < PATIENCE_NS else self._one(now_ns, flush=flush)

    def sent(self, part: Part, now_ns: int) -> None:
        """Note that a part, or a piece of one, is on its way."""
        self._shipments[part.identity].send(part, now_ns)
        self._sent_ns = now_ns
        if self._unheard_since_ns is None:
            self._unheard_since_ns = now_ns

    def to_ask(self) -> list[Identity]:
        """Name the segments of which the ledger may have news."""
        return [
            identity
            for identity, shipment in self._shipments.items()
            if not shipment.asked or shipment.flights or (shipment.final and not shipment.is_done)
        ]

    def done(self) -> list[Identity]:
        """Name the segments that may be deleted."""
        return [identity for identity, shipment in self._shipments.items() if shipment.is_done]

    def forget(self, identity: Identity) -> None:
        self._shipments.pop(identity, None)

    def on_way(self, now_ns: int) -> int:
        """Count the records that were sent and may still arrive in time."""
        return sum(
            flight.part.end - flight.part.start
            for shipment in self._shipments.values()
            for flight in shipment.flights
            if now_ns - flight.sent_ns < PATIENCE_NS
        )

    def _is_silent(self, now_ns: int) -> bool:
        """Whether something was sent a minute ago or before, and nothing at all has arrived since."""
        return self._unheard_since_ns is not None and now_ns - self._unheard_since_ns >= PATIENCE_NS

    def _fitting(self, now_ns: int, *, flush: bool) -> list[Part]:
        room = self._buffer_size - self.on_way(now_ns)
        parts: list[Part] = []
        for shipment in self._shipments.values():
            for part in shipment.due(self._batch_size, 0 if flush else self._flush_ns, now_ns):
                room -= part.end - part.start
                if room < 0:
                    return parts
                parts.append(part)
        return parts

    def _one(self, now_ns: int, *, flush: bool) -> list[Part]:
        """Name one part: one that was never sent, or else of the segment whose turn was the longest ago."""
        due = [
            (part, shipment)
            for shipment in self._shipments.values()
            for part in shipment.due(self._batch_size, 0 if flush else self._flush_ns, now_ns)
        ]
        new = [part for part, shipment in due if part.end > shipment.sent_end]
        if new or not due:
            return new[-1:]
        return [min(due, key=lambda pair: pair[1].sent_ns)[0]]

    @property
    def wants_more(self) -> bool:
        """Whether to look at more segments: the known ones that arrive would not fill the buffer."""
        unsent = sum(
            end - start for one in self._shipments.values() if not one.misses for start, end in one.unsent()
        )
        return unsent < self._buffer_size


def gaps(end: int, intervals: Iterable[Interval]) -> Iterator[Interval]:
    """Yield what of the places from 0 to *end* is in none of the intervals, in order."""
    place = 0
    for first, last in sorted(intervals):
        if place < min(first, end):
            yield place, min(first, end)
        place = max(place, last)
    if place < end:
        yield place, end
