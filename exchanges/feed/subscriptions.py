"""Who was asked for, who was confirmed, who was refused: the subscriptions of one connection. Sans-I/O.

An acknowledgement is a hint, a trade is the proof. A refused symbol never takes the others of its request
down: they are asked again without it, and it is retried alone with growing pauses.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from exchanges.feed.quirks import Quirks
from exchanges.feed.templates import Frame

RETRY_FIRST_S: Final = 60
RETRY_CAP_S: Final = 3_600

State = Literal["waiting", "asked", "acked", "live", "refused"]


@dataclass(slots=True)
class SymbolState:
    """One symbol on one connection; times are monotonic nanoseconds, 0 = never."""

    symbol: str
    state: State = "waiting"
    detail: str = ""
    asked_mono_ns: int = 0
    last_tick_mono_ns: int = 0
    refusals: int = 0
    retry_mono_ns: int = 0


@dataclass(slots=True)
class Request:
    """One frame that asked for symbols and has not been answered for all of them."""

    symbols: list[str]


class Subscriptions:
    """The book of one connection's symbols, and the queue of what is still to be asked for."""

    def __init__(self, symbols: Iterable[str], quirks: Quirks) -> None:
        self._quirks = quirks
        self.states: dict[str, SymbolState] = {symbol: SymbolState(symbol) for symbol in symbols}
        self._folded: dict[str, SymbolState] = {}
        self._fold()
        self._open: deque[Request] = deque(maxlen=256)

    def _fold(self) -> None:
        self._folded = {symbol.casefold(): state for symbol, state in self.states.items()}

    def find(self, symbol: str) -> SymbolState | None:
        """Return the state of a symbol as the exchange writes it: some answer in another case than they were
        asked.
        """
        return self.states.get(symbol) or self._folded.get(symbol.casefold())

    def add(self, symbols: Iterable[str]) -> list[str]:
        """Take on symbols; return those that are new."""
        new = [symbol for symbol in dict.fromkeys(symbols) if symbol not in self.states]
        for symbol in new:
            self.states[symbol] = SymbolState(symbol)
        self._fold()
        return new

    def drop(self, symbols: Iterable[str]) -> list[str]:
        """Forget symbols; return those that were there."""
        gone = [symbol for symbol in dict.fromkeys(symbols) if self.states.pop(symbol, None)]
        self._fold()
        return gone

    def queued(self, symbols: Iterable[str]) -> None:
        """Take note that a frame waits to be sent: until then nothing is due for its symbols."""
        for symbol in symbols:
            if (state := self.states.get(symbol)) and state.state in ("asked", "refused"):
                state.state = "waiting"

    def asked(self, frame: Frame, mono_ns: int) -> None:
        """Take note that *frame* was sent."""
        if not frame.symbols:
            return
        self._open.append(Request(list(frame.symbols)))
        for symbol in frame.symbols:
            if (state := self.states.get(symbol)) and state.state != "live":
                state.state, state.asked_mono_ns = "asked", mono_ns

    def acknowledged(self, named: Iterable[str] | None) -> None:
        """Confirm the symbols that the frame names; where it names none (None), the oldest open request's."""
        if named is None:
            symbols = self._open.popleft().symbols if self._open else []
        else:
            symbols = [state.symbol for name in named if (state := self.find(name))]
        for symbol in symbols:
            self._answer(symbol)
            state = self.states.get(symbol)
            if state and state.state in ("waiting", "asked", "refused"):
                state.state, state.detail, state.refusals = "acked", "", 0

    def refused(
        self, named: str, detail: str, *, whole: bool, already: bool, mono_ns: int
    ) -> list[list[str]]:
        """Take note of a refusal; return the groups of symbols to ask for again now.

        *whole*: the exchange dropped the whole request, so its other symbols are asked for again: together
        when the bad one is known, one by one when it is not.
        """
        if (state := self.find(named) if named else None) is None:
            return self._unnamed_refused(detail, mono_ns) if whole else []
        request = self._request_of(state.symbol)
        self._answer(state.symbol)
        if not already:
            self._refuse(state, detail, mono_ns)
        elif state.state != "live":
            state.state = "acked"
        if not whole or request is None:
            return []
        others = self._close(request)
        return [others] if others else []

    def _unnamed_refused(self, detail: str, mono_ns: int) -> list[list[str]]:
        """Take the oldest open request as the refused one; a lone symbol is then the bad one itself."""
        symbols = self._close(self._open[0]) if self._open else []
        if len(symbols) == 1:
            self._refuse(self.states[symbols[0]], detail, mono_ns)
            return []
        return [[symbol] for symbol in symbols]

    def _close(self, request: Request) -> list[str]:
        """Wait no longer for a request; return its symbols that are still wanted and unanswered."""
        if request in self._open:
            self._open.remove(request)
        return [symbol for symbol in request.symbols if symbol in self.states]

    def _refuse(self, state: SymbolState, detail: str, mono_ns: int) -> None:
        state.state, state.detail = "refused", detail[:200]
        pause_s = min(RETRY_FIRST_S * 2 ** min(state.refusals, 16), RETRY_CAP_S)
        state.refusals += 1
        state.retry_mono_ns = mono_ns + pause_s * 10**9

    def due(self, mono_ns: int) -> list[list[str]]:
        """Return symbols to ask for again, each alone: refused long ago, or asked and never heard of."""
        due = [state for state in self.states.values() if 0 < self._retry_at(state) <= mono_ns]
        for state in due:
            if state.state == "asked":
                state.refusals += 1  # silence, like a refusal, makes the next pause longer
        return [[state.symbol] for state in due]

    def next_retry(self) -> int | None:
        """Return the monotonic time of the next retry."""
        return min((at for state in self.states.values() if (at := self._retry_at(state)) > 0), default=None)

    def _retry_at(self, state: SymbolState) -> int:
        if state.state == "refused":
            return state.retry_mono_ns
        if state.state == "asked" and self._quirks.acks and not state.last_tick_mono_ns:
            return state.asked_mono_ns + int(self._quirks.confirm_s * 1e9) * (1 + state.refusals)
        return 0

    def _request_of(self, symbol: str) -> Request | None:
        return next((request for request in self._open if symbol in request.symbols), None)

    def _answer(self, symbol: str) -> None:
        request = self._request_of(symbol)
        if request is None:
            return
        request.symbols.remove(symbol)
        if not request.symbols:
            self._open.remove(request)

    def __iter__(self) -> Iterator[SymbolState]:
        return iter(self.states.values())
