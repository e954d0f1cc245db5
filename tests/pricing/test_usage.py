"""Which records the ordinary HTTP way leaves; that the fast path leaves the same is tried where it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from billing import keys
from pricing.http import PriceApi
from pricing.problems import Problem
from pricing.usage import told_price, told_prices
from telemetry._spool import HTTP, PRICE, PRICES, REST, USAGE, WS, UsageLog
from telemetry.usage import NOTHING, Told
from tests.pricing.doubles import KEYS, MONTH, World, ask
from tests.pricing.test_http import JSON, make_api
from tests.telemetry.spooling import SpoolInMemory

PARTNER, FREE, REVOKED = (list(KEYS).index(name) + 1 for name in ("partner", "free", "revoked"))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.tick("BTC", "coinbase", "67123.450", delay_ms=40)
    yield world
    await world.aclose()


@pytest.fixture
def api(world: World) -> PriceApi:
    return make_api(world)


def expected(world: World, status: int, **fields: Any) -> UsageLog:
    """A record of the partner's question for a price, now."""
    who = {"key_id": PARTNER, "account_id": 100 + PARTNER, "month": MONTH, "latency_us": 0}
    return UsageLog(**{"time_ns": world.clock.wall, "status": status, "sequence": 1, **who, **fields})


TOLD = {"asset": "BTC", "assets": 1, "exchange": "coinbase", "price": "67123.450", "quote": "USD", "tier": 1}


async def test_price_that_is_told_is_recorded_as_it_was_told(world: World, api: PriceApi) -> None:
    await ask(api, "/price?asset=btc")
    log = expected(world, 200, source=WS, protocol=HTTP, endpoint=PRICE, **TOLD)
    assert world.spool.take() == [log]
    assert world.spool.appender.tally == (2, 2, 1, 1, 0)
    assert world.counters.seen()["batch_rows_queued"] == 1


async def test_price_from_below_is_recorded_with_its_tier(world: World, api: PriceApi) -> None:
    world.fallback.answers["kraken"] = world.polled("3000", source="kraken-rest")
    await ask(api, "/price?asset=ETH")
    (log,) = world.spool.take()
    assert (log.asset, log.exchange, log.price) == ("ETH", "kraken", "3000")
    assert (log.tier, log.source, log.quote) == (3, REST, "USD")


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/price?asset=NOPE", {"status": 404, "asset": "NOPE", "assets": 1}),
        ("/price?asset=ETH", {"status": 503, "asset": "ETH", "assets": 1}),
        ("/price?asset=BTC&max_age_ms=1", {"status": 503, "asset": "BTC", "assets": 1}),
        ("/price?asset=BTC&max_age_ms=x", {"status": 400}),
        ("/price", {"status": 400}),
        ("/prices?assets=ETH,BTC,ETH,NOPE", {"status": 200, "asset": "ETH", "assets": 3, "endpoint": PRICES}),
        ("/prices?assets=", {"status": 400, "endpoint": PRICES}),
        ("/usage", {"status": 200, "month": 0, "endpoint": USAGE}),
        ("/usage?x=1", {"status": 400, "month": 0, "endpoint": USAGE}),
    ],
)
async def test_every_answer_to_an_admitted_key_is_recorded(
    world: World, api: PriceApi, target: str, fields: dict[str, Any]
) -> None:
    assert (await ask(api, target)).status == fields["status"]
    assert world.spool.take() == [expected(world, **fields)]


@pytest.mark.parametrize(
    ("headers", "body", "fields"),
    [
        (JSON, b'{"assets":["BTC","ETH"]}', {"status": 200, "asset": "BTC", "assets": 2}),
        (JSON, b"{", {"status": 400}),
        ({}, b"{}", {"status": 415}),
        (JSON, b"x" * 20_000, {"status": 413}),
    ],
)
async def test_posted_questions_are_recorded(
    world: World, api: PriceApi, headers: dict[str, str], body: bytes, fields: dict[str, Any]
) -> None:
    assert (await ask(api, "/prices", method="POST", headers=headers, body=body)).status == fields["status"]
    assert world.spool.take() == [expected(world, endpoint=PRICES, **fields)]


@pytest.mark.parametrize(
    ("name", "status"), [("revoked", 403), ("expired", 403), ("reports", 403), ("elsewhere", 403)]
)
@pytest.mark.parametrize("target", ["/price?asset=BTC", "/usage"])
async def test_refusal_that_names_a_key_is_recorded_as_not_counted(
    world: World, api: PriceApi, name: str, status: int, target: str
) -> None:
    assert (await ask(api, target, key=KEYS[name])).status == status
    number = list(KEYS).index(name) + 1
    who = {"key_id": number, "account_id": 100 + number, "month": 0}
    endpoint = USAGE if target == "/usage" else PRICE
    assert world.spool.take() == [expected(world, status, endpoint=endpoint, **who)]
    assert world.spool.appender.tally == (1, 1, 0, 0, 0)


async def test_refusal_for_a_limit_is_recorded_as_not_counted(world: World, api: PriceApi) -> None:
    statuses = [(await ask(api, "/price?asset=BTC", key=KEYS["free"])).status for _ in range(6)]
    assert [(log.status, log.month) for log in world.spool.take()] == [
        (status, MONTH if status == 200 else 0) for status in statuses
    ]
    assert statuses == [200] * 5 + [429]


