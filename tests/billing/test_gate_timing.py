"""What the time of a refusal tells: nothing of how much an unknown key shares with a real one.

Two kinds of unknown keys, all with good checksums, are asked for in turn, and the means of their times are
compared (Welch's t; 4.5 is the usual bound for "no leak seen"). That such a measurement sees a leak where
there is one is tried with a comparison that stops at the first difference.
"""

from __future__ import annotations

import gc
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest

from billing import keys
from billing._gate import MALFORMED, UNKNOWN, GateKey, format_gate, gate_size
from billing._gate_writer import GateWriter
from billing.keys import ALPHABET

pytestmark = pytest.mark.quiet

LEAK = 4.5
ATTEMPTS = 4
ELSE = keys.generate(os.urandom).encode()
REAL_KEYS = 1_000


def sizes(ordinary: int, full: int) -> pytest.MarkDecorator:
    marks = [pytest.mark.full, pytest.mark.timeout(3600)]
    return pytest.mark.parametrize("samples", [ordinary, pytest.param(full, marks=marks)])


@pytest.fixture(scope="module")
def real() -> list[str]:
    return [keys.generate(os.urandom) for _ in range(REAL_KEYS)]


@pytest.fixture(scope="module")
def gate(real: list[str]) -> GateWriter:
    buffer = bytearray(gate_size(REAL_KEYS))
    format_gate(buffer, REAL_KEYS)
    writer = GateWriter(buffer, 1, 0)
    for number, text in enumerate(real):
        writer.put(GateKey(keys.digest(text), number))
    return writer


def near(real: list[str], shared: int, count: int) -> Iterator[bytes]:
    """Unknown keys with good checksums that begin like a real one, for so many characters of its secret.

    Each is another: a few asked for again and again would differ in what their own places in the index cost.
    """
    chance = random.Random(os.urandom(8))
    for _ in range(count):
        secret = chance.choice(real)[8:40]
        other = ALPHABET.replace(secret[shared], "")[chance.randrange(61)]
        text = "tb_live_" + secret[:shared] + other + "".join(chance.choices(ALPHABET, k=31 - shared))
        yield (text + keys.checksum(text)).encode()


@contextmanager
def undisturbed() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def welch(ask: Callable[[bytes], object], kinds: tuple[Iterable[bytes], Iterable[bytes]]) -> float:
    """Return Welch's t of the two kinds' times, without the slowest of all: they tell of the machine.

    The kinds take turns, in random order within each turn: what the machine does meanwhile meets both alike.
    """
    clock, chance = time.perf_counter_ns, random.Random(1)
    turns = (chance.sample(list(enumerate(pair)), k=2) for pair in zip(*kinds, strict=True))
    order = [question for turn in turns for question in turn]
    times: tuple[list[int], list[int]] = ([], [])
    with undisturbed():
        for kind, text in order:
            # In the same place for all, and there already: where a text happens to lie is not what is asked.
            copy = bytes(bytearray(text))
            ask(copy)
            ask(ELSE)
            began = clock()
            ask(copy)
            times[kind].append(clock() - began)
    bound = statistics.quantiles(times[0] + times[1], n=100)[89]
    first, second = ([value for value in some if value <= bound] for some in times)
    spread = statistics.variance(first) / len(first) + statistics.variance(second) / len(second)
    return (statistics.fmean(first) - statistics.fmean(second)) / math.sqrt(spread)


@sizes(200_000, full=1_000_000)
@pytest.mark.parametrize("shared", [8, 31])
def test_time_of_an_unknown_key_tells_nothing_of_what_it_shares(
    shared: int, samples: int, gate: GateWriter, real: list[str]
) -> None:
    # A leak is there every time; what a busy machine does to one measurement is gone with the next.
    figures = []
    for _ in range(ATTEMPTS):
        kinds = near(real, 0, samples), near(real, shared, samples)
        figures.append(round(welch(lambda text: gate.admit(text, 0, 0), kinds), 2))
        if abs(figures[-1]) < LEAK:
            break
    print(f"{shared=} {samples=} t={figures}")  # noqa: T201  # the figures of the drill
    assert min(map(abs, figures)) < LEAK


def test_keys_of_both_kinds_are_wellformed_and_unknown(gate: GateWriter, real: list[str]) -> None:
    for shared in (0, 8, 31):
        assert {gate.admit(text, 0, 0).code for text in near(real, shared, 1000)} <= {UNKNOWN}


def test_measurement_sees_a_comparison_that_stops_at_the_first_difference(real: list[str]) -> None:
    wanted = real[0].encode()

    def leaky(text: bytes) -> bool:
        return all(one == other for one, other in zip(text, wanted, strict=True))

    assert abs(welch(leaky, (near(real[:1], 0, 20_000), near(real[:1], 8, 20_000)))) > LEAK


def test_measurement_sees_that_a_malformed_key_is_not_looked_up(gate: GateWriter, real: list[str]) -> None:
    malformed = [text[:-1] + (b"0" if text[-1:] != b"0" else b"1") for text in near(real, 0, 20_000)]
    assert {gate.admit(text, 0, 0).code for text in malformed} == {MALFORMED}
    assert abs(welch(lambda text: gate.admit(text, 0, 0), (near(real, 0, 20_000), malformed))) > LEAK
