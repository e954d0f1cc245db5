"""Which records are sent, sent again and let go of."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.packing import MOST_DOUBLINGS, PATIENCE_NS, Packing, Part, gaps
from telemetry.parameters import ShipperParameters

ONE, TWO = ("BeastMain", "1-100"), ("BeastMain", "2-200")
MS = 1_000_000
PARAMETERS = ShipperParameters(sqs_batch_size=100, sqs_flush_ms=1_000, sqs_buffer_size=1_000)


def make_packing(end: int = 0, *, final: bool = False, **changes: int) -> Packing:
    """Make a packing that knows one segment, of which the ledger has nothing."""
    options = {name: getattr(PARAMETERS, name) for name in PARAMETERS.__slots__} | changes
    packing = Packing(ShipperParameters(**options))
    packing.note(ONE, end=end, final=final, now_ns=0)
    packing.note_ledger(ONE, [], None, 0)
    return packing


def send_all(packing: Packing, now_ns: int, *, flush: bool = False) -> list[Part]:
    parts = packing.plan(now_ns, flush=flush)
    for part in parts:
        packing.sent(part, now_ns)
    return parts


def places(parts: list[Part]) -> list[tuple[int, int]]:
    return [(part.start, part.end) for part in parts]


# -- cutting


def test_full_envelopes_go_at_once_and_the_rest_waits_for_more() -> None:
    packing = make_packing(250)
    assert send_all(packing, 0) == [Part(ONE, 0, 100, False), Part(ONE, 100, 200, False)]
    assert send_all(packing, 0) == []


def test_rest_goes_when_it_has_waited_long_enough() -> None:
    packing = make_packing(50)
    assert send_all(packing, 999 * MS) == []
    assert send_all(packing, 1_000 * MS) == [Part(ONE, 0, 50, False)]


def test_records_that_come_later_wait_from_when_they_came() -> None:
    packing = make_packing(50)
    send_all(packing, 1_000 * MS)
    packing.note(ONE, end=60, final=False, now_ns=1_500 * MS)
    assert send_all(packing, 2_499 * MS) == []
    assert send_all(packing, 2_500 * MS) == [Part(ONE, 50, 60, False)]


def test_what_a_full_envelope_leaves_waits_from_its_own_coming() -> None:
    packing = make_packing(90)
    packing.note(ONE, end=130, final=False, now_ns=900 * MS)
    assert places(send_all(packing, 900 * MS)) == [(0, 100)]
    assert send_all(packing, 1_899 * MS) == []
    assert places(send_all(packing, 1_900 * MS)) == [(100, 130)]


def test_flush_lets_nothing_wait() -> None:
    assert places(make_packing(50).plan(0, flush=True)) == [(0, 50)]


def test_final_segment_does_not_wait_and_its_last_part_says_so() -> None:
    packing = make_packing(150, final=True)
    assert packing.plan(0) == [Part(ONE, 0, 100, False), Part(ONE, 100, 150, True)]


def test_end_that_becomes_known_after_the_last_record_is_sent_by_itself() -> None:
    packing = make_packing(100)
    send_all(packing, 0)
    packing.note(ONE, end=100, final=True, now_ns=MS)
    assert send_all(packing, MS) == [Part(ONE, 100, 100, True)]
    assert send_all(packing, MS) == []


def test_segment_without_records_sends_its_end() -> None:
    assert make_packing(0, final=True).plan(0) == [Part(ONE, 0, 0, True)]
    assert make_packing(0).plan(10**12, flush=True) == []


def test_segments_are_sent_in_the_order_in_which_they_were_noted() -> None:
    packing = make_packing(100)
    packing.note(TWO, end=100, final=False, now_ns=0)
    packing.note_ledger(TWO, [], None, 0)
    assert [part.identity for part in packing.plan(0)] == [ONE, TWO]


# -- the bound


def test_no_more_is_on_its_way_than_the_buffer_holds() -> None:
    packing = make_packing(5_000, sqs_buffer_size=250)
    assert places(send_all(packing, 0)) == [(0, 100), (100, 200)]
    assert packing.on_way(0) == 200
    assert send_all(packing, 0) == []
    packing.note_ledger(ONE, [(0, 100)], None, MS)
    assert places(send_all(packing, MS)) == [(200, 300)]


def test_what_never_arrives_fills_the_buffer_only_as_long_as_it_may_arrive() -> None:
    packing = make_packing(100, sqs_buffer_size=100)
    packing.note(TWO, end=100, final=False, now_ns=0)
    packing.note_ledger(TWO, [], None, 0)
    assert [part.identity for part in send_all(packing, 0)] == [ONE]
    packing.note_ledger(ONE, [], None, PATIENCE_NS)
    assert [part.identity for part in send_all(packing, PATIENCE_NS)] == [TWO]


def test_further_segments_are_wanted_while_the_known_ones_would_not_fill_the_buffer() -> None:
    assert make_packing(999).wants_more
    packing = make_packing(2_000)
    assert not packing.wants_more
    send_all(packing, 0)
    assert not packing.wants_more
    packing.note_ledger(ONE, [(0, 1_000)], None, 1)
    send_all(packing, 1)
    assert packing.wants_more


# -- the ledger


def test_nothing_is_sent_before_the_ledger_was_asked() -> None:
    packing = Packing(PARAMETERS)
    packing.note(ONE, end=100, final=True, now_ns=0)
    assert packing.plan(0) == []
    assert packing.to_ask() == [ONE]
    packing.note_ledger(ONE, [], None, 0)
    assert places(packing.plan(0)) == [(0, 100)]


def test_only_what_the_ledger_lacks_is_sent_after_a_restart() -> None:
    packing = Packing(PARAMETERS)
    packing.note(ONE, end=500, final=False, now_ns=0)
    packing.note_ledger(ONE, [(0, 130), (200, 500)], None, 0)
    assert places(packing.plan(0)) == [(130, 200)]


def test_part_that_the_ledger_lacks_is_sent_again_after_a_minute_and_not_before() -> None:
    packing = make_packing(100)
    send_all(packing, 0)
    packing.note_ledger(ONE, [], None, PATIENCE_NS - 1)
    assert packing.plan(PATIENCE_NS - 1) == []
    packing.note_ledger(ONE, [], None, PATIENCE_NS)
    assert packing.plan(PATIENCE_NS) == [Part(ONE, 0, 100, False)]


def test_nothing_is_sent_again_while_the_ledger_cannot_be_asked() -> None:
    packing = make_packing(100)
    send_all(packing, 0)
    assert packing.plan(100 * PATIENCE_NS) == []


def test_small_parts_that_were_lost_are_joined() -> None:
    packing = make_packing(10)
    send_all(packing, 0, flush=True)
    packing.note(ONE, end=30, final=False, now_ns=1)
    send_all(packing, 1, flush=True)
    packing.note_ledger(ONE, [], None, PATIENCE_NS + 1)
    assert places(packing.plan(PATIENCE_NS + 1)) == [(0, 30)]


def test_patience_doubles_while_nothing_arrives_and_starts_anew_when_something_does() -> None:
    packing = make_packing(100)
    now_ns = 0
    for turn in range(MOST_DOUBLINGS + 3):
        send_all(packing, now_ns)
        patience_ns = PATIENCE_NS << min(turn, MOST_DOUBLINGS)
        packing.note_ledger(ONE, [], None, now_ns + patience_ns - 1)
        assert packing.plan(now_ns + patience_ns - 1) == []
        now_ns += patience_ns
        packing.note_ledger(ONE, [], None, now_ns)
        assert places(packing.plan(now_ns)) == [(0, 100)]
    packing.note_ledger(ONE, [(0, 50)], None, now_ns)
    send_all(packing, now_ns)
    packing.note_ledger(ONE, [(0, 50)], None, now_ns + PATIENCE_NS)
    assert places(packing.plan(now_ns + PATIENCE_NS)) == [(50, 100)]


def test_one_part_a_minute_is_sent_while_nothing_at_all_arrives() -> None:
    packing = make_packing(300)
    assert len(send_all(packing, 0)) == 3
    packing.note(TWO, end=1, final=False, now_ns=1)
    packing.note_ledger(TWO, [], None, 1)
    tried: list[Part] = []
    for minute in range(1, 16):
        now_ns = minute * PATIENCE_NS
        for identity in (ONE, TWO):
            packing.note_ledger(identity, [], None, now_ns)
        sent = send_all(packing, now_ns, flush=True)
        assert len(sent) <= 1
        tried += sent
        packing.note(TWO, end=1 + min(minute, 3), final=False, now_ns=now_ns)
        assert send_all(packing, now_ns + PATIENCE_NS - 1, flush=True) == []
    assert tried[0] == Part(TWO, 0, 1, False)  # it was never sent
    assert {(0, 100), (100, 200), (200, 300)} <= set(places(tried))
    packing.note(TWO, end=10, final=False, now_ns=now_ns)
    packing.note_ledger(ONE, [(0, 100)], None, now_ns + 1)
    assert places(packing.plan(now_ns + 1, flush=True))[-1][1] == 10


class Road:
    """A segment's way through a queue into the ledger: a record a second, the constants of the product."""

    def __init__(self) -> None:
        self.packing = make_packing()
        self.second = 0
        self.there: set[int] = set()
        self._queue: list[tuple[int, Part]] = []  # the second in which its records arrive

    def pass_second(self, *, takes: bool = True, delay_s: int = 2, poison: int | None = None) -> None:
        self.second += 1
        now_ns = self.second * 1000 * MS
        for due_s, part in self._queue:
            if due_s <= self.second and not (poison is not None and part.start <= poison < part.end):
                self.there |= set(range(part.start, part.end))
        self._queue = [(due_s, part) for due_s, part in self._queue if due_s > self.second]
        self.packing.note(ONE, end=self.second, final=False, now_ns=now_ns)
        self.packing.note_ledger(ONE, [(place, place + 1) for place in sorted(self.there)], None, now_ns)
        for part in send_all(self.packing, now_ns) if takes else ():
            self._queue.append((self.second + delay_s, part))

    def lose_queue(self) -> None:
        self._queue = []

    def oldest_s(self) -> int:
        """Say how long the oldest record has waited that is not there."""
        return self.second - min(set(range(self.second)) - self.there, default=self.second)


