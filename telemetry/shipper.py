"""One process of a node passes its spool on to the database, by one carrier or the other.

Turn by turn: see how far the segments go, ask the ledger what has arrived, delete what is there whole, send
what is not. A segment is deleted when it is final and the ledger has all of it, its end and its last tally;
nothing else deletes one. Memory is what one turn holds, whatever the backlog.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from telemetry.backlog import Backlog
from telemetry.carriers import Carrier
from telemetry.envelope import Envelope
from telemetry.exceptions import CarrierError
from telemetry.packing import Identity, Packing, Part
from telemetry.parameters import ShipperParameters
from telemetry.running import happens
from telemetry.seldom import Seldom

PERIOD_S = 0.25
"""Between two turns in which nothing was to be sent."""
ASK_NS = 1_000_000_000
"""Between two looks into the ledger while something is on its way."""
ASK_S = 30.0
RECORDS_AT_ONCE = 40_000
"""Read and handed over together: 6 MiB, and one transaction where they are written from here."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
LAST_S = 5.0
"""For what is left when the node stops."""

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)


class State(Protocol):
    """What the ledger has of a segment."""

    @property
    def intervals(self) -> Sequence[tuple[int, int]]: ...
    @property
    def final_end(self) -> int | None: ...


Ask = Callable[[str, Collection[str]], Awaitable[Mapping[str, State]]]


class Shipper:
    """Passes on the spool below *root*. *covered* asks the ledger about segments of a node."""

    def __init__(
        self,
        root: Path,
        *,
        carrier: Carrier,
        covered: Ask,
        parameters: ShipperParameters | None = None,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.packing = Packing(parameters or ShipperParameters())
        self.backlog = Backlog(root, self.packing, mono_ns=mono_ns)
        self._carrier, self._covered, self._mono_ns = carrier, covered, mono_ns
        self._may_tell_ledger, self._may_tell_carrier = Seldom(mono_ns), Seldom(mono_ns)
        self._may_tell_failure = Seldom(mono_ns)
        # One thread: what a turn that was cancelled has begun is over before the files are closed.
        self._disk = ThreadPoolExecutor(1, "spool")
        self._asked_ns: int | None = None
        self._failures = 0
        self._paused_until_ns = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Ship until *stop* is set, then what is left, for a few seconds at most."""
        async with asyncio.TaskGroup() as group:
            shipping = group.create_task(self._ship(stop), name="shipping")
            await stop.wait()
            done, _ = await asyncio.wait([shipping], timeout=LAST_S)
            if not done:
                logger.warning("Usage is left in the spool: it is passed on after the next start")
                shipping.cancel()

    async def turn(self, *, flush: bool = False) -> bool:
        """Do what is to be done now, and say whether there is more of it already."""
        await self._on_disk(self.backlog.scan)
        await self._ask_ledger()
        for identity in self.packing.done():
            await self._on_disk(self.backlog.delete, identity)
        if self._mono_ns() < self._paused_until_ns:
            return False
        return await self._send(self.packing.plan(self._mono_ns(), flush=flush))

    async def _ship(self, stop: asyncio.Event) -> None:
        try:
            while not stop.is_set():
                if not await self._try_turn():
                    await happens(stop, PERIOD_S)
            while (more := await self._try_turn(flush=True)) or self.packing.to_ask():
                self._asked_ns = None
                await asyncio.sleep(0 if more else PERIOD_S)
        finally:
            self._disk.submit(self.backlog.close)
            self._disk.shutdown()

    async def _try_turn(self, *, flush: bool = False) -> bool:
        try:
            return await self.turn(flush=flush)
        except Exception:
            if self._may_tell_failure():
                logger.exception("Shipping usage failed; it is tried again and again")
            return False

    async def _on_disk(self, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._disk, partial(act, *args, **kwargs))

    async def _ask_ledger(self) -> None:
        now_ns = self._mono_ns()
        to_ask = self.packing.to_ask()
        if not to_ask or (self._asked_ns is not None and now_ns - self._asked_ns < ASK_NS):
            return
        self._asked_ns = now_ns
        try:
            async with asyncio.timeout(ASK_S):
                for node, names in by_node(to_ask).items():
                    for name, state in (await self._covered(node, names)).items():
                        self.packing.note_ledger((node, name), state.intervals, state.final_end, now_ns)
        except Exception:
            if self._may_tell_ledger():
                logger.exception("The ledger cannot be asked; usage stays in the spool")

    async def _send(self, parts: list[Part]) -> bool:
        """Hand over the first of these parts; whether some are left, and the carrier takes them."""
        group = first_records(parts, RECORDS_AT_ONCE)
        if not group:
            return False
        envelopes = await self._on_disk(self._read, group)
        try:
            taken = await self._carrier.carry(envelopes) if envelopes else 0
        except CarrierError as error:
            self._pause(error)
            return False
        self._failures = 0
        for envelope in envelopes[:taken]:
            self.packing.sent(part_of(envelope), self._mono_ns())
        if self._carrier.at_once:
            self._asked_ns = None
        return taken < len(envelopes) or len(group) < len(parts)

    def _read(self, parts: list[Part]) -> list[Envelope]:
        envelopes = []
        for part in parts:
            found = self.backlog.read(part, self._carrier.payload_bytes)
            if not found and part.identity in self.packing:
                self.packing.sent(part, self._mono_ns())  # as if it were lost: it is tried again later
            envelopes += found
        return envelopes

    def _pause(self, error: CarrierError) -> None:
        """Wait for longer and longer, at random: the shippers of many nodes must not come back together."""
        longest_s = min(FIRST_PAUSE_S * 2**self._failures, LONGEST_PAUSE_S)
        self._failures = min(self._failures + 1, 16)
        self._paused_until_ns = self._mono_ns() + int(random.uniform(0, longest_s) * 1e9)
        if self._may_tell_carrier():
            logger.warning("Usage cannot be passed on; it stays in the spool (%s)", error)


def by_node(identities: list[Identity]) -> dict[str, list[str]]:
    nodes: dict[str, list[str]] = defaultdict(list)
    for node, name in identities:
        nodes[node].append(name)
    return nodes


def first_records(parts: list[Part], most: int) -> list[Part]:
    """Give the first parts that have at most so many records together, and at least one part."""
    group: list[Part] = []
    for part in parts:
        most -= part.end - part.start
        if group and most < 0:
            break
        group.append(part)
    return group


def part_of(envelope: Envelope) -> Part:
    return Part((envelope.node, envelope.segment), envelope.offset, envelope.end, envelope.final)
