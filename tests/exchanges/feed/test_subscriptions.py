"""The book of one connection's symbols."""

import pytest

from exchanges.feed.quirks import AckRule, Quirks
from exchanges.feed.subscriptions import RETRY_CAP_S, RETRY_FIRST_S, Subscriptions
from exchanges.feed.templates import Frame

SECOND = 10**9
CONFIRMING = Quirks(acks=(AckRule(match={"ok": True}),), confirm_s=30)


def book(*symbols: str, quirks: Quirks = CONFIRMING) -> Subscriptions:
    subscriptions = Subscriptions(symbols, quirks)
    subscriptions.asked(Frame("", symbols), SECOND)
    return subscriptions


def states(subscriptions: Subscriptions) -> dict[str, str]:
    return {state.symbol: state.state for state in subscriptions}


def test_symbols_wait_until_they_are_asked() -> None:
    subscriptions = Subscriptions(["A", "B"], Quirks())
    assert states(subscriptions) == {"A": "waiting", "B": "waiting"}
    subscriptions.asked(Frame("", ("A",)), 1)
    subscriptions.asked(Frame("heartbeats"), 1)
    assert states(subscriptions) == {"A": "asked", "B": "waiting"}


def test_symbol_is_found_in_any_case() -> None:
    subscriptions = book("btcusdt")
    assert subscriptions.find("BTCUSDT") is subscriptions.find("btcusdt") is subscriptions.states["btcusdt"]
    assert subscriptions.find("ETHUSDT") is None


def test_adding_and_dropping() -> None:
    subscriptions = book("A")
    assert subscriptions.add(["A", "b", "b"]) == ["b"]
    assert subscriptions.find("B") is not None
    assert subscriptions.drop(["b", "b", "x"]) == ["b"]
    assert subscriptions.find("B") is None


def test_unnamed_ack_confirms_the_oldest_request() -> None:
    subscriptions = book("A", "B")
    subscriptions.add(["C"])
    subscriptions.asked(Frame("", ("C",)), 2)
    subscriptions.acknowledged(None)
    assert states(subscriptions) == {"A": "acked", "B": "acked", "C": "asked"}
    subscriptions.acknowledged(None)
    subscriptions.acknowledged(None)
    assert states(subscriptions)["C"] == "acked"


def test_named_ack_confirms_only_its_symbols() -> None:
    subscriptions = book("A", "B")
    subscriptions.acknowledged(["a"])
    assert states(subscriptions) == {"A": "acked", "B": "asked"}


def test_ack_of_a_dropped_symbol_confirms_no_other() -> None:
    subscriptions = book("A", "B")
    subscriptions.drop(["A"])
    subscriptions.acknowledged(["A"])
    subscriptions.acknowledged([])
    assert states(subscriptions) == {"B": "asked"}
    subscriptions.acknowledged(None)
    assert states(subscriptions) == {"B": "acked"}


def test_ack_of_a_live_symbol_leaves_it_live() -> None:
    subscriptions = book("A")
    subscriptions.states["A"].state = "live"
    subscriptions.asked(Frame("", ("A",)), 2)
    subscriptions.acknowledged(["A"])
    assert states(subscriptions) == {"A": "live"}


def test_symbol_refusal_touches_only_its_symbol() -> None:
    subscriptions = book("A", "B")
    assert subscriptions.refused("B", "no such", whole=False, already=False, mono_ns=SECOND) == []
    assert states(subscriptions) == {"A": "asked", "B": "refused"}
    assert subscriptions.states["B"].detail == "no such"


def test_whole_refusal_asks_for_the_others_without_the_bad_one() -> None:
    subscriptions = book("A", "B", "C")
    assert subscriptions.refused("B", "", whole=True, already=False, mono_ns=SECOND) == [["A", "C"]]
    assert states(subscriptions)["B"] == "refused"


def test_whole_refusal_of_a_lone_symbol_leaves_nothing_to_ask() -> None:
    assert book("A").refused("A", "", whole=True, already=False, mono_ns=SECOND) == []


