from collections.abc import Callable, Iterable, Mapping
from typing import final

from billing._gate import Gate
from pricing._finder import Finder
from telemetry._counters import Counters
from telemetry._spool import Appender

@final
class FastPath:
    """Answers a plain keyed `GET /price` from shared memory alone. One per process, for one thread."""

    def __init__(
        self,
        finder: Finder,
        gate: Gate,
        counters: Counters,
        appender: Appender,
        *,
        status: bytes,
        common: Iterable[tuple[bytes, bytes]],
        exposed: Iterable[tuple[bytes, bytes]],
        clock: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        """*status* is the first line, *common* the fields of every answer, *exposed* those beside limits.

        *clock* gives CLOCK_MONOTONIC and the time since the epoch in ns; None reads the machine's.
        """

    def follow(self, listed: Mapping[str, Iterable[str]]) -> None:
        """Answer from now on for these assets alone, each from the exchanges named."""

    def answer(self, data: bytes, address: bytes | None, defaults: list[tuple[bytes, bytes]]) -> bytes | None:
        """Give the whole answer to the request that *data* is; None when the ordinary way must answer.

        After None nothing has been counted or taken. *address* is the client's in 16 bytes. *defaults* are
        the server's own header fields; another list is another content.
        """
