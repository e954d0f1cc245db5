"""The tally against a plain sum over everything that was ever said."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from billing.tally import Others, Tally

NOW, NEXT, BEFORE = 202612, 202701, 202611


def make_tally(*placed: tuple[int, int]) -> Tally:
    """Make a tally of keys, each given with its group; a key's row is its number."""
    tally = Tally()
    tally.begin(NOW)
    for key_id, group in placed:
        tally.place(key_id, row=key_id, group=group)
    list(tally.due())
    return tally


def due(tally: Tally) -> dict[int, int]:
    return {row: used for row, _, used in tally.due()}


def test_other_nodes_are_others() -> None:
    tally = make_tally((1, -1))
    tally.count(1, NOW, 5)
    assert list(tally.due()) == [Others(1, NOW, 0)]
    tally.told("B", NOW, {1: 7})
    tally.told("C", NOW, {1: 2})
    assert list(tally.due()) == [Others(1, NOW, 9)]


def test_keys_of_one_account_are_others_to_each_other_on_this_node_too() -> None:
    tally = make_tally((1, 70), (2, 70), (3, 80))
    tally.count(1, NOW, 5)
    tally.count(2, NOW, 3)
    tally.told("B", NOW, {2: 4, 3: 100})
    assert due(tally) == {1: 7, 2: 9, 3: 100}


def test_total_that_is_repeated_or_late_changes_nothing() -> None:
    tally = make_tally((1, -1))
    tally.told("B", NOW, {1: 7})
    assert due(tally) == {1: 7}
    for total in (7, 3, 0):
        tally.told("B", NOW, {1: total})
    assert due(tally) == {}


def test_database_and_nodes_tell_of_the_same_requests() -> None:
    tally = make_tally((1, -1))
    tally.saved(NOW, {1: 9})
    assert due(tally) == {1: 9}
    tally.told("B", NOW, {1: 8})
    assert due(tally) == {1: 9}
    tally.told("C", NOW, {1: 2})
    assert due(tally) == {1: 10}


def test_new_key_of_an_account_begins_with_what_the_others_have_used() -> None:
    tally = make_tally((1, 70))
    tally.count(1, NOW, 1_000)
    tally.place(2, row=2, group=70)
    assert due(tally) == {1: 0, 2: 1_000}


def test_revoked_key_still_counts_towards_its_account() -> None:
    tally = make_tally((1, 70), (2, 70))
    tally.count(1, NOW, 600)
    tally.place(1, row=1, group=70, live=False)
    assert due(tally) == {2: 600}


def test_key_that_changes_its_group_takes_its_count_along() -> None:
    tally = make_tally((1, -1), (2, 70))
    tally.count(1, NOW, 10)
    tally.count(2, NOW, 5)
    tally.place(1, row=1, group=70)
    assert due(tally) == {1: 5, 2: 10}
    tally.place(1, row=1, group=-1)
    assert due(tally) == {1: 0, 2: 0}


def test_what_was_heard_before_a_key_is_known_counts_once_it_is() -> None:
    tally = make_tally()
    tally.told("B", NOW, {1: 7})
    tally.place(1, row=4, group=-1)
    assert due(tally) == {4: 7}


def test_new_month_begins_with_what_nodes_ahead_have_told_of_it() -> None:
    tally = make_tally((1, -1), (2, -2))
    tally.count(1, NOW, 100)
    tally.told("B", NOW, {1: 50})
    tally.told("B", NEXT, {1: 3})
    assert due(tally) == {1: 50}
    tally.begin(NEXT)
    assert list(tally.due()) == [Others(1, NEXT, 3), Others(2, NEXT, 0)]


def test_months_that_are_far_away_are_not_kept() -> None:
    tally = make_tally((1, -1))
    tally.told("B", 203001, {1: 9})
    tally.count(1, BEFORE - 1, 9)
    tally.begin(203001)
    assert due(tally) == {1: 0}


_what = st.one_of(
    st.tuples(st.just("place"), st.integers(1, 4), st.sampled_from([70, 80])),
    st.tuples(st.just("forget"), st.integers(1, 4), st.just(0)),
    st.tuples(st.sampled_from(["own", "B", "C", "saved"]), st.integers(1, 4), st.integers(0, 20)),
)


@given(st.lists(_what, max_size=60))
def test_history_adds_up_as_the_plain_sum_does(history: list[tuple[str, int, int]]) -> None:
    tally = make_tally()
    groups: dict[int, int] = {}
    said: defaultdict[str, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    heard: dict[int, int] = {}
    for what, key_id, number in history:
        if what == "place":
            tally.place(key_id, row=key_id, group=number)
            groups[key_id] = number
        elif what == "forget":
            tally.forget(key_id)
            groups.pop(key_id, None)
        else:
            said[what][key_id] = max(said[what][key_id], number)
            if what == "own":
                tally.count(key_id, NOW, number)
            elif what == "saved":
                tally.saved(NOW, {key_id: number})
            else:
                tally.told(what, NOW, {key_id: number})
        heard.update(due(tally))
    for key_id, group in groups.items():
        everything = sum(
            said["own"][one] + max(said["B"][one] + said["C"][one], said["saved"][one])
            for one in groups
            if groups[one] == group
        )
        assert heard[key_id] == everything - said["own"][key_id]