@pytest.mark.parametrize(
    "options",
    [
        {"target": "/price?asset=BTC", "key": None},
        {"target": "/price?asset=BTC", "key": KEYS["unknown"]},
        {"target": "/price?asset=BTC", "key": "x"},
        {"target": "/price?asset=BTC&key=x"},
        {"target": "/price?asset=BTC", "method": "DELETE"},
        {"target": "/price?asset=BTC", "method": "OPTIONS"},
        {"target": "/assets"},
        {"target": "/nowhere"},
    ],
)
async def test_without_a_key_nothing_is_recorded(
    world: World, api: PriceApi, options: dict[str, Any]
) -> None:
    await ask(api, **options)
    assert world.spool.take() == []
    entered, left, *rest = world.spool.appender.tally
    assert (entered, rest) == (left, [0, 0, 0])


async def test_demo_is_recorded_by_its_bucket(world: World, api: PriceApi) -> None:
    site = {"Host": "localhost", "Origin": "http://localhost"}
    token = (await ask(api, "/demo-token", method="POST", headers=site, key=None)).json()["token"]
    assert world.spool.take() == []
    await ask(api, "/price?asset=BTC", key=token, headers=site)
    (log,) = world.spool.take()
    bucket = world.tokens.bucket(
        token.encode(), host="localhost", address="192.0.2.7", wall_s=world.clock.wall // 10**9
    )
    assert bucket is not None
    row = world.gate.find(bucket)
    assert row is not None
    assert (log.key_id, log.account_id, log.month) == (world.gate.key(row).key_id, 0, MONTH)


async def test_answer_that_fails_is_recorded(
    world: World, api: PriceApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(world.service, "at_once", fail)
    assert (await ask(api, "/price?asset=BTC")).status == 500
    assert world.spool.take() == [expected(world, 500)]


def question(method: str, path: str, query: bytes = b"") -> dict[str, Any]:
    headers = [(b"x-api-key", KEYS["partner"].encode()), (b"content-type", b"application/json")]
    return {"type": "http", "method": method, "path": path, "query_string": query, "headers": headers}


async def test_client_that_leaves_before_its_answer_is_recorded_as_gone(world: World, api: PriceApi) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError

    await api(question("POST", "/prices"), receive, send)
    assert world.spool.take() == [expected(world, 499, endpoint=PRICES)]
    assert world.spool.appender.tally == (2, 2, 1, 1, 0)


async def test_answer_that_is_cancelled_is_recorded_as_given_up(world: World, api: PriceApi) -> None:
    world.fallback.answers["kraken"] = world.polled("3000")
    world.fallback.gates["kraken"] = asyncio.Event()

    async def nothing(*message: object) -> None: ...

    asking = asyncio.create_task(api(question("GET", "/price", b"asset=ETH"), nothing, nothing))  # type: ignore[arg-type]
    while not world.fallback.asked:  # noqa: ASYNC110  # it has no event
        await asyncio.sleep(0)
    assert world.spool.appender.tally == (1, 1, 1, 0, 0)
    asking.cancel()
    await asyncio.wait([asking])
    assert world.spool.take() == [expected(world, 503)]
    assert world.spool.appender.tally == (2, 2, 1, 1, 0)


async def test_record_is_there_before_the_answer_is_sent(world: World, api: PriceApi) -> None:
    seen: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        seen.append(world.spool.appender.appended)

    await api(question("GET", "/price", b"asset=BTC"), receive, send)
    assert seen == [1, 1]


async def test_without_room_nothing_is_answered_and_nothing_taken(world: World) -> None:
    world.spool = SpoolInMemory(has_room=False)
    world.admission = world.make_admission()
    api = make_api(world)
    answer = await ask(api, "/price?asset=BTC", key=KEYS["free"])
    assert (answer.status, answer.json()["code"]) == (503, "usage_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert used(world, "free") == 0
    assert world.spool.appender.refused == 1
    assert (await ask(api, "/price?asset=BTC", key=None)).status == 401
    world.spool.give_room()
    assert (await ask(api, "/price?asset=BTC", key=KEYS["free"])).status == 200


async def test_without_room_answers_go_on_where_the_operator_chose_so(world: World) -> None:
    world.spool = SpoolInMemory(has_room=False)
    world.spool.appender.sheds = True
    world.admission = world.make_admission()
    assert (await ask(make_api(world), "/price?asset=BTC", key=KEYS["free"])).status == 200
    assert (used(world, "free"), world.spool.appender.tally.shed) == (1, 1)
    assert "batch_rows_queued" not in world.counters.seen()


def used(world: World, name: str) -> int:
    row = world.gate.find(keys.digest(KEYS[name]))
    assert row is not None
    return world.gate.usage(row).counted


def test_what_was_told_of_a_problem_is_the_asset_alone() -> None:
    assert told_price("BTC", Problem("stale", "")) == Told("BTC", 1)
    assert told_prices(("BTC", "ETH")) == Told("BTC", 2)
    assert told_prices(()) == NOTHING
