"""Keys of the database to rows of the gate: what each may, as the gate's numbers, and what does not fit.

Adapter: no Django.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from billing._gate import (
    MAX_BURST,
    MAX_COUNT,
    PARTNER,
    SCOPE_PRICES,
    SCOPE_REPORTS,
    GateKey,
    GateWriter,
)
from billing.admission import pack_network
from billing.exceptions import GateFull
from billing.ratelimit import emission_ns
from billing.tally import Tally
from telemetry.seldom import Seldom

if TYPE_CHECKING:  # it comes with Django's models
    from billing.rows import KeyRow

GENERATION_BITS = 40  # below them is the number of the last change
MOST_SECONDS = 0xFFFF_FFFF

logger = logging.getLogger(__name__)


class Placer:
    """Put keys into the gate, and into the tally of those who share a month.

    The gate takes no older row for a newer one. Rows that are read anew, perhaps from another database, are
    to replace whatever is there: each reading from the beginning counts on from where the last one ended.
    """

    def __init__(
        self,
        gate: GateWriter,
        tally: Tally,
        *,
        extra: Sequence[GateKey] = (),
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.left_out: dict[int, KeyRow] = {}  # by key id: not in the gate, or barred there
        self._gate = gate
        self._tally = tally
        self._extra = extra
        self._base = gate.generation << GENERATION_BITS
        self._highest = self._base
        self._may_log = Seldom(mono_ns)

    def begin(self) -> None:
        """Prepare to be given every key there is."""
        self._base = self._highest + 1
        self.left_out.clear()
        self._put_extra()

    def put(self, row: KeyRow) -> int | None:
        """Place a key; return its row, or None when the gate cannot hold it as it is. That is logged."""
        revision = self._base + row.revision
        self._highest = max(self._highest, revision)
        self.left_out.pop(row.key_id, None)
        try:
            self._make_way(row)
            number = self._gate.put(gate_key(row)._replace(revision=revision))
        except (GateFull, ValueError) as error:
            # Never with the old limits, which may be wider.
            self._gate.revoke(row.digest, revision)
            self._tally.forget(row.key_id)
            self.left_out[row.key_id] = row
            if self._may_log():
                logger.error("%d keys are not in the gate, the latest: %s", len(self.left_out), error)
            return None
        self._tally.place(row.key_id, row=number, group=group_of(row), live=not row.revoked)
        return number

    def retry(self) -> None:
        """Try again what was left out: a change elsewhere may have made room."""
        for row in list(self.left_out.values()):
            self.put(row)

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
                self._gate.put(key._replace(revision=self._base))
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
