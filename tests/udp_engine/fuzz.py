"""Datagrams by chance for the compiled modules and their twins: `python -m tests.udp_engine.fuzz --seed 2`.

`--sanitize` builds the modules with AddressSanitizer and UndefinedBehaviorSanitizer for the run.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

from telemetry._counters import DROP_REASONS
from tests.pricing.doubles import KEYS
from tests.twins.datagram import Drop, Number, flat, judge, parse
from tests.udp_engine.datagrams import TABLE, Outcome

T = TypeVar("T")

SYNTAX = frozenset(("malformed", "truncated", "bad_escape", "not_utf8"))
BEYOND_JSON = frozenset(("empty", "oversized", "too_deep", "duplicate_field", "reply_shaped"))


# -- datagrams by chance

GOOD: dict[bytes, Sequence[bytes]] = {
    b"asset": (b'"BTC"', b'"btc"', b'"ETH"', b'"NOPE"', b'"\\u0042tc"', b'"1INCH"'),
    b"assets": (b'["BTC"]', b'["BTC","ETH"]', b'[ "btc" , "BTC","x1" ]', b'["A","B","C","D","E"]'),
    b"api_key": tuple(b'"%b"' % key.encode() for key in KEYS.values()),
    b"id": (b'"7"', b'"a-long-id-0123456789"', b'"\\"\\\\ \\/"', b'"\\u0037"', b'"%b"' % (b"i" * 64)),
    b"exchange": (b'"coinbase"', b'"KRAKEN"', b'"gate_io-2"'),
    b"max_age_ms": (b"0", b"1", b"5000", b"86400000"),
}
ODD_NAMES = (
    *(b"x", b"", b"error", b"price", b"prices", b"answers", b"Asset", b"idd"),
    *(b"\\u0069d", b"asse\\u0074", b"\\u0065rror", b"\xc3\xa9"),
)
ODD_VALUES = (
    *(b"null", b"true", b"false", b"[]", b"{}", b'""', b"-0", b"-1", b"1.0", b"1e3", b"86400001", b"9" * 30),
    *(b'{"id":[1,{"x":null}]}', b"[[[]]]", b"[[[[]]]]", b'["BTC",7]', b'[""]'),
    *(b'"\\ud83d\\ude00"', b'"\\ud800"', b'"\xf0\x9f\x98\x80"', b'"a\nb"', b'"a\\qb"'),
    *(b"NaN", b"01", b"+1", b"1.", b".5", b"1e", b"nul", b"trues"),
    *(b'"%b"' % (b"A" * 33), b'"%b"' % (b"x" * 65), b'["%b"]' % b'","'.join(b"%d" % n for n in range(31))),
)
TOKENS = (
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\0", b"\x1f", b"\x7f"),
    *(b"-", b"0", b"e", b".", b"00", b"1e400", b"null", b"true", b"[[[[", b"}}"),
    *(b"\\u", b"\\u00", b"\\ud800", b"\\udc00", b"\\ud83d\\ude00", b"\\udbff\\udfff", b"\\udc00\\udc00"),
    *(b"\\ud800\\ud800", b"\\ud800\\ue000", b'\\"', b"\\n"),
    *(b'"asset":', b'"id":"7",', b'"error":1,', b',"x":1', b'{"a":'),
    *(b"\xc3\xa9", b"\xed\xa0\x80", b"\xc0\x80", b"\xef\xbb\xbf", b"\xe0\x9f\xbf", b"\xff"),
    *(b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80"),
)
FILLINGS = (b" ", b"a", b"9", b"0", b"[", b"\\\\", b"\\u0041", b'"', b"{", b"\xc3\xa9", b'{"a":', b'"A",')
SPACES = (b"", b"", b"", b"", b" ", b"\n", b"\t \r")
POOL = 512


class Chance:
    """Makes datagrams; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(seed)
        self.share = self.source.random
        self.pool = [datagram for datagram, _ in TABLE if len(datagram) < 1_300]
        while len(self.pool) < POOL:
            self.pool.append(self.request())

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.share() * len(choices))]

    def below(self, limit: int) -> int:
        return int(self.share() * limit)

    def datagram(self) -> bytes:
        kind = self.share()
        if kind < 0.25:
            made = self.request()
            self.pool[self.below(len(self.pool))] = made
            return made
        if kind < 0.94:
            return self.mutated(self.pick(self.pool))
        if kind < 0.97:
            return self.long()
        return self.noise()

    def request(self) -> bytes:
        """Spell a request in one of many ways, mostly a good one."""
        names = [self.pick((b"asset",) * 6 + (b"assets",) * 3), b"api_key"]
        demands = (b"exchange", b"max_age_ms")
        if self.share() < 0.1:
            names, demands = [b"api_key"], ()
        names += [name for name in (b"id", *demands) if self.share() < 0.4]
        members = [self.member(name, self.pick(GOOD[name])) for name in names]
        while self.share() < 0.2:
            members.append(self.member(self.pick((*GOOD, *ODD_NAMES)), self.pick(ODD_VALUES)))
        if self.share() < 0.5:
            self.source.shuffle(members)
        space = self.pick(SPACES)
        return space + b"{" + space + b",".join(members) + space + b"}" + space

    def member(self, name: bytes, value: bytes) -> bytes:
        if self.share() < 0.05:
            value = self.pick(ODD_VALUES)
        if self.share() < 0.1:
            place = self.below(len(name))
            if name[place : place + 1].isalpha() and b"\\" not in name:
                name = name[:place] + b"\\u%04x" % name[place] + name[place + 1 :]
        space = self.pick(SPACES)
        return b'%b"%b"%b:%b%b%b' % (space, name, space, space, value, space)

    def mutated(self, made: bytes) -> bytes:
        while True:
            made = self.pick(MUTATIONS)(self, made)
            if self.share() < 0.6:
                return made

    def flip(self, made: bytes) -> bytes:
        place = self.below(len(made) + 1)
        return made[:place] + bytes([self.below(256)]) + made[place + 1 :]

    def flip_bit(self, made: bytes) -> bytes:
        if not made:
            return made
        place = self.below(len(made))
        return made[:place] + bytes([made[place] ^ 1 << self.below(8)]) + made[place + 1 :]

    def cut(self, made: bytes) -> bytes:
        return made[: self.below(len(made) + 1)]

    def leave_out(self, made: bytes) -> bytes:
        place = self.below(len(made) + 1)
        return made[:place] + made[place + 1 + self.below(4) :]

    def insert(self, made: bytes) -> bytes:
        place = self.below(len(made) + 1)
        return made[:place] + self.pick(TOKENS) + made[place:]

    def splice(self, made: bytes) -> bytes:
        other = self.pick(self.pool)
        return made[: self.below(len(made) + 1)] + other[self.below(len(other) + 1) :]

    def repeat(self, made: bytes) -> bytes:
        start = self.below(len(made) + 1)
        part = made[start : start + 1 + self.below(12)]
        return made[:start] + part * (1 + self.below(3)) + made[start:]

    def long(self) -> bytes:
        """Make one near the largest size, of something that there may be much of."""
        made, size = self.pick(self.pool), 1_190 + self.below(15)
        place = self.below(len(made) + 1)
        filling = self.pick(FILLINGS)
        return made[:place] + filling * max(0, (size - len(made)) // len(filling)) + made[place:]

    def noise(self) -> bytes:
        if self.share() < 0.5:
            return self.source.randbytes(self.below(64))
        points = (self.below(self.pick((0x80, 0x800, 0xD800, 0x110000))) for _ in range(self.below(24)))
        return b'{"asset":"%b' % "".join(map(chr, points)).encode(errors="surrogatepass")


MUTATIONS: Sequence[Callable[[Chance, bytes], bytes]] = (
    *(Chance.flip, Chance.flip_bit, Chance.cut, Chance.leave_out),
    *(Chance.insert, Chance.insert, Chance.splice, Chance.repeat),
)


def datagrams(count: int, seed: int) -> Iterator[bytes]:
    chance = Chance(seed)
    for _ in range(count):
        yield chance.datagram()


# -- two readers


def compare(
    native: Callable[[bytes], object], twin: Callable[[bytes], object], count: int, seed: int
) -> Counter[object]:
    """Ask both about each datagram, and count the twin's outcomes by kind. Raises AssertionError."""
    seen: Counter[object] = Counter()
    for number, datagram in enumerate(datagrams(count, seed)):
        expected, found = twin(datagram), native(datagram)
        if found != expected:
            raise AssertionError(
                f"datagram {number} of seed {seed}: {datagram!r}\nmust be {expected}\nbut is  {found}"
            )
        seen[kind_of(expected)] += 1
    return seen


def kind_of(outcome: object) -> object:
    """Name what a reader or an engine gave: the reason of a drop, or the first word; else its type."""
    if type(outcome) is tuple:
        return outcome[1] if outcome[0] == "drop" else outcome[0]
    return type(outcome).__name__


def by_twin(datagram: bytes) -> Outcome:
    return flat(parse(datagram))


def by_native(
    parse_native: Callable[[bytes], tuple[Any, ...]],  # Any: outcomes have several shapes
    datagram: bytes,
) -> Outcome:
    """Read with the compiled module, whose reasons are numbers."""
    outcome = parse_native(datagram)
    return ("drop", DROP_REASONS[outcome[1]]) if outcome[0] == "drop" else outcome


# -- Python's own JSON reader as a third one


def check_with_json(datagram: bytes) -> str:
    """Hold the twin to what `json` makes of *datagram*, and give the kind of outcome. Raises AssertionError.

    On purpose the twin refuses what `json` takes: NaN and Infinity, lone surrogates, anything but an object;
    and it drops what has a field twice, or more than four levels, or looks like a reply.
    """
    outcome = parse(datagram)
    kind = str(kind_of(flat(outcome)))
    if kind in BEYOND_JSON:
        return kind
    fields = read_with_json(datagram)
    if kind in SYNTAX:
        assert fields is None, f"{datagram!r} is {kind} for the twin, and json reads {fields}"
    else:
        assert not isinstance(outcome, Drop)
        assert fields is not None, f"{datagram!r} is {outcome} for the twin, and json refuses it"
        assert judge(fields) == outcome, f"{datagram!r} is {outcome} for the twin, and json reads {fields}"
    return kind


def read_with_json(datagram: bytes) -> dict[str, object] | None:
    """Read an object as RFC 8259 has it; None for what is none."""
    try:
        found = json.loads(
            datagram.decode(),
            parse_int=Number,
            parse_float=Number,
            parse_constant=refuse,
            object_pairs_hook=object_of,
        )
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of its members, none of which may have a lone surrogate."""
    json.dumps(pairs, ensure_ascii=False).encode()
    return dict(pairs)


def refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


# -- the command


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.udp_engine.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sanitize", action="store_true")
    options = parser.parse_args(arguments)
    if options.sanitize:
        from tests.udp_engine.sanitized import run_sanitized  # needs a compiler

        sys.exit(run_sanitized(options.count, options.seed))
    from tests.udp_engine.engines import (  # after what was built for this run
        Engines,
        both_by_chance,
        compared,
    )
    from udp_engine._datagram import parse as parse_native

    engines = Engines()
    summaries = Engines(are_summaries=True)
    pairs = {
        "read": (partial(by_native, parse_native), by_twin),
        "answered": both_by_chance(engines, options.seed),
        "answered where summaries are": both_by_chance(summaries, options.seed),
    }
    for verb, pair in pairs.items():
        started_s = time.monotonic()
        seen = compare(*pair, options.count, options.seed)
        took_s = time.monotonic() - started_s
        print(f"{options.count:,} datagrams of seed {options.seed} {verb} alike in {took_s:.1f} s:")  # noqa: T201
        print(", ".join(f"{kind} {count:,}" for kind, count in seen.most_common()))  # noqa: T201
    compared(engines)
    compared(summaries)


if __name__ == "__main__":
    main(sys.argv[1:])
