"""Keys of the database to rows of the gate: what each may, as the gate's numbers, and what does not fit.

Adapter: no Django.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from billing._gate import MAX_BURST, MAX_COUNT, PARTNER, SCOPE_PRICES, SCOPE_REPORTS, GateKey
from billing._gate_writer import GateWriter
from billing.admission import pack_network
from billing.exceptions import GateFull
from billing.ratelimit import SECOND_NS, emission_ns
from billing.tally import Tally
from telemetry.seldom import Seldom

if TYPE_CHECKING:  # it comes with Django's models
    from billing.rows import KeyRow

GENERATION_BITS = 40  # below them is the number of the last change
MOST_SECONDS = 0xFFFF_FFFF
KEPT_FREE = 0.1  # of the rows, before ended keys get any: keys that are yet to be made find room at once

logger = logging.getLogger(__name__)


class Placer:
    """Put keys into the gate, and into the tally of those who share a month.

    The gate takes no older row for a newer one. Rows that are read anew, perhaps from another database, are
    to replace whatever is there: each reading from the beginning counts on from where the last one ended.

    Live keys come first. Ended ones (revoked or expired) get the rows that are left over, so that they are
    known as what they are, and make way for live ones, who ended first goes first: it is then nobody's key.
    """

    def __init__(
        self,
        gate: GateWriter,
        tally: Tally,
        *,
        extra: Sequence[GateKey] = (),
        mono_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.left_out: dict[int, KeyRow] = {}  # live ones by key id: not in the gate, or barred there
        self._gate = gate
        self._tally = tally
        self._extra = extra
        self._wall_ns = wall_ns
        self._base = gate.generation << GENERATION_BITS
        self._highest = self._base
        self._ends = _Ends()
        self._ended: dict[int, tuple[int, KeyRow]] = {}  # by key id: without a row, until all are read
        self._error: Exception | None = None  # of the latest that was left out
        self._may_log = Seldom(mono_ns)

    def begin(self) -> None:
        """Prepare to be given every key there is."""
        self._base = self._highest + 1
        self.left_out.clear()
        self._ended.clear()
        self._ends = _Ends()
        self._put_extra()

    def put(self, row: KeyRow, *, make_way: bool = False) -> None:
        """Place a key that is live or has a row, as far as the gate can hold it; `settle` does the rest.

        Only with *make_way* it takes an ended key's row, whose counts must have been collected.
        """
        self._highest = max(self._highest, self._base + row.revision)
        self.left_out.pop(row.key_id, None)
        self._ended.pop(row.key_id, None)
        now_s = self._wall_ns() // SECOND_NS
        end_s = ended_s(row, now_s)
        if end_s <= now_s and self._gate.find(row.digest) is None:
            self._ended[row.key_id] = end_s, row
            self._tell_tally(row, None)
        else:
            self._place(row, end_s, make_way=make_way)

    def settle(self) -> None:
        """After all changes: try again what was left out, and give ended keys the rows that are left."""
        for row in list(self.left_out.values()):
            self.put(row, make_way=True)
        ended, self._ended = self._ended, {}
        for end_s, row in sorted(ended.values(), key=lambda entry: -entry[0]):
            if self._gate.keys >= self._gate.rows * (1 - KEPT_FREE):
                break
            self._place(row, end_s, make_way=False)

    def complain(self) -> None:
        """Say once a minute that there are keys without a place."""
        if self.left_out and self._may_log():
            logger.error(
                "%d live keys are not in the gate and are refused, the latest: %s",
                len(self.left_out),
                self._error,
            )

    def _place(self, row: KeyRow, end_s: int, *, make_way: bool) -> None:
        revision = self._base + row.revision
        try:
            self._make_way(row)
            is_new = self._gate.find(row.digest) is None
            number = self._put(gate_key(row)._replace(revision=revision), make_way=make_way)
        except (GateFull, ValueError) as error:
            # Never with the old limits, which may be wider.
            self._gate.revoke(row.digest, revision)
            self._tell_tally(row, self._gate.find(row.digest))
            self.left_out[row.key_id] = row
            self._error = error
            return
        self._ends.note(row, end_s)
        self._tell_tally(row, number)
        if is_new and (counted := self._tally.counted(row.key_id)):  # before it had this row
            self._gate.restore(number, self._tally.present, counted)

    def _put(self, key: GateKey, *, make_way: bool) -> int:
        while True:
            try:
                return self._gate.put(key)
            except GateFull as error:
                if not make_way:
                    raise
                ended = self._ends.pop(self._wall_ns() // SECOND_NS, with_networks=error.what != "rows")
                if ended is None:
                    raise
                self._tally.lose_row(ended.key_id)
                self._gate.remove(ended.digest)

    def _tell_tally(self, row: KeyRow, number: int | None) -> None:
        # What a key without a row has used stays its account's.
        self._tally.place(
            row.key_id, row=number, group=group_of(row), live=number is not None and not row.revoked
        )

    def sweep(self, seen: dict[int, bytes]) -> None:
        """Take out what is not among *seen*, the digests by key id, nor always here."""
        for key_id in self._tally.key_ids() - seen.keys():
            self._tally.forget(key_id)
        wanted = {*seen.values(), *(key.digest for key in self._extra)}
        for digest in self._digests():
            if digest not in wanted:
                self._gate.remove(digest)
        self._put_extra()

    def _put_extra(self) -> None:
        try:
            for key in self._extra:
                self._put(key._replace(revision=self._base), make_way=True)
        except GateFull as error:
            logger.error("What is always to be in the gate is not: %s", error)

    def _make_way(self, row: KeyRow) -> None:
        """Take out a row of the same key that has another database's number: a row's number never changes."""
        number = self._gate.find(row.digest)
        if number is not None and self._gate.key(number).key_id != row.key_id:
            self._gate.remove(row.digest)

    def _digests(self) -> list[bytes]:
        found = []
        for number in range(self._gate.rows):
            try:
                found.append(self._gate.key(number).digest)
            except ValueError:  # a free row
                continue
        return found


class _End(NamedTuple):
    end_s: int
    key_id: int
    digest: bytes


class _Ends:
    """Keys in the gate by when they end or have ended, for whoever needs a place."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, bool]] = {}
        # What is no longer true stays in them until it is their turn. By whether it has a list of networks.
        self._heaps: dict[bool, list[_End]] = {False: [], True: []}

    def note(self, row: KeyRow, end_s: int) -> None:
        with_networks = bool(row.networks) and not row.revoked
        if end_s >= MOST_SECONDS:
            self._known.pop(row.key_id, None)
        elif self._known.get(row.key_id) != (end_s, with_networks):
            self._known[row.key_id] = end_s, with_networks
            end = _End(end_s, row.key_id, row.digest)
            heapq.heappush(self._heaps[False], end)
            if with_networks:
                heapq.heappush(self._heaps[True], end)

    def pop(self, now_s: int, *, with_networks: bool) -> _End | None:
        """Take out who has ended first, if anybody has."""
        heap = self._heaps[with_networks]
        while heap and heap[0].end_s <= now_s:
            end = heapq.heappop(heap)
            end_s, has_networks = self._known.get(end.key_id, (None, False))
            if end_s == end.end_s and (has_networks or not with_networks):
                del self._known[end.key_id]
                return end
        return None