def test_queue_that_was_lost_with_what_was_in_it_is_made_good_within_minutes() -> None:
    road = Road()
    while road.second < 30:
        road.pass_second(delay_s=20)  # many are on their way, sent one after the other
    road.lose_queue()
    while road.second < 120:
        road.pass_second(takes=False)
    while road.second < 240:
        road.pass_second()
    assert road.oldest_s() <= 5


def test_workers_that_were_away_find_a_queue_that_has_hardly_grown() -> None:
    road = Road()
    while road.second < 1_800:
        road.pass_second(delay_s=10_000)
    assert len(road._queue) <= 60 + 30  # a minute's, and one a minute from then on
    road.lose_queue()
    while road.second < 1_920:
        road.pass_second()
    assert road.oldest_s() <= 5


def test_first_that_arrives_after_a_silence_has_everything_else_sent_again_within_a_minute() -> None:
    packing, now_ns = make_packing(300), 0
    packing.note(TWO, end=0, final=False, now_ns=0)
    packing.note_ledger(TWO, [], None, 0)
    send_all(packing, 0)
    for minute in range(1, 50):
        now_ns = minute * PATIENCE_NS
        packing.note_ledger(ONE, [], None, now_ns)
        send_all(packing, now_ns)
    packing.note(TWO, end=1, final=False, now_ns=now_ns)
    packing.note_ledger(TWO, [(0, 1)], None, now_ns)
    packing.note_ledger(ONE, [], None, now_ns + PATIENCE_NS)
    assert places(packing.plan(now_ns + PATIENCE_NS)) == [(0, 100), (100, 200), (200, 300)]


