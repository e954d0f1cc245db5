"""What keys have used in a month, here and on other nodes, added up by who shares its cap. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from billing.ratelimit import next_month


class Others(NamedTuple):
    """What the gate must count towards the cap of the key in *row*, besides what it counts there itself."""

    row: int
    month: int
    used: int


@dataclass(slots=True)
class _Member:
    row: int | None
    group: int
    live: bool


@dataclass(slots=True)
class _Month:
    """Totals by key id. All but *groups* only ever rise."""

    own: dict[int, int] = field(default_factory=dict)
    nodes: dict[str, dict[int, int]] = field(default_factory=dict)  # as they tell it themselves
    saved: dict[int, int] = field(default_factory=dict)  # of all other nodes, as the database has it
    groups: dict[int, int] = field(default_factory=dict)  # everything together

    def others(self, key_id: int) -> int:
        # Each is a part of the truth that may be late: the larger one is nearer to it.
        told = sum(totals.get(key_id, 0) for totals in self.nodes.values())
        return max(told, self.saved.get(key_id, 0))

    def all(self, key_id: int) -> int:
        return self.own.get(key_id, 0) + self.others(key_id)


class Tally:
    """Add up. Keys of one *group* share a cap: what one of them uses is to the others as if used elsewhere.

    Totals rise within a month, so that hearing one twice, late or out of order changes nothing. Kept are the
    present month and its neighbours, which some node may still or already be in; others are not listened to.
    """

    def __init__(self) -> None:
        self.present = 0  # month
        self._members: dict[int, _Member] = {}
        self._groups: dict[int, set[int]] = {}
        self._months: dict[int, _Month] = {}
        self._changed: set[int] = set()  # groups whose rows must be told

    def place(self, key_id: int, *, row: int | None, group: int, live: bool = True) -> None:
        """Add a key, or change where it is and with whom it shares.

        One that is not *live* or has no row in the gate is only counted.
        """
        self.forget(key_id)
        self._members[key_id] = _Member(row, group, live)
        self._groups.setdefault(group, set()).add(key_id)
        for month in self._months.values():
            month.groups[group] = month.groups.get(group, 0) + month.all(key_id)
        self._changed.add(group)

    def forget(self, key_id: int) -> None:
        """Take a key out; what was heard of it is kept, in case it comes back."""
        member = self._members.pop(key_id, None)
        if member is None:
            return
        self._groups[member.group].discard(key_id)
        if not self._groups[member.group]:
            del self._groups[member.group]
        for month in self._months.values():
            month.groups[member.group] = month.groups.get(member.group, 0) - month.all(key_id)
        self._changed.add(member.group)

    def lose_row(self, key_id: int) -> None:
        """Note that a key is in the gate no longer; what it has used stays its group's."""
        self._members[key_id].row = None

    def knows(self, key_id: int) -> bool:
        return key_id in self._members

    def row_of(self, key_id: int) -> int | None:
        member = self._members.get(key_id)
        return None if member is None else member.row

    def key_ids(self) -> set[int]:
        return set(self._members)

    def begin(self, month: int) -> None:
        """Let *month* be the present one; all its rows are told."""
        self.present = month
        self._months = {other: counts for other, counts in self._months.items() if self._is_near(other)}
        self._changed.update(self._groups)

    def count(self, key_id: int, month: int, total: int) -> None:
        """Note what this node has counted."""
        if self._is_near(month):
            self._raise(self._month(month).own, {key_id: total}, month)

    def told(self, node: str, month: int, totals: Mapping[int, int]) -> None:
        """Note what another node says that it has counted."""
        if self._is_near(month):
            self._raise(self._month(month).nodes.setdefault(node, {}), totals, month)

    def saved(self, month: int, totals: Mapping[int, int]) -> None:
        """Note what the database has of all other nodes together."""
        if self._is_near(month):
            self._raise(self._month(month).saved, totals, month)

    def own(self, month: int) -> dict[int, int]:
        """Return what this node has counted, by key."""
        return dict(self._month(month).own)

    def counted(self, key_id: int) -> int:
        """Return what this node has counted for a key in the present month."""
        return self._month(self.present).own.get(key_id, 0)

    def due(self) -> Iterator[Others]:
        """Yield what has changed for the present month since it was last asked for."""
        changed, self._changed = self._changed, set()
        counts = self._month(self.present)
        for group in changed:
            for key_id in self._groups.get(group, ()):
                member = self._members[key_id]
                if member.live and member.row is not None:
                    others = counts.groups.get(group, 0) - counts.own.get(key_id, 0)
                    yield Others(member.row, self.present, others)

    def _is_near(self, month: int) -> bool:
        return self.present in (month, next_month(month)) or month == next_month(self.present)

    def _month(self, month: int) -> _Month:
        return self._months.setdefault(month, _Month())

    def _raise(self, known: dict[int, int], totals: Mapping[int, int], month: int) -> None:
        counts = self._months[month]
        for key_id, total in totals.items():
            if total <= known.get(key_id, 0):
                continue
            before = counts.all(key_id)
            known[key_id] = total
            member = self._members.get(key_id)
            if member is not None:
                more = counts.all(key_id) - before
                counts.groups[member.group] = counts.groups.get(member.group, 0) + more
                self._changed.add(member.group)