def gate_key(row: KeyRow) -> GateKey:
    """Say in the gate's numbers what a key may. Raises ValueError for networks that are none.

    In the gate 0 is no limit: who may do nothing is not for prices, and what expired in 1970 has expired.
    """
    for_prices = row.scope_prices and row.requests_per_month != 0
    rate = row.requests_per_second
    return GateKey(
        digest=row.digest,
        key_id=row.key_id,
        account_id=row.account_id,
        plan=row.plan_id,
        flags=PARTNER * row.partner | SCOPE_PRICES * for_prices | SCOPE_REPORTS * row.scope_reports,
        emission_ns=0 if rate is None else max(1, emission_ns(rate)),
        burst=0 if rate is None else min(row.burst or 1, MAX_BURST),
        cap=min(row.requests_per_month or 0, MAX_COUNT),
        expires_s=0 if row.expires_s is None else min(max(1, row.expires_s), MOST_SECONDS),
        # One that is refused anyway needs no place for them.
        networks=() if row.revoked else tuple(map(pack_network, row.networks)),
        revoked=row.revoked,
    )


def group_of(row: KeyRow) -> int:
    """Name those whose cap a key shares: its account's keys, or itself alone."""
    return row.account_id if row.shares_month else -row.key_id


def ended_s(row: KeyRow, now_s: int) -> int:
    """Return when a key ended, or will; MOST_SECONDS is never.

    Of an inactive user's keys nobody knows since when: they are the newest among those that have ended.
    """
    ends = [end_s for end_s in (row.revoked_s, row.expires_s) if end_s is not None]
    if row.revoked and row.revoked_s is None:
        ends.append(now_s)
    return min(ends, default=MOST_SECONDS)
