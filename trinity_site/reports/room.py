"""How many reports are asked for, or made, at once: over all and of one account. Pure."""

from __future__ import annotations

from collections import Counter


class Room:
    """Places for *most* of them, *most_of_account* of one account."""

    def __init__(self, most: int, most_of_account: int) -> None:
        self._most = most
        self._most_of_account = most_of_account
        self._inside: Counter[int] = Counter()

    def enter(self, account_id: int) -> bool:
        """Take a place if there is one; whoever takes it leaves again."""
        if self._inside.total() >= self._most or self._inside[account_id] >= self._most_of_account:
            return False
        self._inside[account_id] += 1
        return True

    def leave(self, account_id: int) -> None:
        self._inside[account_id] -= 1
        if not self._inside[account_id]:
            del self._inside[account_id]
