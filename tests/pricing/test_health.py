from __future__ import annotations

from collections.abc import Iterator

import pytest

from pricing.catalogue import list_exchanges
from pricing.health import exchange_ages_ms, readiness, since_ms
from tests.pricing.doubles import World

ENABLED = ("coinbase", "kraken")


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.board.close()


def ready(world: World) -> tuple[bool, dict[str, object]]:
    return readiness(world.board, world.gate, ENABLED, world.parameters, world.clock.mono)


def test_never_has_no_age_and_no_age_is_negative() -> None:
    assert since_ms(0, 5_000_000) is None
    assert since_ms(1_000_000, 5_999_999) == 4
    assert since_ms(9_000_000, 5_000_000) == 0


def test_ages_are_told_for_every_exchange_of_the_board(world: World) -> None:
    world.tick("BTC", "okx", "1")
    world.clock.forward(7)
    ages_ms = {"coinbase": None, "kraken": None, "okx": 7, "gemini": None}
    assert exchange_ages_ms(world.board, world.clock.mono) == ages_ms


def test_ready_when_every_enabled_exchange_is_fresh(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    world.tick("BTC", "kraken", "1")
    world.clock.forward(5)
    assert ready(world) == (
        True,
        {
            "status": "ready",
            "feeds": {"alive": True, "heartbeat_age_ms": 5},
            "keys": {"filled": True, "alive": True, "heartbeat_age_ms": 5},
            "exchanges": [
                {"name": "coinbase", "age_ms": 5, "fresh": True},
                {"name": "kraken", "age_ms": 5, "fresh": True},
            ],
        },
    )


def test_not_ready_before_the_keys_were_read(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    world.gate.set_month(0, 0)
    is_ready, document = ready(world)
    assert (is_ready, document["status"]) == (False, "not_ready")


def test_degraded_but_ready_when_the_keyring_is_silent(world: World) -> None:
    world.clock.forward(world.parameters.heartbeat_ms + 1)
    world.board.beat(world.clock.mono)
    world.tick("BTC", "coinbase", "1")
    world.tick("BTC", "kraken", "1")
    is_ready, document = ready(world)
    assert (is_ready, document["status"]) == (True, "degraded")


def test_degraded_but_ready_when_some_are_stale(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    world.clock.forward(world.parameters.price_ttl_ms + 1)
    world.tick("BTC", "kraken", "1")
    world.board.beat(world.clock.mono)
    is_ready, document = ready(world)
    assert is_ready
    assert document["status"] == "degraded"
    assert document["exchanges"] == [
        {"name": "coinbase", "age_ms": world.parameters.price_ttl_ms + 1, "fresh": False},
        {"name": "kraken", "age_ms": 0, "fresh": True},
    ]


def test_not_ready_without_a_tick(world: World) -> None:
    is_ready, document = ready(world)
    assert not is_ready
    assert document["status"] == "not_ready"


def test_not_ready_when_only_a_disabled_exchange_is_fresh(world: World) -> None:
    world.tick("BTC", "gemini", "1")
    assert not ready(world)[0]


@pytest.mark.parametrize(
    "age_ms", [13_001, 900_000, 3 * 3_600_000]
)  # the last is older than the machine's start
def test_exchange_that_sends_only_old_trades_is_not_fresh_and_makes_nothing_ready(
    world: World, age_ms: int
) -> None:
    for exchange in ENABLED:
        world.tick("BTC", exchange, "1", delay_ms=age_ms)
    is_ready, document = ready(world)
    assert (is_ready, document["status"]) == (False, "not_ready")
    rows = list_exchanges(world.catalogue, exchange_ages_ms(world.board, world.clock.mono), 13_000)[
        "exchanges"
    ]
    assert isinstance(rows, list)
    assert not any(row["live"] for row in rows)
    world.tick("ETH", "kraken", "1", delay_ms=40)
    assert exchange_ages_ms(world.board, world.clock.mono)["kraken"] == 40
    assert ready(world)[0]


@pytest.mark.parametrize(("silent_ms", "expected"), [(5_000, True), (5_001, False)])
def test_silent_writer_is_not_ready_even_with_fresh_ticks(
    world: World, silent_ms: int, expected: bool
) -> None:
    world.clock.forward(silent_ms)
    world.tick("BTC", "coinbase", "1")
    assert ready(world)[0] is expected


def test_not_ready_without_an_enabled_exchange(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    assert not readiness(world.board, world.gate, (), world.parameters, world.clock.mono)[0]
