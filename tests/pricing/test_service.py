from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from pricing.catalogue import EMPTY
from pricing.exceptions import FallbackError
from pricing.parameters import Parameters
from pricing.problems import Problem
from pricing.protocol import PriceAnswer, PriceQuery
from tests.pricing.doubles import START_WALL_NS, World

TTL_MS = Parameters().price_ttl_ms


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.aclose()


@pytest.fixture
async def hasty() -> AsyncIterator[World]:
    """A world whose whole time for tier 3 is 200 ms."""
    world = World(Parameters(fallback_timeout_ms=200))
    yield world
    await world.aclose()


async def price(world: World, asset: str = "BTC", **demands: int | str) -> PriceAnswer:
    answer = await world.service.price(msgspec.convert({"asset": asset, **demands}, PriceQuery))
    assert isinstance(answer, PriceAnswer), answer
    return answer


async def refusal(world: World, asset: str = "BTC", **demands: int | str) -> Problem:
    answer = await world.service.price(msgspec.convert({"asset": asset, **demands}, PriceQuery))
    assert isinstance(answer, Problem), answer
    return answer


def seen(answer: PriceAnswer) -> tuple[str, str, int, bool]:
    return answer.price.price, answer.price.source, answer.tier, answer.cached


async def test_home_answers_while_it_is_fresh_even_when_another_is_fresher(world: World) -> None:
    world.tick("BTC", "coinbase", "1.10")
    world.clock.forward(TTL_MS)
    world.tick("BTC", "kraken", "2.20")
    answer = await price(world)
    assert seen(answer) == ("1.10", "coinbase-ws", 1, True)
    assert answer.age_ns == TTL_MS * 1_000_000
    assert world.tier2.reads == []
    assert world.counters.seen() == {"syncmap_hits": 1}


