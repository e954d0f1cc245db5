from typing import final

from billing._gate import Gate
from pricing._finder import Finder
from telemetry._counters import Counters
from telemetry._spool import Appender

@final
class Question:
    """An admitted question that the board could not answer. Whoever gets it answers or drops it once.

    Where it has a month it is open in the appender: whoever gets it records what became of it, and closes it.
    """

    asset: str | None
    """Without one, and without *assets*, the summary of the key is asked for."""
    assets: tuple[str, ...]
    """Instead of *asset*; different ones, at most 30."""
    exchange: str | None
    max_age_ms: int | None
    id: str | None
    key_row: int
    """Of the gate: who asks."""
    key_id: int
    account_id: int
    month: int
    """In which the gate has counted it; 0: a summary takes nothing."""
    request_bytes: int
    received_ns: int
    """By CLOCK_MONOTONIC."""
    control: bytes
    """From which of our addresses it is answered, as the kernel has it (IP_PKTINFO)."""

@final
class Batch:
    """Answers the datagrams of one bound, non-blocking UDP socket, which stays its opener's."""

    def __init__(
        self,
        fd: int,
        finder: Finder | None,
        gate: Gate,
        counters: Counters,
        appender: Appender,
        *,
        budget: int = 16,
        own: tuple[bytes, int] | None = None,
        tells_address: bool = False,
        groups: bool = True,
        refusals_per_s: int = 200,
        refusal_burst: int = 20,
        networks: int = 65_536,
        secret: int = 0,
    ) -> None:
        """*finder*'s label must be `LABEL` of udp_engine.wire. Without one, summaries are asked for.

        *budget*: batches of 64 that one `drain` answers at most. *own*: the socket's address in 16 bytes and
        its port, where it is bound to one. *tells_address*: IP_PKTINFO is on. *groups*: replies to one
        address may be one send. A network, /24 or /64, gets *refusals_per_s* refusals and *refusal_burst* at
        once; there are buckets for so many *networks* (a power of two; those that share one share its
        refusals), chosen with *secret*. An account gets as many summaries, by buckets of their own.
        """

    def drain(self) -> list[Question]:
        """Answer what has come, until the socket is empty or the budget is used. Raises OSError.

        With `is_blocked` afterwards the kernel takes no more replies for now: call `resume` when it does.
        """

    @property
    def is_blocked(self) -> bool: ...
    def resume(self) -> bool:
        """Send what the kernel did not take; False while it still does not."""

    def abandon(self) -> int:
        """Give up what the kernel did not take, counted as unsent."""

    def close(self) -> None:
        """Abandon what is left and never touch the socket again, whose number may soon be another's."""

    def answer(self, question: Question, reply: bytes) -> bool:
        """Send the reply to a question; False when the kernel did not take it, counted as unsent."""

    def respond(
        self, datagram: bytes, address: bytes, port: int, mono_ns: int, wall_s: int
    ) -> bytes | Question | None:
        """Answer one datagram without the socket, at the times given: for tests. Nothing counts as sent."""

    @property
    def grouped(self) -> int:
        """Replies that left together with others."""

    @property
    def refused_groups(self) -> int:
        """How often the kernel or the path wanted each reply by itself."""
