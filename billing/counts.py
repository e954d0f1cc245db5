"""Counts from the gate to the database and to other nodes, and theirs back to the gate.

Adapter: no Django. For one event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from billing._gate_writer import GateWriter
from billing.store import Store
from billing.tally import Tally
from telemetry.seldom import Seldom

if TYPE_CHECKING:  # its client library takes 0.1 s to import, and not every node has whom to share with
    from billing.sharing import Told

CHUNK = 2_000  # rows of one transaction: others want to write in between
MOST_FAILURES = 3  # in one month and go: a database that is away is not asked for every chunk

logger = logging.getLogger(__name__)


class Others(Protocol):
    """The other nodes, as `billing.sharing.Sharing` reaches them."""

    @property
    def is_listening(self) -> bool: ...
    async def tell(self, month: int, totals: Mapping[int, int]) -> None: ...
    async def read(self, month: int) -> dict[str, dict[int, int]]: ...


class Counts:
    """What was counted and not yet passed on. All of it are totals: to pass one on twice is harmless."""

    def __init__(
        self, gate: GateWriter, tally: Tally, store: Store, *, node: str, others: Others | None
    ) -> None:
        self._gate = gate
        self._tally = tally
        self._store = store
        self._node = node
        self._others = others
        self._unsaved: dict[int, dict[int, int]] = {}  # by month and key id
        self._untold: dict[int, dict[int, int]] = {}
        self._unsaved_uses: dict[int, int] = {}
        self._may_log = Seldom(time.monotonic_ns)

    def collect(self) -> None:
        """Take what the gate has counted, and let it know what the others have."""
        for usage in self._gate.changed():
            if not self._tally.knows(usage.key_id):  # not the database's
                continue
            self._unsaved_uses[usage.key_id] = usage.last_used_s
            if usage.month:
                self._tally.count(usage.key_id, usage.month, usage.counted)
                self._unsaved.setdefault(usage.month, {})[usage.key_id] = usage.counted
                self._untold.setdefault(usage.month, {})[usage.key_id] = usage.counted
            elif self._may_log():  # it could never be saved, and would come back for ever
                logger.error("%d requests of key %d are in no month", usage.counted, usage.key_id)
        for row, month, used in self._tally.due():
            self._gate.set_others(row, month, used)

    def restore(self, month: int, totals: Mapping[int, int]) -> None:
        """Raise the gate's counts to what was kept elsewhere; larger ones of its own stay."""
        for key_id, total in totals.items():
            row = self._tally.row_of(key_id)
            if row is not None:
                self._gate.restore(row, month, total)
            elif self._tally.knows(key_id):
                self._tally.count(key_id, month, total)

    async def save(self) -> None:
        """Save what has changed since it was last saved; raises ExceptionGroup once all had their turn."""
        failures = []
        # The present month is the one whose caps count.
        for month in sorted(self._unsaved, key=lambda month: (month != self._tally.present, -month)):
            failures += await self._save_all(self._unsaved[month], partial(self._store.save_counts, month))
            if not self._known(self._unsaved[month]):
                del self._unsaved[month]
        failures += await self._save_all(self._unsaved_uses, self._save_uses)
        if failures:
            raise ExceptionGroup("counts could not be saved", failures)

    async def tell(self) -> None:
        """Tell the other nodes what has changed since they were last told. Raises SharingError."""
        if self._others is None or not self._others.is_listening:  # who connects again tells everything
            return
        for month, totals in list(self._untold.items()):
            chunk = dict(totals)
            await self._others.tell(month, chunk)
            _settle(totals, chunk)
            if not totals:
                del self._untold[month]

    async def meet(self, month: int) -> None:
        """Learn what all nodes have counted in *month*, and tell them what this one has. Raises SharingError.

        What this node itself had told before it lost its gate is newer than what it had saved.
        """
        assert self._others is not None, "who meets nobody is alone"
        totals = await self._others.read(month)
        self.restore(month, totals.pop(self._node, {}))
        for node, theirs in totals.items():
            self._tally.told(node, month, theirs)
        self.collect()
        await self._others.tell(month, self._tally.own(month))

    def told(self, told: Told) -> None:
        """Take what another node has just told; the gate knows with the next collecting."""
        self._tally.told(told.node, told.month, told.totals)

    async def load_others(self, month: int) -> None:
        """Learn what the other nodes have saved: later than what they tell, and from all of them."""
        self._tally.saved(month, await self._store.load_others(month))

    async def _save_all(
        self, waiting: dict[int, int], save: Callable[[Mapping[int, int]], Awaitable[None]]
    ) -> list[Exception]:
        failures: list[Exception] = []
        for chunk in _chunks(self._known(waiting)):
            try:
                await save(chunk)
            except Exception as error:  # noqa: BLE001  # raised when the rest has had its turn
                failures.append(error)
                _postpone(waiting, chunk)
                if len(failures) == MOST_FAILURES:
                    break
            else:
                _settle(waiting, chunk)
        return failures

    async def _save_uses(self, uses: Mapping[int, int]) -> None:
        moments = {key_id: datetime.fromtimestamp(used_s, UTC) for key_id, used_s in uses.items()}
        await self._store.save_last_uses(moments)

    def _known(self, totals: Mapping[int, int]) -> dict[int, int]:
        """Leave out keys that the database no longer has: one would keep the others from being saved."""
        return {key_id: total for key_id, total in totals.items() if self._tally.knows(key_id)}


def _settle(waiting: dict[int, int], done: Mapping[int, int]) -> None:
    """Take out what was passed on, unless it has grown meanwhile."""
    for key_id, value in done.items():
        if waiting.get(key_id) == value:
            del waiting[key_id]


def _postpone(waiting: dict[int, int], failed: Mapping[int, int]) -> None:
    """Let what failed be last the next time: it may fail for ever, and the rest has its turn."""
    for key_id in failed:
        waiting[key_id] = waiting.pop(key_id)


def _chunks(values: Mapping[int, int]) -> Iterator[dict[int, int]]:
    items = iter(values.items())
    while chunk := dict(islice(items, CHUNK)):
        yield chunk
