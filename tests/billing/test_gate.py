"""The gate by itself: whom it admits, what it counts, and that it is its twin's equal, byte for byte."""

from __future__ import annotations

import hashlib
import os
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from billing import keys
from billing._admission import hash_key
from billing._gate import (
    ADMITTED,
    EXPIRED,
    MAX_BURST,
    MAX_COUNT,
    MAX_EMISSION_NS,
    PARTNER,
    QUOTA_EXCEEDED,
    RATE_LIMITED,
    REVOKED,
    SCOPE_PRICES,
    SCOPE_REPORTS,
    UNKNOWN,
    WRONG_NETWORK,
    WRONG_SCOPE,
    Gate,
    GateKey,
    Usage,
    Verdict,
    check_gate,
    format_gate,
    gate_size,
)
from billing._gate_writer import GateWriter
from billing.admission import pack_address, pack_network
from billing.exceptions import GateFull
from telemetry.exceptions import LayoutError
from tests.twins import gate as twin

ROWS = 6
SECOND = 10**9
NOVEMBER, DECEMBER, JANUARY = 202611, 202612, 202701
CHANCE = random.Random(1)
TEXTS = [keys.generate(CHANCE.randbytes) for _ in range(ROWS + 2)]
DIGESTS = [keys.digest(text) for text in TEXTS]
# Their first place in an index of 16 is its last: what follows goes on at its beginning.
CLUSTER = [struct.pack("=II", 15 + 16 * number, number + 1) + bytes(24) for number in range(2)]
HERE, THERE = pack_address("192.0.2.7"), pack_address("2001:db8::7")


def make_buffer(rows: int = ROWS) -> bytearray:
    buffer = bytearray(gate_size(rows))
    format_gate(buffer, rows)
    return buffer


@pytest.fixture
def buffer() -> bytearray:
    return make_buffer()


@pytest.fixture
def writer(buffer: bytearray) -> GateWriter:
    gate = GateWriter(buffer, pid=7, mono_ns=0)
    gate.set_month(NOVEMBER, 1000 * SECOND)
    return gate


@pytest.fixture
def gate(buffer: bytearray, writer: GateWriter) -> Gate:
    return Gate(buffer)


def some_key(number: int = 0, **given: Any) -> GateKey:  # Any: the fields of a key
    return GateKey(DIGESTS[number], number + 100, **given)


def ask(gate: Gate, number: int = 0, mono_ns: int = 0, wall_s: int = 0, **given: Any) -> Verdict:
    return gate.admit(TEXTS[number].encode(), mono_ns, wall_s, **given)


def codes(gate: Gate, times: int, **given: Any) -> list[int]:
    return [ask(gate, **given).code for _ in range(times)]


# -- whom it admits


def test_key_is_admitted_by_its_text_and_by_its_digest(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(account_id=9, plan=3))
    for verdict in (ask(gate), gate.admit_digest(DIGESTS[0], 0, 0)):
        assert (verdict.code, verdict.row, verdict.key_id) == (ADMITTED, row, 100)
        assert (verdict.account_id, verdict.plan, verdict.month) == (9, 3, NOVEMBER)
    assert gate.usage(row).counted == 2


def test_unknown_key_is_nobodys(writer: GateWriter, gate: Gate) -> None:
    writer.put(some_key(0))
    verdict = ask(gate, 1)
    assert (verdict.code, verdict.row, verdict.key_id, verdict.account_id) == (UNKNOWN, -1, 0, 0)


def test_key_whose_digest_begins_like_anothers_is_told_apart(writer: GateWriter, gate: Gate) -> None:
    alike = [DIGESTS[0][:same] + bytes([DIGESTS[0][same] ^ 1]) + DIGESTS[0][same + 1 :] for same in (8, 31)]
    rows = [writer.put(GateKey(digest, number)) for number, digest in enumerate(alike)]
    assert gate.find(DIGESTS[0]) is None
    assert [gate.find(digest) for digest in alike] == rows
    assert [gate.admit_digest(digest, 0, 0).key_id for digest in alike] == [0, 1]


def test_revoked_key_is_known_and_refused(writer: GateWriter, gate: Gate) -> None:
    writer.put(some_key())
    assert writer.revoke(DIGESTS[0], 1)
    verdict = ask(gate)
    assert (verdict.code, verdict.key_id) == (REVOKED, 100)
    assert not writer.revoke(DIGESTS[1], 1)


