"""A question over UDP from its first datagram to its last word. Sans-I/O: times come in as arguments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from udp_engine.exceptions import REFUSALS, BadReply, NoAnswer, Refused, RequestTooLarge
from udp_engine.wire import MAX_ASSETS, Price, Prices, Refusal, Summary, build_request

Answer = TypeVar("Answer", Price, Prices, Summary)


class Retry(NamedTuple):
    """How long one question is asked: *attempts* datagrams within *total_s*, each wait twice the last.

    With *waits_for_turn* a question that came too early is asked again when the server says. Every datagram
    that gets there counts as a request of the plan, a repeated one too.
    """

    total_s: float = 2.0
    attempts: int = 4
    waits_for_turn: bool = False


class Tries(Generic[Answer]):
    """The datagrams of one question."""

    def __init__(self, retry: Retry, now_s: float) -> None:
        self._retry = retry
        self._begun_s = now_s
        self._tried = 0
        self._heard: Answer | Refusal | None = None
        self._is_last = False

    def next_wait_s(self, now_s: float) -> float | None:
        """Count one more datagram, and say how long to listen then; None: no more is to be sent."""
        left_s = self._left_s(now_s)
        if self._is_last or self._tried == self._retry.attempts or left_s <= 0:
            return None
        wait_s = self._retry.total_s * (1 << self._tried) / ((1 << self._retry.attempts) - 1)
        self._tried += 1
        return min(wait_s, left_s)

    def pause_s(self, heard: Answer | Refusal | None, now_s: float) -> float:
        """Keep what was heard, and say how long to be silent before the next datagram, if there is one."""
        if heard is None:
            return 0
        self._heard = heard
        if self._retry.waits_for_turn and isinstance(heard, Refusal) and heard.retry_ms is not None:
            pause_s = heard.retry_ms / 1_000
            if pause_s < self._left_s(now_s):
                return pause_s
        self._is_last = True
        return 0

    def result(self, now_s: float, error: Exception | None) -> Answer:
        """Give the answer. Raises Refused, or NoAnswer because of *error*, if that is known."""
        if self._heard is None:
            raise NoAnswer(self._tried, now_s - self._begun_s) from error
        if isinstance(self._heard, Refusal):
            raise refused(self._heard.error, self._heard.age_ms, self._heard.retry_ms)
        return self._heard

    def _left_s(self, now_s: float) -> float:
        return self._begun_s + self._retry.total_s - now_s


class Lots:
    """Several assets on their way through datagrams that do not hold them all."""

    def __init__(self, assets: Iterable[str], key: str, exchange: str | None, max_age_ms: int | None) -> None:
        names = (name.upper() if name.isascii() else name for name in assets)
        self._names = list(dict.fromkeys(names))
        self._demands = key, exchange, max_age_ms
        self._size = MAX_ASSETS
        self._found: dict[str, Price | Refused] = {}
        self.left = self._names

    def request(self, id: str) -> bytes:
        """Ask for as many of those left as fit. Raises RequestTooLarge when not even one does."""
        key, exchange, max_age_ms = self._demands
        while True:
            lot = self.left[: self._size]
            try:
                return build_request(lot, key, id=id, exchange=exchange, max_age_ms=max_age_ms)
            except RequestTooLarge:
                if len(lot) == 1:
                    raise
                self._size = len(lot) // 2

    def take(self, answer: Prices) -> None:
        """Keep what was told. An answer that tells nothing had no room: from then on fewer are asked for."""
        lot = self.left[: self._size]
        told = {one.asset: one for one in answer.prices if one.asset in lot}
        for name, one in told.items():
            self._found[name] = one if isinstance(one, Price) else refused(one.error, one.age_ms)
        self.left = [name for name in self.left if name not in told]
        if not told:
            if len(lot) == 1:
                raise BadReply(b"nothing of what was asked for")
            self._size = len(lot) // 2

    def result(self) -> dict[str, Price | Refused]:
        return {name: self._found[name] for name in self._names}


def refused(code: str, age_ms: int | None, retry_ms: int | None = None) -> Refused:
    return REFUSALS.get(code, Refused)(code, age_ms=age_ms, retry_ms=retry_ms)
