"""Recorded frames, put through a row's rules without a network. Sans-I/O.

A line is one JSON object: `text` is the frame, `direction` "out" marks what was sent to the exchange, `kind`
"ticker_rest" a REST answer, `frame` "binary" a binary frame, `encoding` how `text` stands for bytes (base64,
hex).
"""

import base64
import binascii
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from exchanges.feed.decode import RestRule
from exchanges.feed.protocol import FeedProtocol
from exchanges.feed.spec import FeedSpec
from pricing.tick import Tick

MOST_NAMED = 20
_UUID = "00000000-0000-4000-8000-000000000000"


class ReplayedTick(NamedTuple):
    line: int
    tick: Tick


class _BadLine(ValueError):
    pass


class Replay:
    """One run over recorded lines: iterate for the ticks, then look at the counts and the complaints."""

    def __init__(self, spec: FeedSpec) -> None:
        self.frames = 0
        self.ticks = 0
        self.bad_lines = 0
        self.complaints: list[str] = []
        self._protocol = FeedProtocol(spec, [], uuid=lambda: _UUID, any_symbol=True)
        self._rest = RestRule(spec)

    @property
    def kinds(self) -> Counter[str]:
        """Return how many frames were of which kind."""
        return self._protocol.counts

    def run(self, lines: Iterable[str]) -> Iterator[ReplayedTick]:
        """Yield the ticks of *lines*, which count from 1; what cannot be read is counted and passed over."""
        for number, text in enumerate(lines, 1):
            if not text.strip():
                continue
            try:
                line = _line(text)
                ticks = self._ticks(number, line)
            except _BadLine as error:
                self.bad_lines += 1
                self._complain(number, str(error))
                continue
            self.ticks += len(ticks)
            yield from (ReplayedTick(number, tick) for tick in ticks)

    def _ticks(self, number: int, line: dict[str, Any]) -> list[Tick]:  # Any: JSON
        if line.get("direction") == "out":
            return []
        frame = _frame(line)
        self.frames += 1
        if line.get("kind") == "ticker_rest":
            return self._rest_ticks(number, line, frame)
        ticks = self._protocol.receive(frame, 0, 0)
        for fault in self._protocol.take_faults().samples:
            self._complain(number, f"{fault.reason} {fault.symbol} {fault.detail}".strip())
        return ticks

    def _rest_ticks(self, number: int, line: dict[str, Any], frame: str | bytes) -> list[Tick]:  # Any: JSON
        asked = str(line.get("symbol") or "")
        read = self._rest.read(frame.encode() if isinstance(frame, str) else frame, asked)
        if isinstance(read, str):
            self._complain(number, f"REST: {read}")
            return []
        # An answer that names no symbol is about the one asked for, which a recording keeps in `expect`.
        return [Tick(read.symbol or _expected_symbol(line), read.price, read.traded_ns)]

    def _complain(self, number: int, text: str) -> None:
        if len(self.complaints) < MOST_NAMED:
            self.complaints.append(f"line {number}: {text}")


def _line(text: str) -> dict[str, Any]:  # Any: JSON
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _BadLine(f"is not JSON: {error}") from None
    if not isinstance(line, dict) or not isinstance(line.get("text"), str):
        raise _BadLine("must be a JSON object with the frame under text")
    return line


def _frame(line: dict[str, Any]) -> str | bytes:  # Any: JSON
    text, encoding = line["text"], str(line.get("encoding") or "")
    for name, decode in _ENCODINGS.items():
        if name in encoding:
            try:
                return decode(text)
            except (ValueError, binascii.Error) as error:
                raise _BadLine(f"is not {name}: {error}") from None
    try:
        data: bytes = text.encode()
    except UnicodeEncodeError:
        raise _BadLine("holds half a surrogate pair") from None
    return data if line.get("frame") == "binary" else text


_ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "base64": lambda text: base64.b64decode(text, validate=True),
    "hex": bytes.fromhex,
}


def _expected_symbol(line: dict[str, Any]) -> str:  # Any: JSON
    expected = line.get("expect")
    first = expected[0] if isinstance(expected, list) and expected else None
    return str(first.get("symbol") or "") if isinstance(first, dict) else ""
