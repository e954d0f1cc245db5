from __future__ import annotations

from telemetry.seldom import Seldom
from tests.pricing.doubles import Clock


def test_seldom_is_once_a_minute() -> None:
    clock = Clock()
    seldom = Seldom(clock.mono_ns)
    assert [seldom(), seldom()] == [True, False]
    clock.forward(59_999)
    assert not seldom()
    clock.forward(1)
    assert [seldom(), seldom()] == [True, False]
