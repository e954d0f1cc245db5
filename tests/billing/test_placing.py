"""Keys of the database in the gate's numbers, where 0 has another meaning."""

import pytest

from billing._gate import (
    MAX_BURST,
    MAX_COUNT,
    PARTNER,
    SCOPE_PRICES,
    SCOPE_REPORTS,
    Gate,
    GateKey,
)
from billing.placing import MOST_SECONDS, Placer, gate_key, group_of
from billing.tally import Tally
from tests.billing.gates import make_memory, make_row, open_writer

BOTH = SCOPE_PRICES | SCOPE_REPORTS
CASES: list[tuple[dict[str, object], dict[str, object]]] = [
    ({}, {"flags": BOTH, "emission_ns": 0, "burst": 0, "cap": 0, "expires_s": 0, "networks": ()}),
    ({"requests_per_second": 10, "burst": 20}, {"emission_ns": 100_000_000, "burst": 20}),
    ({"requests_per_second": 2_000_000_000, "burst": 1}, {"emission_ns": 1}),  # not 0: that is no limit
    ({"requests_per_second": 1, "burst": 10**9}, {"burst": MAX_BURST}),
    ({"requests_per_month": 1_000}, {"cap": 1_000, "flags": BOTH}),
    ({"requests_per_month": 2**60}, {"cap": MAX_COUNT}),
    ({"requests_per_month": 0}, {"flags": SCOPE_REPORTS}),
    ({"partner": True}, {"flags": PARTNER | BOTH}),
    ({"scope_prices": False}, {"flags": SCOPE_REPORTS}),
    ({"scope_reports": False}, {"flags": SCOPE_PRICES}),
    ({"expires_s": 1_900_000_000}, {"expires_s": 1_900_000_000}),
    ({"expires_s": 0}, {"expires_s": 1}),
    ({"expires_s": -5}, {"expires_s": 1}),
    ({"expires_s": 2**40}, {"expires_s": MOST_SECONDS}),
    ({"networks": ("::1/128",)}, {"networks": ((bytes(15) + b"\1", 128),)}),
    ({"networks": ("::1/128",), "revoked": True}, {"networks": (), "revoked": True}),
]


@pytest.mark.parametrize(("columns", "expected"), CASES)
def test_row_in_the_gate_s_numbers(columns: dict[str, object], expected: dict[str, object]) -> None:
    key = gate_key(make_row(1, **columns))
    assert {name: getattr(key, name) for name in expected} == expected


@pytest.mark.parametrize("columns", [columns for columns, _ in CASES])
def test_every_row_fits_the_gate(columns: dict[str, object]) -> None:
    with open_writer(make_memory()) as gate:
        gate.put(gate_key(make_row(1, **columns)))


def test_keys_of_a_customer_are_one_group_and_others_are_alone() -> None:
    assert group_of(make_row(1, account_id=9, shares_month=True)) == 9
    assert group_of(make_row(1, account_id=9)) == -1


def test_reading_anew_replaces_rows_with_higher_numbers() -> None:
    memory = make_memory()
    with open_writer(memory) as writer, Gate(memory) as gate:
        placer = Placer(writer, Tally())
        placer.begin()
        placer.put(make_row(1, revision=900, requests_per_month=5))
        placer.put(make_row(1, revision=3, requests_per_month=7))
        assert gate.key(0).cap == 5, "an older row changes nothing"
        placer.begin()
        placer.put(make_row(1, revision=3, requests_per_month=7))
        assert gate.key(0).cap == 7
    with open_writer(memory) as writer:
        placer = Placer(writer, Tally())
        placer.begin()
        placer.put(make_row(1, revision=1, requests_per_month=8))
        assert writer.key(0).cap == 8, "nor does a number that the last keyring has seen"


def test_what_was_not_seen_leaves_the_gate_and_makes_room() -> None:
    extra = GateKey(b"x" * 32, key_id=1 << 62)
    with open_writer(make_memory(rows=3)) as gate:
        placer = Placer(gate, Tally(), extra=[extra])
        placer.begin()
        for key_id in (1, 2, 3):
            placer.put(make_row(key_id))
        assert list(placer.left_out) == [3]
        placer.sweep({key_id: make_row(key_id).digest for key_id in (1, 3)})
        placer.retry()
        assert placer.left_out == {}
        found = {gate.key(row).key_id for row in range(3)}
        assert found == {1, 3, extra.key_id}


def test_extra_rows_come_back_where_an_old_database_s_rows_had_taken_their_place() -> None:
    memory = make_memory(rows=2)
    with open_writer(memory) as gate:
        placer = Placer(gate, Tally())
        placer.begin()
        placer.put(make_row(1))
        placer.put(make_row(2))
    extra = GateKey(b"x" * 32, key_id=1 << 62)
    with open_writer(memory) as gate:
        placer = Placer(gate, Tally(), extra=[extra])
        placer.begin()
        assert gate.find(extra.digest) is None
        placer.put(make_row(1))
        placer.sweep({1: make_row(1).digest})
        assert gate.find(extra.digest) is not None
