"""What one exchange's feed says of itself. Its conversation with lines is tried in test_manager.py."""

import time

from exchanges.feed.feed import Feed, Liveness
from exchanges.feed.intake import Intake
from pricing.tick import Tick
from tests.exchanges.boards import make_board
from tests.exchanges.rows import feed_spec, listing

SECOND_NS = 10**9
WALL_NS = time.time_ns()


def test_rate_is_of_the_time_since_the_status_before() -> None:
    spec, mono_ns = feed_spec(), time.monotonic_ns()
    intake = Intake(spec, make_board(mono_ns))
    intake.follow([listing("BTC")])
    feed = Feed(spec, intake, lambda symbols: NotImplemented, lambda line, name: NotImplemented)

    def rate_at(second: int) -> float:
        return feed.status(WALL_NS, mono_ns + second * SECOND_NS, Liveness()).ticks_per_s

    rate_at(1)
    intake.ticks(
        [Tick("BTC-USD", "1", WALL_NS + number, str(number)) for number in range(5)], WALL_NS, mono_ns
    )
    assert rate_at(3) == 2.5
    assert rate_at(4) == 0
