"""The keyring: the one writer of a node's gate. Keys come from the database, counts go there and to others.

Adapter: no Django. Whatever is away, the gate judges with what it has, and the keyring goes on trying.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from billing._gate import GateKey
from billing._gate_writer import GateWriter
from billing.counts import Counts
from billing.exceptions import SharingError
from billing.months import Month, MonthGuard
from billing.placing import Placer
from billing.ratelimit import previous_month
from billing.store import Store
from billing.tally import Tally
from telemetry.running import happens, repeat
from telemetry.seldom import Seldom

if TYPE_CHECKING:  # its client library takes 0.1 s to import, and not every node has whom to share with
    from billing.sharing import Sharing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often what is done."""

    keys_s: float = 0.5
    counts_s: float = 1.0
    save_s: float = 5.0
    others_s: float = 30.0  # reading what other nodes have saved
    name_s: float = 1.0  # holding the node's name
    others_heard: int = 10  # only every so many times while they are heard: one of them may not be
    logged_s: float = 3_600.0  # saving what the usage logs prove, of any node
    opinion_s: float = 2.0  # waiting for the database's clock
    last_s: float = 3.0  # telling, and then saving, the last counts


class Keyring:
    """Keep a gate. *extra* are keys that are always in it, whatever the database says."""

    def __init__(
        self,
        gate: GateWriter,
        store: Store,
        *,
        node: str,
        sharing: Sharing | None = None,
        extra: Sequence[GateKey] = (),
        rhythm: Rhythm | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.loaded = asyncio.Event()  # every key is in the gate, with what it has used
        self.revision: int | None = None  # up to which the gate has the database's changes
        self._gate = gate
        self._store = store
        self._sharing = sharing
        self._rhythm = rhythm or Rhythm()
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns
        self._tally = Tally()
        self._placer = Placer(gate, self._tally, extra=extra, mono_ns=mono_ns, wall_ns=wall_ns)
        self._counts = Counts(gate, self._tally, store, node=node, others=sharing)
        self._month = 0  # of the tally
        self._believed: Month | None = None
        self._guard = MonthGuard(gate.month(mono_ns()))
        self._news = asyncio.Event()  # somebody says that keys have changed
        self._news.set()
        self._unheard = 0
        self._may_log = Seldom(mono_ns)
        self._may_name = Seldom(mono_ns)

    @property
    def left_out(self) -> int:
        """How many live keys the gate cannot hold: they are refused."""
        return len(self._placer.left_out)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the gate until *stop* is set, then pass on the last counts. Raises only cancellation."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work, name=name) for name, work in self._tasks().items()]
                await stop.wait()
                await self._at_last(self._pass_on)
                for task in tasks:
                    task.cancel()
        finally:
            await self._at_last(self._save)

    def _tasks(self) -> dict[str, Coroutine[None, None, None]]:
        every = self._rhythm
        return {
            "month": repeat(self.mind_month, every.counts_s, "Minding the month"),
            "keys": repeat(self._await_keys, 0.0, "Reading the keys"),
            "counts": self._repeat(self._pass_on, every.counts_s, "Passing counts on"),
            "save": self._repeat(self._save, every.save_s, "Saving counts"),
            "others": self._repeat(self._hear, every.others_s, "Reading the counts of other nodes"),
            "logged": self._repeat(self._save_logged, every.logged_s, "Saving counts that usage logs prove"),
            "name": self._repeat(self._hold_name, every.name_s, "Holding the node's name"),
            "listen": self._listen(),
        }

    # -- keys

    async def refresh(self) -> None:
        """Bring the gate's keys up to date: what has changed, or everything when nothing is known.

        The number is read before the rows: a change in between is seen again, and never missed. A number that
        has fallen is another database's, or a restored one's.
        """
        revision = await self._store.key_revision()
        if self.revision is None or revision < self.revision:
            await self._read_all()
        elif revision > self.revision:
            await self._read_changes(self.revision)
        self.revision = revision
        self._placer.complain()

    async def _await_keys(self) -> None:
        await happens(self._news, self._rhythm.keys_s)
        self._news.clear()
        await self.refresh()

    async def _read_changes(self, after: int) -> None:
        async for rows in self._store.key_rows(after):
            for row in rows:
                self._placer.put(row)
            self._counts.collect()
        self._placer.settle()

    async def _read_all(self) -> None:
        """Put every key into the gate, with what was counted: nobody is admitted to a fresh gate before."""
        if not self._month:
            await self.mind_month()
        if self._sharing is not None:
            self._sharing.installation = await self._store.installation()
        month, seen = self._month, {}
        own, others = await self._store.load_counts(month), await self._store.load_others(month)
        self._placer.begin()
        async for rows in self._store.key_rows(0):
            for row in rows:
                self._placer.put(row)
                seen[row.key_id] = row.digest
        self._tally.saved(month, others)
        self._counts.collect()  # a gate that was there before has counts of keys that may have to make way
        self._placer.sweep(seen)
        self._placer.settle()
        self._counts.restore(month, own)
        self._counts.collect()
        self.loaded.set()
        self._set_month()
        logger.info("The gate has %d keys", self._gate.keys)

    # -- the month

    async def mind_month(self) -> None:
        """Show that the keyring lives, and say which month it is."""
        self._gate.beat(self._mono_ns())
        second_ns = None
        if self._guard.doubts(self._wall_ns(), self._mono_ns()):
            second_ns = await self._ask_database()
        found = self._guard.look(self._wall_ns(), self._mono_ns(), second_ns)
        self._believed = found or self._believed
        self._set_month()
        month = found.month if found else self._gate.month(self._mono_ns())
        if month != self._month:
            self._month = month
            self._tally.begin(month)

    def _set_month(self) -> None:
        # A gate without a month has not been filled: whoever asks it knows by that.
        if self._believed and (self.loaded.is_set() or self._gate.month(self._mono_ns())):
            self._gate.set_month(*self._believed)

    async def _ask_database(self) -> int | None:
        if self._store.now_ns is None:
            return None
        try:
            async with asyncio.timeout(self._rhythm.opinion_s):
                return await self._store.now_ns()
        except TimeoutError:
            return None

    # -- counts

    async def _pass_on(self) -> None:
        self._counts.collect()
        try:
            await self._counts.tell()
        except SharingError as error:
            if self._may_log():
                logger.warning("Other nodes could not be told what was counted: %s", error)

    async def _save(self) -> None:
        self._counts.collect()
        await self._counts.save()

    async def _hear(self) -> None:
        """Read what the usage logs prove of this node, and what other nodes have saved."""
        self._counts.restore(self._month, await self._store.load_counts(self._month))
        self._unheard += 1
        is_heard = self._sharing is not None and self._sharing.is_listening
        if not is_heard or self._unheard >= self._rhythm.others_heard:
            await self._counts.load_others(self._month)
            self._unheard = 0

    async def _save_logged(self) -> None:
        """Usage logs may come as late as they are kept: the present month has them, and three before it."""
        await self._store.save_logged(previous_month(previous_month(previous_month(self._month))))

    async def _hold_name(self) -> None:
        """Look whether another keyring has this node's name: each takes the other's counts for its own."""
        if self._sharing is None or not self._sharing.is_listening:
            return
        with contextlib.suppress(SharingError):  # while the server is away, `Sharing.run` says so
            if not await self._sharing.hold_name() and self._may_name():
                logger.error(
                    "Another node that is running is called %s too: what one of them counts is lost. "
                    "Give each a CLUSTER_NODE of its own and restart it.",
                    self._sharing.node,
                )

    async def _listen(self) -> None:
        if self._sharing is not None:
            await self.loaded.wait()
            await self._sharing.run(
                connected=lambda: self._counts.meet(self._month),
                told=self._counts.told,
                keys_changed=self._news.set,
            )

    async def _repeat(self, act: Callable[[], Awaitable[None]], period_s: float, name: str) -> None:
        await self.loaded.wait()
        await repeat(act, period_s, name)

    async def _at_last(self, act: Callable[[], Awaitable[None]]) -> None:
        if not self.loaded.is_set():
            return
        try:
            async with asyncio.timeout(self._rhythm.last_s):
                await act()
        except Exception:
            logger.exception("The last counts could not be passed on")