def test_what_was_sent_one_after_the_other_and_lost_is_one_miss() -> None:
    packing = make_packing()
    packing.note(TWO, end=0, final=False, now_ns=0)
    packing.note_ledger(TWO, [], None, 0)
    last_sent_s = {}
    for second in range(300):
        now_ns = second * 1000 * MS
        packing.note(ONE, end=min(100 * (second + 1), 1_000), final=False, now_ns=now_ns)
        packing.note_ledger(ONE, [], None, now_ns)
        packing.note(TWO, end=second, final=False, now_ns=now_ns)
        packing.note_ledger(TWO, [(0, second)] if second else [], None, now_ns)  # all else is well
        for part in send_all(packing, now_ns):
            last_sent_s[part.start] = second
    assert min(last_sent_s.values()) > 180


def test_what_never_arrives_delays_nothing_else() -> None:
    road, worst_s = Road(), 0
    while road.second < 1_200:
        road.pass_second(poison=10)
        younger = set(range(20, road.second)) - road.there
        worst_s = max(worst_s, road.second - min(younger, default=road.second))
    assert worst_s <= 5
    assert road.oldest_s() > 1_000


def test_segments_that_never_arrive_keep_no_other_back() -> None:
    packing = make_packing(900)
    packing.note(TWO, end=900, final=False, now_ns=0)
    packing.note_ledger(TWO, [], None, 0)
    young = ("BeastMain", "3-300")
    for minute in range(10):
        now_ns = minute * PATIENCE_NS
        for identity in (ONE, TWO):
            packing.note_ledger(identity, [], None, now_ns)
        send_all(packing, now_ns)
    assert packing.wants_more
    packing.note(young, end=100, final=False, now_ns=now_ns)
    packing.note_ledger(young, [], None, now_ns)
    assert send_all(packing, now_ns + PATIENCE_NS) == [Part(young, 0, 100, False)]


