from collections.abc import Iterable, Mapping
from typing import final

from pricing._board import BoardReader

@final
class Finder:
    """Finds fresh prices that may be told, for compiled modules. One per process, for one thread."""

    def __init__(self, board: BoardReader, *, ttl_ms: int, label: str) -> None:
        """*label*: an answer's words between price and time, with `{quote}`, `{source}`, `{exchange}`."""

    def follow(self, listed: Mapping[str, Iterable[str]]) -> None:
        """Find from now on these assets alone, each at the exchanges named."""

    def learn(self) -> None:
        """Look at what is new on the board, if a question has met any. Costs little otherwise."""
