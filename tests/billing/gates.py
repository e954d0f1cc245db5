"""A gate in memory, a database of dictionaries, and what a keyring between them needs."""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime

from billing import keys
from billing._gate import Gate, Verdict, format_gate, gate_size
from billing._gate_writer import GateWriter
from billing.keyring import Rhythm
from billing.months import month_at
from billing.rows import KeyRow
from billing.store import Store

ROWS = 64
INSTALLATION = "one"
QUICK = Rhythm(
    keys_s=0.05, counts_s=0.05, save_s=0.1, others_s=0.2, others_heard=10, logged_s=0.2, opinion_s=1, last_s=5
)
MONTH = month_at(time.time_ns())


def make_memory(rows: int = ROWS) -> mmap.mmap:
    memory = mmap.mmap(-1, gate_size(rows))
    format_gate(memory, rows)
    return memory


def open_writer(memory: mmap.mmap) -> GateWriter:
    return GateWriter(memory, os.getpid(), time.monotonic_ns())


def text_of(key_id: int) -> bytes:
    """Return the text of the test's key of that number."""
    return keys.generate(lambda size: (b"%d " % key_id * size)[:size]).encode()


def digest_of(key_id: int) -> bytes:
    return hashlib.sha256(text_of(key_id)).digest()


def make_row(key_id: int, **changes: object) -> KeyRow:
    row = KeyRow(
        key_id=key_id,
        digest=digest_of(key_id),
        account_id=key_id,
        plan_id=1,
        revoked=False,
        revoked_s=None,
        partner=False,
        scope_prices=True,
        scope_reports=True,
        networks=(),
        shares_month=False,
        requests_per_second=None,
        burst=None,
        requests_per_month=None,
        expires_s=None,
        revision=0,
    )
    return row._replace(**changes)  # type: ignore[arg-type]  # fields by name


def ask(gate: Gate, key_id: int, *, address: bytes | None = None) -> Verdict:
    return gate.admit(text_of(key_id), time.monotonic_ns(), int(time.time()), address=address)


def ask_often(gate: Gate, key_id: int, times: int) -> int:
    """Ask so many times at once and return how many were admitted."""
    return sum(ask(gate, key_id).code == 0 for _ in range(times))


class FakeDatabase:
    """What all nodes have in common; *away* makes every question fail."""

    def __init__(self) -> None:
        self.name = INSTALLATION
        self.page = 1
        self.rows: dict[int, KeyRow] = {}
        self.revision = 0
        self.counts: dict[tuple[str, int], dict[int, int]] = {}  # by node and month
        self.logged: dict[tuple[str, int], dict[int, int]] = {}
        self.uses: dict[int, datetime] = {}
        self.away = False
        self.asked = 0
        self.error_ns = 0

    def put(self, key_id: int, **changes: object) -> None:
        """Make or change a key, as the services do."""
        self.revision += 1
        self.rows[key_id] = make_row(key_id, **changes)._replace(revision=self.revision)

    def store(self, node: str) -> Store:
        def look() -> None:
            self.asked += 1
            if self.away:
                raise ConnectionError("the database is away")

        async def installation() -> str:
            look()
            return self.name

        async def key_revision() -> int:
            look()
            return self.revision

        async def key_rows(after: int) -> AsyncIterator[Sequence[KeyRow]]:
            look()
            rows = sorted(self.rows.values(), key=lambda row: row.revision)
            changed = [row for row in rows if row.revision > after]
            for start in range(0, len(changed), self.page):
                yield changed[start : start + self.page]

        async def load_counts(month: int) -> dict[int, int]:
            look()
            return dict(self.counts.get((node, month), {}))

        async def load_others(month: int) -> dict[int, int]:
            look()
            sums: dict[int, int] = {}
            for (name, when), counts in self.counts.items():
                if name != node and when == month:
                    for key_id, count in counts.items():
                        sums[key_id] = sums.get(key_id, 0) + count
            return sums

        async def save_counts(month: int, counts: Mapping[int, int]) -> None:
            look()
            assert all(key_id in self.rows for key_id in counts), "a foreign key would be violated"
            saved = self.counts.setdefault((node, month), {})
            for key_id, count in counts.items():
                saved[key_id] = max(saved.get(key_id, 0), count)

        async def save_logged(since: int) -> None:
            look()
            for (name, month), logged in self.logged.items():
                if month >= since:
                    self.counts.setdefault((name, month), {}).update(logged)

        async def save_last_uses(uses: Mapping[int, datetime]) -> None:
            look()
            self.uses.update(uses)

        async def now_ns() -> int | None:
            return None if self.away else time.time_ns() + self.error_ns

        return Store(
            installation=installation,
            key_revision=key_revision,
            key_rows=key_rows,
            load_counts=load_counts,
            load_others=load_others,
            save_counts=save_counts,
            save_logged=save_logged,
            save_last_uses=save_last_uses,
            now_ns=now_ns,
        )


def now() -> datetime:
    return datetime.now(UTC)
