"""Keys of the database in the gate's numbers, where 0 has another meaning."""

from collections.abc import Iterable

import pytest

from billing._gate import MAX_BURST, MAX_COUNT, PARTNER, SCOPE_PRICES, SCOPE_REPORTS, Gate, GateKey
from billing._gate_writer import GateWriter
from billing.placing import MOST_SECONDS, Placer, ended_s, gate_key, group_of
from billing.rows import KeyRow
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
        placer.settle()
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


# Ended keys make way

DAY_S = 86_400
NOW_S = 1_000 * DAY_S


def make_placer(gate: GateWriter, tally: Tally | None = None, now_s: int = NOW_S) -> Placer:
    placer = Placer(gate, tally or Tally(), wall_ns=lambda: now_s * 10**9)
    placer.begin()
    return placer


def place(placer: Placer, rows: Iterable[KeyRow]) -> None:
    for row in rows:
        placer.put(row)
    placer.settle()


def revoked(key_id: int, days_ago: int, **columns: object) -> KeyRow:
    return make_row(key_id, revoked=True, revoked_s=NOW_S - days_ago * DAY_S, **columns)


def ids(gate: GateWriter) -> set[int]:
    found = set()
    for row in range(gate.rows):
        try:
            found.add(gate.key(row).key_id)
        except ValueError:
            continue
    return found


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, MOST_SECONDS),
        ({"expires_s": 5}, 5),
        ({"revoked": True, "revoked_s": 7}, 7),
        ({"revoked": True, "revoked_s": 7, "expires_s": 5}, 5),
        ({"revoked": True}, NOW_S),  # the user is not active
        ({"revoked": True, "expires_s": NOW_S + 9}, NOW_S),
    ],
)
def test_key_ends_when_it_was_first_refused(columns: dict[str, object], expected: int) -> None:
    assert ended_s(make_row(1, **columns), NOW_S) == expected


def test_live_keys_are_first_and_ended_ones_get_what_is_left_over_the_newest_first() -> None:
    with open_writer(make_memory(rows=20)) as gate:
        placer = make_placer(gate)
        place(placer, [*(revoked(key_id, key_id) for key_id in range(1, 21)), *map(make_row, range(21, 36))])
        assert ids(gate) == {1, 2, 3, *range(21, 36)}, "a tenth stays free"
        assert placer.left_out == {}
        place(placer, map(make_row, range(36, 38)))
        assert ids(gate) == {1, 2, 3, *range(21, 38)}, "there was room for new keys"


def test_live_key_takes_the_row_of_the_one_that_ended_first() -> None:
    with open_writer(make_memory(rows=4)) as gate:
        placer = make_placer(gate)
        place(placer, map(make_row, range(1, 5)))
        place(placer, [revoked(2, 5), make_row(3, expires_s=NOW_S - 9 * DAY_S), revoked(4, 7)])
        for new, expected in ((5, {1, 2, 4, 5}), (6, {1, 2, 5, 6}), (7, {1, 5, 6, 7})):
            place(placer, [make_row(new)])
            assert ids(gate) == expected
        place(placer, [make_row(8)])
        assert (ids(gate), list(placer.left_out)) == ({1, 5, 6, 7}, [8]), "nobody who is live makes way"


def test_key_that_is_live_again_makes_way_for_nobody() -> None:
    with open_writer(make_memory(rows=2)) as gate:
        placer = make_placer(gate)
        place(placer, [make_row(1, revision=1), make_row(2, revision=1)])
        place(placer, [make_row(1, revoked=True, revision=2)])
        placer.put(revoked(3, 1, revision=2))  # and the reading ends here, by an error
        place(placer, [make_row(1, revision=3), make_row(3, revision=3), make_row(4, revision=3)])
        assert (ids(gate), sorted(placer.left_out)) == ({1, 2}, [3, 4])


def test_reading_that_broke_off_leaves_nothing_of_what_is_read_again() -> None:
    with open_writer(make_memory(rows=20)) as gate:
        placer = make_placer(gate)
        placer.put(revoked(1, 1, revision=1))
        place(placer, [make_row(1, revision=2)])
        place(placer, map(make_row, range(2, 30)))
        assert 1 in ids(gate), "it is live, and makes way for nobody"


def test_list_of_networks_is_taken_from_an_ended_key_that_has_one() -> None:
    bound = {"networks": ("192.0.2.0/24",)}
    with open_writer(make_memory(rows=16)) as gate:  # lists for ten
        placer = make_placer(gate)
        place(placer, [make_row(key_id, **bound) for key_id in range(1, 11)])
        place(placer, [make_row(11), make_row(12), make_row(11, expires_s=1)])
        place(placer, [make_row(3, **bound, expires_s=NOW_S - 1)])
        place(placer, [make_row(12, **bound)])
        assert placer.left_out == {}
        assert ids(gate) == {1, 2, *range(4, 13)}


def test_what_a_key_without_a_row_has_used_stays_its_account_s_and_comes_back_with_it() -> None:
    shared = {"account_id": 70, "shares_month": True}
    with open_writer(make_memory(rows=2)) as gate:
        tally = Tally()
        tally.begin(202611)
        placer = make_placer(gate, tally)
        place(placer, [make_row(1, **shared), make_row(2, **shared)])
        tally.count(1, 202611, 30)
        place(placer, [make_row(1, revoked=True, **shared), make_row(3, **shared)])
        assert ids(gate) == {2, 3}
        assert {(gate.key(due.row).key_id, due.used) for due in tally.due()} == {(2, 30), (3, 30)}
        place(placer, [make_row(3, revoked=True, **shared), make_row(1, **shared)])
        assert gate.usage(gate.find(make_row(1).digest) or 0).counted == 30


def test_live_keys_without_a_place_are_told_once_a_minute_with_their_final_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_ns = [0]
    with open_writer(make_memory(rows=2)) as gate:
        placer = Placer(gate, Tally(), mono_ns=lambda: now_ns[0])
        placer.begin()
        place(placer, [*map(make_row, range(1, 6)), revoked(6, 1)])
        for now_ns[0] in (0, 10 * 10**9, 61 * 10**9):
            placer.complain()
    assert caplog.text.count("3 live keys are not in the gate") == 2