def test_put_of_an_older_revision_does_not_bring_a_revoked_key_back(writer: GateWriter, gate: Gate) -> None:
    writer.put(some_key(revision=4))
    writer.revoke(DIGESTS[0], 5)
    writer.put(some_key(revision=4))
    assert ask(gate).code == REVOKED
    writer.put(some_key(revision=6))
    assert ask(gate).code == ADMITTED


def test_revocation_older_than_the_row_changes_nothing(writer: GateWriter, gate: Gate) -> None:
    writer.put(some_key(revision=6))
    assert writer.revoke(DIGESTS[0], 5)
    assert ask(gate).code == ADMITTED


def test_key_that_comes_as_revoked_is_refused(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(revoked=True))
    assert ask(gate).code == REVOKED
    assert gate.key(row).revoked


def test_key_expires_at_its_second(writer: GateWriter, gate: Gate) -> None:
    writer.put(some_key(expires_s=50))
    assert [ask(gate, wall_s=second).code for second in (49, 50, 51, 49)] == [
        ADMITTED,
        EXPIRED,
        EXPIRED,
        ADMITTED,
    ]


def test_rotated_key_lives_beside_the_new_one_for_the_overlap(writer: GateWriter, gate: Gate) -> None:
    old = writer.put(some_key(0, cap=10))
    codes(gate, 4)
    writer.put(some_key(0, cap=10, expires_s=50))
    writer.restore(writer.put(some_key(1, cap=10)), NOVEMBER, gate.usage(old).counted)
    assert [ask(gate, 0, wall_s=49).cap_remaining, ask(gate, 1, wall_s=49).cap_remaining] == [5, 5]
    assert [ask(gate, 0, wall_s=50).code, ask(gate, 1, wall_s=50).code] == [EXPIRED, ADMITTED]


@pytest.mark.parametrize(
    ("flags", "scope", "code"),
    [
        (SCOPE_PRICES, SCOPE_PRICES, ADMITTED),
        (SCOPE_PRICES, SCOPE_REPORTS, WRONG_SCOPE),
        (SCOPE_REPORTS, SCOPE_REPORTS, ADMITTED),
        (SCOPE_REPORTS, SCOPE_PRICES, WRONG_SCOPE),
        (SCOPE_PRICES | SCOPE_REPORTS, SCOPE_PRICES | SCOPE_REPORTS, ADMITTED),
        (SCOPE_PRICES, SCOPE_PRICES | SCOPE_REPORTS, WRONG_SCOPE),
        (PARTNER, SCOPE_PRICES, WRONG_SCOPE),
    ],
)
def test_key_is_good_for_its_scopes(
    flags: int, scope: int, code: int, writer: GateWriter, gate: Gate
) -> None:
    writer.put(some_key(flags=flags))
    assert ask(gate, scope=scope).code == code


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
        ("0.0.0.0/0", "255.255.255.255", "2001:db8::1"),
        ("2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"),
        ("2001:db8::1", "2001:db8::1", "2001:db8::"),
        ("::/0", "2001:db8::", ""),
    ],
)
def test_key_is_good_from_its_networks(
    network: str, inside: str, outside: str, writer: GateWriter, gate: Gate
) -> None:
    writer.put(some_key(networks=[pack_network("198.51.100.0/24"), pack_network(network)]))
    assert ask(gate, address=pack_address(inside)).code == ADMITTED
    assert ask(gate, address=pack_address(outside)).code == WRONG_NETWORK


def test_key_without_networks_is_good_from_anywhere(writer: GateWriter, gate: Gate) -> None:
    writer.put(some_key(networks=[pack_network("192.0.2.0/24")]))
    assert ask(gate, address=THERE).code == WRONG_NETWORK
    writer.put(some_key())
    assert ask(gate, address=THERE).code == ADMITTED
    assert ask(gate).code == ADMITTED


def test_changed_networks_hold_at_once_and_old_lists_are_used_again(writer: GateWriter, gate: Gate) -> None:
    for number in range(100):
        inside, outside = f"10.0.{number}.1", f"10.0.{number + 1}.1"
        writer.put(some_key(networks=[pack_network(f"10.0.{number}.0/24")] * 8))
        assert ask(gate, address=pack_address(inside)).code == ADMITTED
        assert ask(gate, address=pack_address(outside)).code == WRONG_NETWORK