def test_part_covered_by_other_envelopes_has_arrived() -> None:
    packing = make_packing(100)
    send_all(packing, 0)
    packing.note_ledger(ONE, [(0, 400)], None, 1)
    assert packing.on_way(1) == 0


def test_end_counts_as_arrived_only_when_the_ledger_has_it() -> None:
    packing = make_packing(100, final=True)
    assert send_all(packing, 0) == [Part(ONE, 0, 100, True)]
    packing.note_ledger(ONE, [(0, 100)], None, 1)  # written by an envelope from before the end was known
    assert not packing.done()
    assert packing.plan(1) == []  # it may yet come
    packing.note_ledger(ONE, [(0, 100)], None, PATIENCE_NS)
    assert send_all(packing, PATIENCE_NS) == [Part(ONE, 100, 100, True)]
    packing.note_ledger(ONE, [(0, 100)], 100, PATIENCE_NS)
    assert packing.done() == [ONE]


def test_segments_without_news_are_not_asked_about() -> None:
    packing = make_packing(50)
    assert packing.to_ask() == []
    send_all(packing, 0, flush=True)
    assert packing.to_ask() == [ONE]
    packing.note_ledger(ONE, [(0, 50)], None, 1)
    assert packing.to_ask() == []
    packing.note(ONE, end=50, final=True, now_ns=2)
    assert packing.to_ask() == [ONE]


# -- letting go


@pytest.mark.parametrize(
    ("final", "covered", "ended"),
    [
        (False, [(0, 100)], None),
        (False, [(0, 100)], 100),
        (True, [(0, 100)], None),
        (True, [(0, 99)], 100),
        (True, [(1, 100)], 100),
        (True, [(0, 40), (41, 100)], 100),
        (True, [(0, 100)], 99),
        (True, [], None),
    ],
)
def test_segment_is_kept_while_the_database_lacks_anything_of_it(
    final: bool, covered: list[tuple[int, int]], ended: int | None
) -> None:
    packing = make_packing(100, final=final)
    packing.note_ledger(ONE, covered, ended, 0)
    assert packing.done() == []


def test_final_segment_with_all_records_and_its_end_in_the_ledger_is_done() -> None:
    packing = make_packing(100, final=True)
    packing.note_ledger(ONE, [(0, 60), (60, 100)], 100, 0)
    assert packing.done() == [ONE]
    packing.forget(ONE)
    assert packing.done() == [] and ONE not in packing
    packing.note_ledger(ONE, [(0, 100)], 100, 0)  # a late answer about it changes nothing
    assert ONE not in packing


def test_segment_that_was_never_asked_about_is_not_done() -> None:
    packing = Packing(PARAMETERS)
    packing.note(ONE, end=0, final=True, now_ns=0)
    assert packing.done() == []


# -- any history


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8), st.integers(0, 50))
def test_gaps_are_the_places_in_no_interval(pairs: list[tuple[int, int]], end: int) -> None:
    intervals = [(min(pair), max(pair)) for pair in pairs]
    missing = {place for first, last in gaps(end, intervals) for place in range(first, last)}
    assert missing == set(range(end)) - {place for first, last in intervals for place in range(first, last)}


@settings(deadline=None)
@given(st.data())
def test_whatever_is_lost_everything_arrives_and_only_then_is_the_segment_done(data: st.DataObject) -> None:
    packing = make_packing(sqs_batch_size=data.draw(st.integers(1, 7)), sqs_buffer_size=20)
    there: set[int] = set()
    ended: int | None = None
    end = now_ns = 0
    for turn in range(60):
        if turn < 20:
            end += data.draw(st.integers(0, 9))
        packing.note(ONE, end=end, final=turn >= 25, now_ns=now_ns)
        for part in send_all(packing, now_ns, flush=turn % 3 == 0):
            assert packing.on_way(now_ns) <= 20
            if turn >= 45 or data.draw(st.booleans()):
                there |= set(range(part.start, part.end))
                ended = part.end if part.final else ended
        now_ns += 17 * PATIENCE_NS if turn >= 40 else data.draw(st.integers(0, 2)) * PATIENCE_NS
        packing.note_ledger(ONE, [(place, place + 1) for place in sorted(there)], ended, now_ns)
        assert (packing.done() == [ONE]) == (turn >= 25 and there == set(range(end)) and ended == end)
    assert packing.done() == [ONE]