async def test_freshest_other_exchange_answers_once_home_is_stale(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    world.tick("BTC", "okx", "3")
    world.clock.forward(1)
    world.tick("BTC", "kraken", "2")
    world.clock.forward(TTL_MS)
    assert seen(await price(world)) == ("2", "kraken-ws", 1, True)


async def test_age_counts_from_the_trade(world: World) -> None:
    world.tick("BTC", "coinbase", "1", delay_ms=40)
    world.clock.forward(2)
    assert (await price(world)).age_ns == 42_000_000


async def test_exchange_asked_for_answers_alone(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    assert (await refusal(world, exchange="kraken")).code == "unavailable"
    world.tick("BTC", "kraken", "2")
    assert seen(await price(world, exchange="kraken")) == ("2", "kraken-ws", 1, True)


async def test_price_of_an_exchange_that_is_not_public_is_not_given_out(world: World) -> None:
    world.tick("BTC", "gemini", "9")
    assert (await refusal(world)).figures == {"asset": "BTC", "age_ms": None}
    world.clock.forward(1)
    world.tick("BTC", "okx", "3")
    world.clock.forward(1)
    world.tick("BTC", "gemini", "9")
    assert seen(await price(world)) == ("3", "okx-ws", 1, True)


async def test_unlisted_asset_is_unknown_even_with_a_price_on_the_board(world: World) -> None:
    world.tick("GUSD", "gemini", "1")
    assert (await refusal(world, "GUSD")).code == "unknown_asset"
    assert (await refusal(world, "NOPE")).code == "unknown_asset"


async def test_before_the_tables_are_read_no_asset_is_called_unknown(world: World) -> None:
    world.catalogue = EMPTY
    assert (await refusal(world)).code == "unavailable"
    assert world.fallback.asked == []


@pytest.mark.parametrize("exchange", ["nope", "gemini"])
async def test_exchange_that_does_not_list_the_asset_is_unknown(world: World, exchange: str) -> None:
    problem = await refusal(world, exchange=exchange)
    assert (problem.code, problem.status) == ("unknown_exchange", 404)
    assert "coinbase, kraken, okx" in problem.detail


async def test_catalogue_change_takes_effect_at_once(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    await price(world)
    world.catalogue = EMPTY
    assert (await refusal(world)).code == "unknown_asset"


async def test_tier_2_answers_when_the_board_is_stale(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    world.clock.forward(TTL_MS + 1)
    world.store("BTC", "coinbase", "1.5", age_ms=300)
    answer = await price(world)
    assert seen(answer) == ("1.5", "coinbase-ws", 2, True)
    assert answer.age_ns == 300_000_000
    assert world.counters.seen() == {"elasticache_hits": 1}
    assert world.fallback.asked == []


async def test_tier_2_prefers_fresh_home_then_the_freshest(world: World) -> None:
    world.store("BTC", "coinbase", "1", age_ms=TTL_MS)
    world.store("BTC", "kraken", "2", age_ms=900)
    world.store("BTC", "okx", "3", age_ms=800)
    world.store("BTC", "gemini", "9", age_ms=1)
    assert (await price(world)).price.price == "1"
    world.clock.forward(1)
    assert (await price(world)).price.price == "3"
    assert (await price(world, exchange="kraken")).price.price == "2"


async def test_tier_2_answers_with_the_freshest_where_an_asset_has_no_home(world: World) -> None:
    world.store("UNI", "coinbase", "1", age_ms=900)
    world.store("UNI", "kraken", "2", age_ms=10)
    assert (await price(world, "UNI")).price.price == "2"


async def test_tier_2_prefers_what_has_a_known_age(world: World) -> None:
    world.store("BTC", "kraken", "2", age_ms=900)
    untimed = world.tier2.prices["BTC"]["kraken"]
    world.tier2.put(msgspec.structs.replace(untimed, exchange="okx", price="3", traded_ns=None, polled=True))
    assert (await price(world)).price.price == "2"


async def test_tier_2_entry_from_a_clock_that_runs_ahead_is_not_believed(world: World) -> None:
    world.store("BTC", "coinbase", "1", age_ms=-5_000)
    assert (await price(world)).age_ns == 0
    world.store("BTC", "coinbase", "1", age_ms=-5_001)
    assert (await refusal(world)).figures["age_ms"] is None


async def test_tier_3_asks_home_and_keeps_the_answer_in_both_places(world: World) -> None:
    world.fallback.answers["coinbase"] = world.polled("1.25", age_ms=60_000)
    first = await price(world)
    assert seen(first) == ("1.25", "coinbase-rest", 3, False)
    assert first.age_ns == 60_000_000_000
    assert world.tier2.kept == [first.price]
    assert world.counters.seen() == {"cache_misses": 1, "rest_fallbacks": 1}
    assert seen(await price(world)) == ("1.25", "coinbase-rest", 2, True)
    world.tier2.prices.clear()
    assert seen(await price(world)) == ("1.25", "coinbase-rest", 3, True)
    assert world.fallback.asked == [("BTC", "coinbase")]


async def test_rest_answer_serves_for_one_ttl_and_is_then_asked_for_again(world: World) -> None:
    world.fallback.answers["coinbase"] = world.polled("1")
    await price(world)
    world.clock.forward(TTL_MS)
    await price(world)
    assert len(world.fallback.asked) == 1
    world.clock.forward(1)
    world.fallback.answers["coinbase"] = world.polled("2")
    assert seen(await price(world)) == ("2", "coinbase-rest", 3, False)


async def test_rest_answer_without_a_time_is_marked_and_counts_from_its_receipt(world: World) -> None:
    world.fallback.answers["coinbase"] = world.polled("1", age_ms=None)
    answer = await price(world)
    assert answer.age_ns == 0
    assert (answer.price.traded_ns, answer.price.received_ns) == (None, world.clock.wall)
    world.clock.forward(40)
    again = await price(world)
    assert (again.tier, again.age_ns, again.price.traded_ns) == (2, 40_000_000, None)


async def test_price_of_unknown_age_never_satisfies_an_age_demanded(world: World) -> None:
    world.fallback.answers["kraken"] = world.polled("1", age_ms=None)
    for _ in range(2):  # from REST, then from what was kept of it
        problem = await refusal(world, "ETH", max_age_ms=86_400_000)
        assert problem.code == "stale"
        assert problem.figures == {"asset": "ETH", "age_ms": None, "max_age_ms": 86_400_000}
    assert "not known when ETH last traded" in problem.detail
    world.tick("ETH", "kraken", "2", delay_ms=TTL_MS + 1)
    assert (await refusal(world, "ETH", max_age_ms=500)).figures["age_ms"] == TTL_MS + 1


async def test_price_of_unknown_age_is_no_source(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    world.fallback.answers["kraken"] = world.polled("2", age_ms=None)
    await price(world, exchange="kraken")
    assert (await refusal(world, min_sources=2)).figures["sources"] == 1


async def test_rest_answer_of_unknown_age_that_has_expired_is_told_from_its_receipt(world: World) -> None:
    world.fallback.answers["kraken"] = world.polled("1", age_ms=None)
    await price(world, "ETH")
    world.fallback.answers["kraken"] = FallbackError("refused")
    world.clock.forward(TTL_MS + 1)
    problem = await refusal(world, "ETH")
    assert (problem.code, problem.figures["age_ms"]) == ("unavailable", TTL_MS + 1)


async def test_rest_trade_beyond_its_limit_is_refused_with_its_age(world: World) -> None:
    limit_ms = world.parameters.fallback_fresh_ms
    world.fallback.answers["coinbase"] = world.polled("1", age_ms=limit_ms + 1)
    problem = await refusal(world)
    assert problem.code == "unavailable"
    assert problem.figures == {"asset": "BTC", "age_ms": limit_ms + 1}


@pytest.mark.parametrize("failure", [FallbackError("refused"), None, RuntimeError("bug")])
async def test_another_exchange_is_asked_when_home_fails(world: World, failure: Exception | None) -> None:
    world.fallback.answers = {"coinbase": failure, "kraken": world.polled("2", source="kraken-rest")}
    assert seen(await price(world)) == ("2", "kraken-rest", 3, False)
    assert [exchange for _, exchange in world.fallback.asked] == ["coinbase", "kraken"]


async def test_question_causes_no_more_requests_than_it_may(world: World) -> None:
    world.fallback.answers["okx"] = world.polled("3", source="okx-rest")
    assert (await refusal(world)).code == "unavailable"
    assert [exchange for _, exchange in world.fallback.asked] == ["coinbase", "kraken"]
    assert seen(await price(world))[1] == "okx-rest"  # the failures are remembered, and cost nothing now


async def test_exchange_whose_rate_is_spent_is_passed_over_and_asked_as_soon_as_it_may_be(
    world: World,
) -> None:
    world.fallback.spent = {"coinbase", "kraken"}
    world.fallback.answers["okx"] = world.polled("3", source="okx-rest")
    assert seen(await price(world))[1] == "okx-rest"
    world.tier2.prices.clear()
    world.fallback.spent.clear()
    world.fallback.answers["coinbase"] = world.polled("1")
    assert seen(await price(world))[1] == "coinbase-rest"
    assert world.counters.seen()["rest_fallbacks"] == 2


@pytest.mark.parametrize(("max_age_ms", "requests"), [(0, 0), (249, 0), (250, 2)])
async def test_age_out_of_reach_of_rest_asks_nobody_while_the_board_is_fresh(
    world: World, max_age_ms: int, requests: int
) -> None:
    world.tick("BTC", "okx", "1", delay_ms=300)
    problem = await refusal(world, max_age_ms=max_age_ms)
    assert (problem.code, problem.figures["age_ms"]) == ("stale", 300)
    assert len(world.fallback.asked) == requests


async def test_age_out_of_reach_of_rest_is_tried_when_the_board_is_stale(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    world.clock.forward(TTL_MS + 1)
    world.fallback.answers["coinbase"] = world.polled("2")
    assert seen(await price(world, max_age_ms=0))[1] == "coinbase-rest"


async def test_exchange_that_does_not_tell_when_it_traded_is_not_asked_for_an_age(world: World) -> None:
    world.fallback.untimed = {"coinbase", "kraken"}
    world.fallback.answers["okx"] = world.polled("3", source="okx-rest")
    assert seen(await price(world, max_age_ms=5_000))[1] == "okx-rest"
    assert world.fallback.asked == [("BTC", "okx")]


async def test_exchange_asked_for_is_the_only_one_asked_over_rest(world: World) -> None:
    world.fallback.answers["coinbase"] = world.polled("1")
    assert (await refusal(world, exchange="kraken")).code == "unavailable"
    assert world.fallback.asked == [("BTC", "kraken")]


async def test_failure_is_remembered_and_then_tried_again(world: World) -> None:
    world.fallback.answers["kraken"] = FallbackError("refused")
    await refusal(world, "ETH")
    world.fallback.answers["kraken"] = world.polled("2", source="kraken-rest")
    await refusal(world, "ETH")
    assert len(world.fallback.asked) == 1
    world.clock.forward(world.parameters.negative_ttl_ms)
    assert (await price(world, "ETH")).price.price == "2"


async def test_hanging_home_leaves_time_for_the_others(hasty: World) -> None:
    hasty.fallback.gates["coinbase"] = asyncio.Event()
    hasty.fallback.answers["kraken"] = hasty.polled("2", source="kraken-rest")
    clock = asyncio.get_running_loop().time
    start = clock()
    assert seen(await price(hasty)) == ("2", "kraken-rest", 3, False)
    assert clock() - start < 0.19


async def test_all_exchanges_hanging_costs_no_more_than_the_time_limit(hasty: World) -> None:
    hasty.fallback.gates = {name: asyncio.Event() for name in ("coinbase", "kraken", "okx")}
    async with asyncio.timeout(2):
        problem = await refusal(hasty)
    assert problem.code == "unavailable"


async def test_200_callers_that_miss_at_once_cause_one_request(world: World) -> None:
    world.fallback.answers["coinbase"] = world.polled("1")
    gate = world.fallback.gates["coinbase"] = asyncio.Event()
    callers = [asyncio.create_task(price(world)) for _ in range(200)]
    for _ in range(5):
        await asyncio.sleep(0)
    callers[0].cancel()
    gate.set()
    await asyncio.wait(callers)
    assert world.fallback.asked == [("BTC", "coinbase")]
    assert [seen(caller.result()) for caller in callers[1:]] == [("1", "coinbase-rest", 3, True)] * 199


async def test_service_without_tier_2_and_3_refuses_what_the_board_has_not(world: World) -> None:
    world.tier2 = None  # type: ignore[assignment]  # as on a node without Redis
    service = world.make_service(None)
    answer = await service.price(PriceQuery("BTC"))
    assert isinstance(answer, Problem)
    assert answer.code == "unavailable"


async def test_age_demanded_is_kept_by_a_lower_tier_if_it_can_be(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    world.clock.forward(600)
    world.store("BTC", "coinbase", "2", age_ms=500)
    assert seen(await price(world, max_age_ms=600))[2] == 1
    assert seen(await price(world, max_age_ms=500)) == ("2", "coinbase-ws", 2, True)
    world.fallback.answers["coinbase"] = world.polled("3", age_ms=100)
    assert seen(await price(world, max_age_ms=499)) == ("3", "coinbase-rest", 3, False)


async def test_age_that_cannot_be_kept_is_refused_with_the_real_one(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    world.clock.forward(600)
    problem = await refusal(world, max_age_ms=599, exchange="coinbase")
    assert (problem.code, problem.status) == ("stale", 503)
    assert problem.figures == {"asset": "BTC", "age_ms": 600, "exchange": "coinbase", "max_age_ms": 599}
    assert world.counters.seen() == {"cache_misses": 1, "rest_fallbacks": 1, "stale_refusals": 1}


async def test_large_age_limit_makes_nothing_more_lenient(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    world.clock.forward(TTL_MS + 1)
    problem = await refusal(world, max_age_ms=86_400_000)
    assert (problem.code, problem.figures["age_ms"]) == ("unavailable", TTL_MS + 1)
    assert f"none older than {TTL_MS} ms" in problem.detail


async def test_fresh_price_demanded_again_and_again_is_fetched_once_a_second(world: World) -> None:
    world.fallback.answers = {"kraken": world.polled("1", age_ms=10_000, source="kraken-rest")}
    for _ in range(3):
        assert (await refusal(world, "ETH", max_age_ms=500)).figures["age_ms"] == 10_000
    assert len(world.fallback.asked) == 1
    world.clock.forward(world.parameters.fallback_pause_ms)
    await refusal(world, "ETH", max_age_ms=500)
    assert len(world.fallback.asked) == 2


async def test_sources_demanded_are_counted_over_public_fresh_exchanges(world: World) -> None:
    for exchange in ("coinbase", "okx", "gemini"):
        world.tick("BTC", exchange, "1")
    assert (await price(world, min_sources=2)).tier == 1
    problem = await refusal(world, min_sources=3)
    assert (problem.code, problem.status) == ("too_few_sources", 503)
    assert problem.figures == {"asset": "BTC", "sources": 2, "min_sources": 3}
    assert (await price(world, min_sources=2, exchange="okx")).price.exchange == "okx"


async def test_sources_that_only_tier_2_knows_count_too(world: World) -> None:
    world.tick("BTC", "coinbase", "1")
    world.store("BTC", "kraken", "2", age_ms=10)
    world.store("BTC", "okx", "3", age_ms=TTL_MS + 1)
    assert seen(await price(world, min_sources=2)) == ("1", "coinbase-ws", 1, True)
    assert (await refusal(world, min_sources=3)).figures["sources"] == 2


async def test_sources_must_be_as_young_as_the_age_demanded(world: World) -> None:
    world.tick("BTC", "kraken", "2")
    world.clock.forward(600)
    world.tick("BTC", "coinbase", "1")
    assert (await refusal(world, min_sources=2, max_age_ms=599)).figures["sources"] == 1
    assert (await price(world, min_sources=2, max_age_ms=600)).price.price == "1"


async def test_refusal_names_the_least_age_of_all_that_is_known(world: World) -> None:
    world.tick("BTC", "kraken", "1")
    world.clock.forward(TTL_MS + 500)
    world.store("BTC", "okx", "1", age_ms=TTL_MS + 100)
    problem = await refusal(world)
    assert problem.figures["age_ms"] == TTL_MS + 100
    assert world.counters.seen()["stale_refusals"] == 1


async def test_closing_ends_requests_under_way(world: World) -> None:
    world.fallback.gates["kraken"] = asyncio.Event()
    caller = asyncio.create_task(world.service.price(PriceQuery("ETH")))
    for _ in range(3):
        await asyncio.sleep(0)
    await world.service.aclose()
    answer = await caller
    assert isinstance(answer, Problem)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def changed_tables(world: World) -> None:
    """Read the tables anew, as after any change of them: a listing's symbol is another now."""
    world.catalogue = msgspec.structs.replace(world.catalogue)


async def test_what_came_over_rest_is_asked_for_again_once_the_tables_changed(world: World) -> None:
    world.fallback.answers["coinbase"] = world.polled("1")
    await price(world, exchange="coinbase")
    assert seen(await price(world, exchange="coinbase"))[0] == "1"
    assert len(world.fallback.asked) == 1
    world.tier2.prices.clear()
    changed_tables(world)
    world.fallback.answers["coinbase"] = world.polled("2")
    assert seen(await price(world, exchange="coinbase")) == ("2", "coinbase-rest", 3, False)


async def test_failure_over_rest_is_forgotten_once_the_tables_changed(world: World) -> None:
    world.fallback.answers["coinbase"] = FallbackError("http_404")
    assert (await refusal(world, exchange="coinbase")).code == "unavailable"
    world.fallback.answers["coinbase"] = world.polled("2")
    assert (await refusal(world, exchange="coinbase")).code == "unavailable"
    changed_tables(world)
    assert seen(await price(world, exchange="coinbase"))[0] == "2"


async def test_answer_to_a_question_from_before_the_change_is_neither_given_nor_kept(world: World) -> None:
    gate = world.fallback.gates["coinbase"] = asyncio.Event()
    world.fallback.answers["coinbase"] = world.polled("1")
    asking = asyncio.create_task(refusal(world, exchange="coinbase"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.fallback.asked == [("BTC", "coinbase")]
    changed_tables(world)
    gate.set()
    assert (await asking).code == "unavailable"
    assert world.tier2.kept == []
    world.fallback.answers["coinbase"] = world.polled("2")
    assert seen(await price(world, exchange="coinbase"))[0] == "2"


@pytest.mark.parametrize(
    "changes",
    [
        {"traded_ns": START_WALL_NS + 5_001_000_000},
        {"received_ns": START_WALL_NS + 5_001_000_000},
        {"quote": "USDT"},
        {"source": "kraken-ws"},
        {"source": "coinbase-rest"},
        {"source": ""},
    ],
)
async def test_tier_2_price_that_contradicts_clock_or_tables_is_not_given_out(
    world: World, changes: dict[str, int | str]
) -> None:
    world.store("BTC", "coinbase", "1")
    sound = world.tier2.prices["BTC"]["coinbase"]
    assert seen(await price(world)) == ("1", "coinbase-ws", 2, True)
    ahead = {"source": "coinbase-ws-sim", "traded_ns": START_WALL_NS + 4 * 10**9}
    world.tier2.put(msgspec.structs.replace(sound, **ahead))
    assert seen(await price(world))[0] == "1"
    world.tier2.put(msgspec.structs.replace(sound, **changes))
    assert (await refusal(world)).figures["age_ms"] is None
    assert (await refusal(world, min_sources=1)).figures["sources"] == 0