def test_unnamed_whole_refusal_is_split_until_one_is_left() -> None:
    subscriptions = book("A", "B")
    assert subscriptions.refused("", "bad", whole=True, already=False, mono_ns=SECOND) == [["A"], ["B"]]
    subscriptions.asked(Frame("", ("A",)), 2)
    subscriptions.asked(Frame("", ("B",)), 2)
    assert subscriptions.refused("", "bad", whole=True, already=False, mono_ns=SECOND) == []
    subscriptions.acknowledged(None)
    assert states(subscriptions) == {"A": "refused", "B": "acked"}


def test_refusal_that_names_nothing_and_nobody_asked() -> None:
    subscriptions = Subscriptions(["A"], Quirks())
    assert subscriptions.refused("", "", whole=True, already=False, mono_ns=0) == []
    assert subscriptions.refused("X", "", whole=False, already=False, mono_ns=0) == []
    assert subscriptions.refused("A", "", whole=True, already=False, mono_ns=0) == []


def test_refusal_passes_over_symbols_dropped_meanwhile() -> None:
    subscriptions = book("A", "B", "C")
    subscriptions.drop(["C"])
    assert subscriptions.refused("A", "", whole=True, already=False, mono_ns=0) == [["B"]]


@pytest.mark.parametrize(("before", "after"), [("asked", "acked"), ("live", "live")])
def test_already_subscribed_is_nothing_wrong(before: str, after: str) -> None:
    subscriptions = book("A", "B")
    subscriptions.states["A"].state = before  # type: ignore[assignment]  # one of the states
    assert subscriptions.refused("A", "", whole=True, already=True, mono_ns=0) == [["B"]]
    assert subscriptions.states["A"].state == after


def test_refused_symbol_is_retried_alone_with_doubling_pauses() -> None:
    subscriptions = book("A", "B")
    subscriptions.acknowledged(["B"])
    now, pauses = SECOND, []
    for _ in range(9):
        subscriptions.refused("A", "", whole=False, already=False, mono_ns=now)
        retry = subscriptions.next_retry()
        assert retry is not None
        pauses.append((retry - now) // SECOND)
        assert subscriptions.due(retry - 1) == []
        assert subscriptions.due(retry) == [["A"]]
        now = retry
        subscriptions.queued(["A"])
        subscriptions.asked(Frame("", ("A",)), now)
    assert pauses[:3] == [RETRY_FIRST_S, 2 * RETRY_FIRST_S, 4 * RETRY_FIRST_S]
    assert pauses[-1] == RETRY_CAP_S


def test_confirmed_symbol_starts_its_pauses_over() -> None:
    subscriptions = book("A")
    subscriptions.refused("A", "", whole=False, already=False, mono_ns=SECOND)
    subscriptions.acknowledged(["A"])
    assert (subscriptions.states["A"].refusals, subscriptions.states["A"].detail) == (0, "")
    assert subscriptions.next_retry() is None


def test_what_waits_to_be_sent_is_not_due_again() -> None:
    subscriptions = book("A")
    subscriptions.refused("A", "", whole=False, already=False, mono_ns=SECOND)
    assert subscriptions.due(10**15) == [["A"]]
    subscriptions.queued(["A", "unknown"])
    assert subscriptions.due(10**15) == []
    assert subscriptions.next_retry() is None


def test_unconfirmed_symbol_is_asked_again_with_growing_pauses() -> None:
    subscriptions = book("A")
    assert subscriptions.due(31 * SECOND - 1) == []
    assert subscriptions.due(31 * SECOND) == [["A"]]
    subscriptions.asked(Frame("", ("A",)), 31 * SECOND)
    assert subscriptions.next_retry() == (31 + 60) * SECOND


@pytest.mark.parametrize("heard", [True, False])
def test_data_is_proof_enough(heard: bool) -> None:
    subscriptions = book(
        "A", quirks=CONFIRMING if heard else Quirks()
    )  # without ack rules: nothing to wait for
    subscriptions.states["A"].last_tick_mono_ns = SECOND if heard else 0
    assert subscriptions.due(10**15) == []


def test_requests_never_answered_are_bounded() -> None:
    subscriptions = book("A", "B")
    for _ in range(1000):
        subscriptions.asked(Frame("", ("A", "B")), SECOND)
    again = [subscriptions.refused("", "", whole=True, already=False, mono_ns=0) for _ in range(1000)]
    assert again == [[["A"], ["B"]]] * 256 + [[]] * 744