def test_refusal_counts_nothing(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(expires_s=50, networks=[pack_network("192.0.2.0/24")]))
    ask(gate, wall_s=50, address=HERE)
    ask(gate, address=THERE)
    ask(gate, address=HERE, scope=8)
    assert gate.usage(row) == Usage(row, 100, 0, 0, 0)


# -- how often


def test_burst_then_the_rate(writer: GateWriter, gate: Gate) -> None:
    writer.put(some_key(emission_ns=SECOND, burst=3))
    assert codes(gate, 4, mono_ns=5) == [ADMITTED] * 3 + [RATE_LIMITED]
    refused = ask(gate, mono_ns=SECOND // 2)
    assert (refused.remaining, refused.retry_after_ns, refused.reset_ns) == (
        0,
        SECOND // 2 + 5,
        SECOND // 2 + 5,
    )
    assert ask(gate, mono_ns=SECOND + 4).code == RATE_LIMITED
    assert ask(gate, mono_ns=SECOND + 5).code == ADMITTED


def test_verdict_tells_what_is_left(writer: GateWriter, gate: Gate) -> None:
    writer.put(some_key(emission_ns=SECOND, burst=3, cap=10))
    verdict = ask(gate, mono_ns=SECOND)
    assert (verdict.limit, verdict.emission_ns, verdict.remaining, verdict.reset_ns) == (3, SECOND, 2, SECOND)
    assert (verdict.cap, verdict.cap_remaining, verdict.cap_reset_ns) == (10, 9, 999 * SECOND)
    assert verdict.retry_after_ns == 0


def test_looking_takes_nothing(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(emission_ns=SECOND, burst=1, cap=1))
    for _ in range(3):
        verdict = ask(gate, take=False)
        assert (verdict.code, verdict.remaining, verdict.cap_remaining, verdict.reset_ns) == (
            ADMITTED,
            1,
            1,
            0,
        )
    assert gate.usage(row).counted == 0
    ask(gate)
    assert ask(gate, take=False).code == QUOTA_EXCEEDED


def test_cap_admits_exactly_so_many(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(cap=3))
    assert codes(gate, 5) == [ADMITTED] * 3 + [QUOTA_EXCEEDED] * 2
    assert gate.usage(row).counted == 3
    refused = ask(gate, mono_ns=SECOND)
    assert (refused.cap_remaining, refused.retry_after_ns) == (0, 999 * SECOND)


def test_refusal_by_the_cap_takes_nothing_from_the_bucket(writer: GateWriter, gate: Gate) -> None:
    writer.put(some_key(emission_ns=SECOND, burst=5, cap=1))
    assert codes(gate, 9) == [ADMITTED] + [QUOTA_EXCEEDED] * 8
    writer.put(some_key(emission_ns=SECOND, burst=5, cap=100))
    assert codes(gate, 5) == [ADMITTED] * 4 + [RATE_LIMITED]


def test_refusal_by_the_rate_takes_nothing_from_the_cap(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(emission_ns=SECOND, burst=1, cap=2))
    assert codes(gate, 9) == [ADMITTED] + [RATE_LIMITED] * 8
    assert gate.usage(row).counted == 1


def test_others_count_towards_the_cap_of_their_month_alone(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(cap=5))
    writer.set_others(row, NOVEMBER, 3)
    assert codes(gate, 3) == [ADMITTED, ADMITTED, QUOTA_EXCEEDED]
    writer.set_others(row, NOVEMBER, MAX_COUNT)
    assert ask(gate).code == QUOTA_EXCEEDED
    writer.set_others(row, 202610, MAX_COUNT)
    assert ask(gate).cap_remaining == 2


def test_partner_is_never_limited_and_always_counted(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(flags=PARTNER | SCOPE_PRICES, emission_ns=SECOND, burst=1, cap=1))
    writer.set_others(row, NOVEMBER, 5)
    for _ in range(1000):
        verdict = ask(gate)
        assert (verdict.code, verdict.partner, verdict.limit, verdict.cap) == (ADMITTED, True, 0, 0)
    assert gate.usage(row).counted == 1000


def test_total_is_what_all_nodes_have_counted_in_that_month(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(0))
    writer.restore(row, NOVEMBER, 7)
    writer.set_others(row, NOVEMBER, 30)
    assert (gate.total(row, NOVEMBER), gate.total(row, DECEMBER)) == (37, 0)
    with pytest.raises(ValueError, match="nobody"):
        gate.total(row + 1, NOVEMBER)


def test_changed_limits_keep_the_bucket_and_the_count(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(emission_ns=SECOND, burst=2, cap=10))
    codes(gate, 2)
    assert writer.put(some_key(emission_ns=SECOND, burst=3, cap=3)) == row
    verdict = ask(gate)
    assert (verdict.remaining, verdict.cap_remaining) == (0, 0)
    assert ask(gate).code == QUOTA_EXCEEDED


def test_same_key_again_changes_nothing(buffer: bytearray, writer: GateWriter) -> None:
    key = some_key(emission_ns=5, burst=2, cap=10, networks=[pack_network("192.0.2.0/24")], revision=3)
    writer.put(key)
    before = bytes(buffer)
    writer.put(key)
    assert buffer == before


def test_last_use_is_that_of_the_last_admitted(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(cap=1))
    ask(gate, wall_s=70)
    ask(gate, wall_s=90)
    assert gate.usage(row).last_used_s == 70


# -- months


def test_month_ends_by_itself_to_the_millisecond(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(cap=2))
    ends = 1000 * SECOND
    assert codes(gate, 3, mono_ns=ends - 1) == [ADMITTED, ADMITTED, QUOTA_EXCEEDED]
    refused = ask(gate, mono_ns=ends - 1)
    assert refused.retry_after_ns == 1
    assert codes(gate, 3, mono_ns=ends - 1 + refused.retry_after_ns) == [ADMITTED, ADMITTED, QUOTA_EXCEEDED]
    assert gate.usage(row) == Usage(row, 100, DECEMBER, 2, 0)
    assert (gate.month(ends - 1), gate.month(ends)) == (NOVEMBER, DECEMBER)


def test_retry_after_the_cap_is_admitted_when_the_month_ends_within_a_millisecond(
    writer: GateWriter, gate: Gate
) -> None:
    writer.set_month(NOVEMBER, 1000 * SECOND + 1)
    writer.put(some_key(cap=1))
    assert codes(gate, 2) == [ADMITTED, QUOTA_EXCEEDED]
    assert ask(gate, mono_ns=ask(gate).retry_after_ns).code == ADMITTED


def test_december_is_followed_by_january(writer: GateWriter, gate: Gate) -> None:
    writer.set_month(DECEMBER, 5 * SECOND)
    row = writer.put(some_key())
    ask(gate, mono_ns=5 * SECOND)
    assert gate.usage(row).month == JANUARY


def test_clock_that_steps_back_opens_no_month_again(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(cap=2))
    codes(gate, 2)
    writer.set_month(DECEMBER, 0)
    ask(gate)
    writer.set_month(NOVEMBER, 0)
    assert [ask(gate).month, ask(gate).code] == [DECEMBER, QUOTA_EXCEEDED]
    assert gate.usage(row) == Usage(row, 100, DECEMBER, 2, 0)


def test_last_count_of_a_month_is_told_after_its_end(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key())
    codes(gate, 3)
    assert writer.changed() == [Usage(row, 100, NOVEMBER, 3, 0)]
    codes(gate, 2)
    ask(gate, mono_ns=1000 * SECOND)
    assert sorted(writer.changed()) == [Usage(row, 100, NOVEMBER, 5, 0), Usage(row, 100, DECEMBER, 1, 0)]
    assert writer.changed() == []


def test_month_over_for_two_months_gives_its_place_up(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(cap=9))
    for month in (NOVEMBER, DECEMBER, JANUARY):
        writer.set_month(month, 0)
        assert ask(gate).cap_remaining == 8
    assert [usage.month for usage in writer.changed()] == [DECEMBER, JANUARY]
    assert gate.usage(row).month == JANUARY


def test_restored_count_is_never_lowered(writer: GateWriter, gate: Gate) -> None:
    row = writer.put(some_key(cap=10))
    writer.restore(row, NOVEMBER, 7)
    writer.restore(row, NOVEMBER, 4)
    assert ask(gate).cap_remaining == 2
    writer.set_month(JANUARY, 0)
    ask(gate)
    writer.restore(row, NOVEMBER, 9)
    assert gate.usage(row) == Usage(row, 100, JANUARY, 1, 0)


# -- rows


def test_row_of_a_removed_key_is_taken_last_and_begins_anew(writer: GateWriter, gate: Gate) -> None:
    rows = [writer.put(some_key(number, networks=[pack_network("::/0")])) for number in range(2)]
    ask(gate, 0, address=HERE)
    assert writer.remove(DIGESTS[0])
    assert ask(gate, 0).code == UNKNOWN
    assert not writer.remove(DIGESTS[0])
    later = [writer.put(some_key(number)) for number in range(2, ROWS + 1)]
    assert later == [2, 3, 4, 5, rows[0]]
    assert ask(gate, ROWS).key_id == ROWS + 100
    assert gate.usage(rows[0]).counted == 1
    assert gate.key(rows[0]).networks == ()
    assert gate.keys == ROWS


def test_full_gate_says_so_and_keeps_what_it_has(writer: GateWriter, gate: Gate) -> None:
    for number in range(ROWS):
        writer.put(some_key(number))
    with pytest.raises(GateFull, match="all 6 rows are taken"):
        writer.put(some_key(ROWS))
    writer.put(some_key(0, cap=1))
    assert ask(gate, 0).cap == 1


def test_gate_without_a_place_for_networks_says_so_and_changes_nothing() -> None:
    buffer = make_buffer(64)
    writer = GateWriter(buffer, 1, 0)
    digests = [hashlib.sha256(bytes([number])).digest() for number in range(18)]
    for digest in digests[:16]:
        writer.put(GateKey(digest, 1, networks=[pack_network("::/0")]))
    row = writer.put(GateKey(digests[16], 1))
    before = bytes(buffer)
    for digest in digests[16:]:
        with pytest.raises(GateFull, match="all 16 network lists are taken"):
            writer.put(GateKey(digest, 1, cap=5, networks=[pack_network("::/0")]))
    assert buffer == before
    assert writer.key(row).cap == 0


def test_key_comes_back_as_it_was_put(writer: GateWriter, gate: Gate) -> None:
    key = GateKey(
        DIGESTS[0], 2**64 - 1, 2**32, 65_535, 15, MAX_EMISSION_NS, MAX_BURST, MAX_COUNT, 2**32 - 1,
        tuple((os.urandom(16), prefix) for prefix in range(121, 129)), True, 2**64 - 1,
    )  # fmt: skip
    assert gate.key(writer.put(key)) == key


REFUSED_KEYS: dict[str, dict[str, Any]] = {
    "plan": {"plan": 2**16},
    "flags": {"flags": 2**8},
    "emission": {"emission_ns": MAX_EMISSION_NS + 1, "burst": 1},
    "no burst": {"emission_ns": 1, "burst": 0},
    "burst": {"emission_ns": 1, "burst": MAX_BURST + 1},
    "cap": {"cap": MAX_COUNT + 1},
    "expiry": {"expires_s": 2**32},
    "nine networks": {"networks": [pack_network("::/0")] * 9},
    "short address": {"networks": [(b"short", 8)]},
    "long prefix": {"networks": [(bytes(16), 129)]},
    "digest": {"digest": bytes(31)},
}


@pytest.mark.parametrize("given", REFUSED_KEYS.values(), ids=REFUSED_KEYS)
def test_key_that_does_not_fit_is_refused_and_changes_nothing(
    given: dict[str, Any], buffer: bytearray, writer: GateWriter
) -> None:
    before = bytes(buffer)
    with pytest.raises(ValueError):
        writer.put(some_key()._replace(**given))
    assert buffer == before


def test_slowest_rate_and_largest_burst_do_not_overflow(writer: GateWriter, gate: Gate) -> None:
    writer.put(some_key(emission_ns=MAX_EMISSION_NS, burst=MAX_BURST))
    verdict = ask(gate, mono_ns=2**62)
    assert (verdict.code, verdict.remaining) == (ADMITTED, MAX_BURST - 1)


@pytest.mark.parametrize("row", [-1, 1, ROWS, 2**40])
def test_row_of_nobody_is_refused(row: int, writer: GateWriter) -> None:
    writer.put(some_key())
    calls: list[Callable[[], object]] = [
        lambda: writer.key(row),
        lambda: writer.usage(row),
        lambda: writer.set_others(row, NOVEMBER, 1),
        lambda: writer.restore(row, NOVEMBER, 1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="nobody's"):
            call()


@pytest.mark.parametrize(("month", "count"), [(2**18, 0), (NOVEMBER, MAX_COUNT + 1)])
def test_count_or_month_out_of_range_is_refused(month: int, count: int, writer: GateWriter) -> None:
    row = writer.put(some_key())
    for method in (writer.set_others, writer.restore):
        with pytest.raises(ValueError, match="no month and count"):
            method(row, month, count)


@pytest.mark.parametrize("address", [b"", bytes(4), bytes(17)])
def test_address_of_another_length_is_refused(address: bytes, gate: Gate) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        ask(gate, address=address)


# -- memory


def test_writer_leaves_its_pid_and_heartbeat(buffer: bytearray, writer: GateWriter, gate: Gate) -> None:
    writer.beat(123)
    assert (gate.writer_pid, gate.heartbeat_mono_ns, gate.generation, gate.rows) == (7, 123, 1, ROWS)
    GateWriter(buffer, pid=8, mono_ns=456)
    assert (gate.writer_pid, gate.heartbeat_mono_ns, gate.generation) == (8, 456, 2)


def test_next_writer_keeps_keys_counts_and_free_rows(
    buffer: bytearray, writer: GateWriter, gate: Gate
) -> None:
    row = writer.put(some_key(networks=[pack_network("::/0")]))
    ask(gate, address=HERE)
    successor = GateWriter(buffer, pid=8, mono_ns=0)
    assert successor.put(some_key(cap=5)) == row
    assert successor.changed() == [Usage(row, 100, NOVEMBER, 1, 0)]
    assert row not in {successor.put(some_key(number)) for number in range(1, ROWS)}


def test_read_only_memory_is_checked_and_not_opened(buffer: bytearray) -> None:
    check_gate(bytes(buffer))
    for kind in (Gate, lambda memory: GateWriter(memory, 1, 0)):
        with pytest.raises(BufferError):
            kind(bytes(buffer))


def test_closed_gate_refuses_calls(writer: GateWriter) -> None:
    writer.close()
    calls: list[Callable[[], object]] = [
        lambda: ask(writer),
        lambda: writer.admit_digest(DIGESTS[0], 0, 0),
        lambda: writer.find(DIGESTS[0]),
        lambda: writer.key(0),
        lambda: writer.usage(0),
        lambda: writer.month(0),
        lambda: writer.rows,
        lambda: writer.keys,
        lambda: writer.generation,
        lambda: writer.writer_pid,
        lambda: writer.heartbeat_mono_ns,
        lambda: writer.put(some_key()),
        lambda: writer.revoke(DIGESTS[0], 1),
        lambda: writer.remove(DIGESTS[0]),
        lambda: writer.set_others(0, 1, 1),
        lambda: writer.restore(0, 1, 1),
        writer.changed,
        lambda: writer.set_month(1, 1),
        lambda: writer.beat(0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()


def test_gate_with_another_number_of_network_lists_is_refused(buffer: bytearray) -> None:
    struct.pack_into("=I", buffer, 28, 2**20)
    with pytest.raises(LayoutError, match="recorded size"):
        check_gate(buffer)


# -- SHA-256


@pytest.mark.parametrize("portable", [True, False])
def test_hash_is_sha_256_for_every_length(portable: bool) -> None:
    chance = random.Random(2)
    for length in [*range(301), *(chance.randrange(10_000) for _ in range(200))]:
        text = chance.randbytes(length)
        assert hash_key(text, portable=portable) == hashlib.sha256(text).digest()


# -- the twin

NUMBERS = st.integers(0, ROWS + 1)
TIMES = st.integers(0, 100 * SECOND) | st.integers(0, 2**50)
MONTHS = st.sampled_from([NOVEMBER, DECEMBER, JANUARY])
NETWORKS = st.lists(
    st.sampled_from([pack_network(text) for text in ("192.0.2.0/29", "2001:db8::/61", "::/0", "192.0.2.7")]),
    max_size=3,
)
KEYS = st.builds(
    some_key,
    NUMBERS,
    account_id=st.integers(0, 3),
    plan=st.integers(0, 2),
    flags=st.integers(0, 7),
    emission_ns=st.sampled_from([0, 1, SECOND // 10, SECOND, 10 * SECOND]),
    burst=st.integers(1, 4),
    cap=st.sampled_from([0, 0, 1, 3, 10]),
    expires_s=st.sampled_from([0, 0, 0, 5, 10]),
    networks=NETWORKS.map(tuple) | st.just(()),
    revoked=st.sampled_from([False, False, False, True]),
    revision=st.integers(0, 3),
)


class GateAndTwin(RuleBasedStateMachine):
    """Any history leaves the gate and its twin with the same verdicts, the same errors and the same bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.buffers = make_buffer(), bytearray(twin.gate_size(ROWS))
        twin.format_gate(self.buffers[1], ROWS)
        self.mono_ns = 0
        self.take_over(pid=1, mono_ns=0)

    def both(self, method: str, *args: object, **named: object) -> object:
        results = []
        for gate in (self.gate, self.twin):
            try:
                results.append(getattr(gate, method)(*args, **named))
            except (ValueError, GateFull) as error:
                results.append(type(error))
        assert results[0] == results[1]
        return results[0]

    @rule(pid=st.integers(1, 2**31), mono_ns=TIMES)
    def take_over(self, pid: int, mono_ns: int) -> None:
        self.gate = GateWriter(self.buffers[0], pid, mono_ns)
        self.twin = twin.GateWriter(self.buffers[1], pid, mono_ns)

    @rule(month=MONTHS, ends=TIMES)
    def set_month(self, month: int, ends: int) -> None:
        self.both("set_month", month, ends)

    @initialize(many=st.lists(KEYS, min_size=1, max_size=ROWS), month=MONTHS, ends=TIMES)
    def begin(self, many: list[GateKey], month: int, ends: int) -> None:
        self.both("set_month", month, ends)
        for key in many:
            self.both("put", key)

    @rule(key=KEYS)
    def put(self, key: GateKey) -> None:
        self.both("put", key)

    @rule(number=NUMBERS, revision=st.integers(0, 3))
    def revoke(self, number: int, revision: int) -> None:
        self.both("revoke", DIGESTS[number], revision)

    @rule(number=NUMBERS)
    def remove(self, number: int) -> None:
        self.both("remove", DIGESTS[number])

    @rule(row=st.integers(0, ROWS), month=MONTHS, count=st.integers(0, 12))
    def set_others(self, row: int, month: int, count: int) -> None:
        self.both("set_others", row, month, count)

    @rule(row=st.integers(0, ROWS), month=MONTHS, count=st.integers(0, 12))
    def restore(self, row: int, month: int, count: int) -> None:
        self.both("restore", row, month, count)

    @rule()
    def changed(self) -> None:
        self.both("changed")

    @rule(
        numbers=st.lists(NUMBERS, min_size=1, max_size=8),
        step_ns=st.integers(-2 * SECOND, 2 * SECOND) | TIMES,
        wall_s=st.integers(0, 12),
        scope=st.sampled_from([0, SCOPE_PRICES, SCOPE_REPORTS, 6]),
        address=st.sampled_from(
            [None, HERE, THERE, pack_address("192.0.2.8"), pack_address("2001:db8:0:8::")]
        ),
        take=st.booleans(),
    )
    def admit(
        self, numbers: list[int], step_ns: int, wall_s: int, scope: int, address: bytes | None, take: bool
    ) -> None:
        self.mono_ns = max(0, self.mono_ns + step_ns)
        for number in numbers:
            key = TEXTS[number].encode()
            asked = key, self.mono_ns, wall_s, scope, address
            assert fields(self.gate.admit(*asked, take=take)) == fields(self.twin.admit(*asked, take=take))

    @invariant()
    def bytes_are_the_same(self) -> None:
        assert self.buffers[0] == self.buffers[1]

    @invariant()
    def what_is_read_is_the_same(self) -> None:
        for row in range(ROWS + 1):
            self.both("key", row)
            self.both("usage", row)
        for digest in DIGESTS:
            self.both("find", digest)


TestGateAndTwin = GateAndTwin.TestCase
TestGateAndTwin.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def fields(verdict: Verdict | twin.Verdict) -> dict[str, int]:
    return {name: getattr(verdict, name) for name in twin.Verdict._fields}


# -- a writer killed at each of its stores

STEPS: dict[str, Callable[[Any], object]] = {
    "new key": lambda w: w.put(some_key(3, cap=5, networks=(pack_network("::/0"),))),
    "other limits": lambda w: w.put(some_key(0, emission_ns=9, burst=9, cap=9, flags=PARTNER, revision=9)),
    "other networks": lambda w: w.put(some_key(1, networks=(pack_network("10.0.0.0/8"),))),
    "no networks": lambda w: w.put(some_key(1)),
    "revoke": lambda w: w.revoke(DIGESTS[0], 7),
    "remove": lambda w: w.remove(DIGESTS[1]),
    "remove from a cluster": lambda w: w.remove(CLUSTER[0]),
    "remove and take again": lambda w: (
        w.remove(DIGESTS[1]),
        w.remove(DIGESTS[0]),
        w.put(some_key(1, cap=1)),
    ),
}


def history() -> bytearray:
    buffer = make_buffer()
    with GateWriter(buffer, pid=1, mono_ns=0) as writer:
        writer.set_month(NOVEMBER, 0)
        writer.put(some_key(0, emission_ns=SECOND, burst=3, cap=7))
        writer.put(some_key(1, networks=(pack_network("192.0.2.0/24"),)))
        writer.put(some_key(2))
        for number, digest in enumerate(CLUSTER):
            writer.put(GateKey(digest, number))
        ask(writer, 0)
        ask(writer, 1, address=HERE)
    return buffer


def killed_at_each_store(step: Callable[[Any], object]) -> Iterator[bytearray]:
    """The memory as a writer leaves it that dies before its first store, its second, … and after its last."""
    for stores in range(1000):
        buffer = history()
        writer = twin.GateWriter(buffer, pid=2, mono_ns=0)
        writer.stores_left = stores
        try:
            step(writer)
        except twin.Killed:
            yield buffer
            continue
        yield buffer
        return


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_writer_killed_at_any_store_leaves_a_gate_that_its_successor_makes_whole(
    step: Callable[[Any], object],
) -> None:
    *_, finished = killed_at_each_store(step)
    before, after = words(history()), words(finished)
    for buffer in killed_at_each_store(step):
        for (row, name), value in words(buffer).items():
            assert value in (before[row, name], after[row, name], None)  # None: not found, in between
        # Nobody else's key suffers.
        assert ask(Gate(buffer), 2).code == Gate(buffer).admit_digest(CLUSTER[1], 0, 0).code == ADMITTED
        successor = GateWriter(buffer, pid=3, mono_ns=0)
        assert_whole(buffer)
        step(successor)
        assert_whole(buffer)
        assert words(buffer) == words(finished)


def words(buffer: bytearray) -> dict[tuple[int, str], object]:
    """What judges a key, word by word; nothing for a key that is not found."""
    gate = Gate(buffer)
    found: dict[tuple[int, str], object] = {}
    for number, digest in enumerate([*DIGESTS, *CLUSTER]):
        row = gate.find(digest)
        key = None if row is None else gate.key(row)
        found[number, "rate"] = key and (key.emission_ns, key.burst)
        found[number, "cap"] = key and key.cap
        found[number, "status"] = key and (key.flags, key.expires_s, key.revoked)
        found[number, "networks"] = key and key.networks
    return found


def assert_whole(buffer: bytearray) -> None:
    """Every taken row is found, every entry of the index leads to one, no list of networks is shared."""
    gate = twin.Gate(buffer)
    parts = twin.Parts(ROWS)
    taken = [row for row in range(ROWS) if buffer[parts.rows + row * twin.ROW_BYTES + twin.STATUS]]
    entries = [struct.unpack_from("=Q", buffer, parts.index + 8 * place)[0] for place in range(parts.entries)]
    assert sorted((entry & twin.LOW) - 1 for entry in entries if entry) == taken
    assert [gate.find(gate.key(row).digest) for row in taken] == taken
    assert gate.keys == len(taken)
    at = (parts.rows + row * twin.ROW_BYTES + twin.NETWORKS for row in taken)
    used = [number for place in at if (number := struct.unpack_from("=I", buffer, place)[0])]
    assert len(set(used)) == len(used)


def test_index_that_has_seen_many_keys_come_and_go_finds_all_that_are_there() -> None:
    buffer = make_buffer(50)
    writer, chance, there = GateWriter(buffer, 1, 0), random.Random(3), set[bytes]()
    for turn in range(20_000):
        digest = hashlib.sha256(turn.to_bytes(8)).digest()
        if len(there) < 50 and chance.random() < 0.6:
            writer.put(GateKey(digest, turn))
            there.add(digest)
        elif there:
            gone = chance.choice(sorted(there))
            writer.remove(gone)
            there.remove(gone)
            assert writer.find(gone) is None
    assert all(writer.find(digest) is not None for digest in there)
    parts = twin.Parts(50)
    entries = memoryview(buffer)[parts.index : parts.lists].cast("Q")
    assert sum(entry != 0 for entry in entries) == len(there)
