"""Who tries keys that are none: counted by client address, told to whoever keeps records, and slowed down.

Adapter: no Django. What is remembered is bounded, whatever is sent.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from billing.networks import source_of
from billing.ratelimit import SECOND_NS, Rate, retry_after_s, take
from telemetry.running import repeat

PER_MINUTE = 20  # of one address, and as many at once, by all workers of a node together
MOST_ADDRESSES = 10_000
MOST_NAMED = 3  # unknown keys of one address that are told by name: the rest is what somebody makes up
MOST_WAITING = 500  # rows, from one second to the next; attempts beyond them are told without names
HAND_OVER_S = 1.0

UNKNOWN, MALFORMED = "key_unknown", "key_malformed"
REVOKED, ELSEWHERE = "key_revoked", "key_elsewhere"


class RefusedKey(NamedTuple):
    """So many requests with a bad key, as they are recorded."""

    kind: str
    """One of billing.models.SecurityEvent.Kind."""
    source: str
    """The client's address, or its /64; empty for many, or nobody's."""
    prefix: str
    """Of the key; empty for what was no key at all, which may be another secret."""
    times: int


@dataclass(slots=True)
class _Guesser:
    tat_ns: int = 0
    named: set[str] = field(default_factory=set)


class Guesses:
    """Count bad keys. Good ones never come here: behind a shared address they go on working."""

    def __init__(
        self, *, record: Callable[[Sequence[RefusedKey]], Awaitable[None]], workers: int = 1
    ) -> None:
        """*workers* share what an address may try: the kernel spreads its connections over them."""
        self._rate = Rate(60 * SECOND_NS * workers // PER_MINUTE, max(1, PER_MINUTE // workers))
        self.dropped = 0  # addresses that were forgotten early because there were too many
        self._record = record
        self._guessers: OrderedDict[str, _Guesser] = OrderedDict()  # who guessed last is last
        self._waiting: Counter[tuple[str, str, str]] = Counter()

    def refused(self, address: str, prefix: str, mono_ns: int) -> int | None:
        """Note an unknown key, or with an empty *prefix* a malformed one.

        Return after how many seconds to try again: the address has guessed too often. None: say that the key
        is not known.
        """
        source = source_of(address)
        guesser = self._guesser(source, mono_ns)
        turn = take(self._rate, guesser.tat_ns, mono_ns)
        guesser.tat_ns = turn.tat_ns
        if prefix and len(guesser.named) < MOST_NAMED:
            guesser.named.add(prefix)
        shown = prefix if prefix in guesser.named else ""
        self._wait(UNKNOWN if prefix else MALFORMED, source, shown)
        return None if turn.admitted else retry_after_s(turn.reset_ns)

    def note(self, kind: str, address: str, prefix: str) -> None:
        """Note a real key that is refused: REVOKED (or expired), ELSEWHERE. Nobody is slowed down for it."""
        self._wait(kind, source_of(address), prefix)

    async def run(self) -> None:
        """Hand over what was noted, at most once a second, until cancelled."""
        await repeat(self.hand_over, HAND_OVER_S, "Recording refused keys")

    async def hand_over(self) -> None:
        """Hand over what is waiting. What cannot be recorded is lost: the answers were given all the same."""
        if self._waiting:
            waiting, self._waiting = self._waiting, Counter()
            await self._record([RefusedKey(*names, times) for names, times in waiting.items()])

    def _guesser(self, source: str, mono_ns: int) -> _Guesser:
        guesser = self._guessers.setdefault(source, _Guesser())
        self._guessers.move_to_end(source)
        if len(self._guessers) > MOST_ADDRESSES:
            _, oldest = self._guessers.popitem(last=False)
            self.dropped += oldest.tat_ns > mono_ns
        return guesser

    def _wait(self, kind: str, source: str, prefix: str) -> None:
        names = kind, source, prefix
        if names not in self._waiting and len(self._waiting) >= MOST_WAITING:
            names = kind, "", ""  # one more row for each kind
        self._waiting[names] += 1
