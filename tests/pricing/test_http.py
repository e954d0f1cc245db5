from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpcore
import msgspec
import pytest
import uvicorn

from pricing import messages
from pricing.exceptions import FallbackError
from pricing.http import PriceApi
from pricing.protocol import MAX_BODY_BYTES
from pricing.tick import StoredPrice
from telemetry.rates import bound_ns
from tests.pricing.doubles import KEYS, Answer, World, ask, spool_state

HEALTH_PORT = 8081
HEALTH = ("127.0.0.1", HEALTH_PORT)
JSON = {"Content-Type": "application/json"}
KEY = {"X-API-Key": KEYS["partner"]}
PUBLIC_PATHS = ("/price", "/prices", "/exchanges", "/asset-categories", "/assets", "/usage", "/openapi.json")
HEALTH_PATHS = ("/health/live", "/health/ready", "/metrics")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.aclose()


@pytest.fixture
def api(world: World) -> PriceApi:
    return make_api(world)


def make_api(
    world: World, health_port: int | None = HEALTH_PORT, *, mono_ns: Callable[[], int] | None = None
) -> PriceApi:
    return PriceApi(
        world.service,
        world.board,
        world.counters,
        world.admission,
        counted=world.counters.reader,
        spool=spool_state,
        health_port=health_port,
        worker=3,
        mono_ns=mono_ns or world.clock.mono_ns,
    )


def problem(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert document["status"] == answer.status
    return answer.status, document["code"]


async def test_price_is_answered_from_the_board(world: World, api: PriceApi) -> None:
    world.tick("BTC", "coinbase", "67123.450", delay_ms=40)
    world.clock.forward(2)
    answer = await ask(api, "/price?asset=btc")
    assert answer.status == 200
    assert answer.body == (
        b'{"asset":"BTC","price":"67123.450","quote":"USD","source":"coinbase-ws","exchange":"coinbase",'
        b'"timestamp":"2025-11-22T13:00:00.083456Z","received_at":"2025-11-22T13:00:00.123456Z",'
        b'"age_ms":42,"tier":1,"cached":true}'
    )
    assert answer.headers == {
        "content-type": "application/json",
        "x-content-type-options": "nosniff",
        "access-control-allow-origin": "*",
        "cache-control": "no-store",
        "content-length": str(len(answer.body)),
    }
    assert world.counters.seen() == {"tcp_requests": 1, "syncmap_hits": 1, "batch_rows_queued": 1}


async def test_price_on_the_board_is_answered_without_giving_way_to_other_tasks(
    world: World, api: PriceApi
) -> None:
    world.tick("BTC", "coinbase", "1")
    interrupted = []
    asyncio.get_running_loop().call_soon(interrupted.append, True)
    assert (await ask(api, "/price?asset=BTC")).status == 200
    assert interrupted == []


async def test_price_from_a_lower_tier_says_so(world: World, api: PriceApi) -> None:
    world.fallback.answers["coinbase"] = world.polled("1")
    answer = (await ask(api, "/price?asset=BTC")).json()
    assert (answer["tier"], answer["cached"], answer["source"]) == (3, False, "coinbase-rest")


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/price", 400, "bad_request"),
        ("/price?asset=BTC&asset=ETH", 400, "bad_request"),
        ("/price?asset=BTC&method=index", 400, "bad_request"),
        ("/price?asset=BTC&api_key=tb_live_x", 400, "secret_in_query"),
        ("/price?asset=NOPE", 404, "unknown_asset"),
        ("/price?asset=GUSD", 404, "unknown_asset"),
        ("/price?asset=BTC&exchange=gemini", 404, "unknown_exchange"),
        ("/price?asset=BTC", 503, "unavailable"),
        ("/price?asset=BTC&min_sources=1", 503, "too_few_sources"),
        ("/price?asset=" + "A" * 2_100, 400, "bad_request"),
        ("/prices", 400, "bad_request"),
        ("/exchanges?x=1", 400, "bad_request"),
        ("/asset-categories?token=x", 400, "secret_in_query"),
        ("/assets?exchange=nope", 404, "unknown_exchange"),
        ("/assets?category=nope", 404, "unknown_category"),
        ("/openapi.json?x", 400, "bad_request"),
        ("/nowhere", 404, "not_found"),
    ],
)
async def test_refusal_is_a_problem_with_its_code(api: PriceApi, target: str, status: int, code: str) -> None:
    assert problem(await ask(api, target)) == (status, code)


async def test_stale_refusal_tells_the_real_age(world: World, api: PriceApi) -> None:
    world.tick("BTC", "coinbase", "1")
    world.clock.forward(600)
    answer = await ask(api, "/price?asset=BTC&max_age_ms=500")
    assert problem(answer) == (503, "stale")
    assert (answer.json()["age_ms"], answer.json()["max_age_ms"]) == (600, 500)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/prices?assets=BTC,NOPE,eth,BTC", b""),
        ("POST", "/prices", b'{"assets":["BTC","NOPE","eth","BTC"]}'),
    ],
)
async def test_prices_are_answered_each_with_a_price_or_its_own_error(
    world: World, api: PriceApi, method: str, target: str, body: bytes
) -> None:
    world.tick("BTC", "coinbase", "1")
    world.fallback.answers["kraken"] = FallbackError("refused")
    answer = await ask(api, target, method=method, body=body, headers=JSON)
    assert answer.status == 200
    btc, nope, eth = answer.json()["prices"]
    assert btc == (await ask(api, "/price?asset=BTC")).json()
    assert nope["asset"] == "NOPE"
    assert nope["error"]["code"] == "unknown_asset"
    assert eth["error"]["code"] == "unavailable"
    assert world.counters.seen()["tcp_requests"] == 2


async def test_prices_that_miss_are_waited_for_together(world: World, api: PriceApi) -> None:
    world.fallback.gates = {"coinbase": asyncio.Event(), "kraken": asyncio.Event()}
    asking = asyncio.create_task(ask(api, "/prices?assets=BTC,ETH"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert sorted(world.fallback.asked) == [("BTC", "coinbase"), ("ETH", "kraken")]
    for name, gate in world.fallback.gates.items():
        world.fallback.answers[name] = world.polled("1", source=f"{name}-rest")
        gate.set()
    assert [row["source"] for row in (await asking).json()["prices"]] == ["coinbase-rest", "kraken-rest"]


async def test_fault_in_one_of_several_prices_is_its_own(
    world: World, api: PriceApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.tick("BTC", "coinbase", "1")
    world.fallback.answers["coinbase"] = world.polled("3")
    read = world.tier2.read

    async def fail(asset: str) -> Mapping[str, StoredPrice]:
        if asset == "ETH":
            raise RuntimeError("bug")
        return await read(asset)

    monkeypatch.setattr(world.tier2, "read", fail)
    answer = await ask(api, "/prices?assets=BTC,ETH,UNI")
    btc, eth, uni = answer.json()["prices"]
    assert (answer.status, btc["price"], uni["price"]) == (200, "1", "3")
    assert (eth["asset"], eth["error"]["code"]) == ("ETH", "internal_error")
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_body_in_pieces_is_put_together(world: World, api: PriceApi) -> None:
    world.tick("BTC", "coinbase", "1")
    pieces = [b'{"ass', b"", b'ets":["BTC"', b"]}"]
    answer = await ask(api, "/prices", method="POST", body=pieces, headers=JSON)
    assert answer.json()["prices"][0]["price"] == "1"


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        (JSON, b"", 400, "bad_request"),
        (JSON, b"[" * MAX_BODY_BYTES, 400, "bad_request"),
        (JSON, b" " * (MAX_BODY_BYTES + 1), 413, "too_large"),
        ({}, b'{"assets":["BTC"]}', 415, "unsupported_media_type"),
        (
            {"Content-Type": "application/x-www-form-urlencoded"},
            b"assets=BTC",
            415,
            "unsupported_media_type",
        ),
        ({**JSON, "Content-Encoding": "gzip"}, b"\x1f\x8b", 415, "unsupported_media_type"),
    ],
)
async def test_bad_body_is_refused_with_its_reason(
    api: PriceApi, headers: Mapping[str, str], body: bytes, status: int, code: str
) -> None:
    answer = await ask(api, "/prices", method="POST", body=body, headers=headers)
    assert problem(answer) == (status, code)


async def test_media_type_may_carry_a_charset_in_any_case(world: World, api: PriceApi) -> None:
    world.tick("BTC", "coinbase", "1")
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    body = b'{"assets":["BTC"]}'
    assert (await ask(api, "/prices", method="POST", body=body, headers=headers)).status == 200


async def test_endless_body_is_refused_as_soon_as_it_is_too_large(api: PriceApi) -> None:
    pieces = [b" " * 8_192] * 1_000
    answer = await ask(api, "/prices", method="POST", body=pieces, headers=JSON)
    assert problem(answer) == (413, "too_large")


async def test_parameter_beside_a_body_is_refused(api: PriceApi) -> None:
    body = b'{"assets":["BTC"]}'
    answer = await ask(api, "/prices?assets=BTC", method="POST", body=body, headers=JSON)
    assert problem(answer) == (400, "bad_request")


async def test_body_that_does_not_arrive_is_refused_in_time(
    api: PriceApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "BODY_TIMEOUT_S", 0.01)
    sent = await exchange(api, receive=asyncio.Event().wait, headers=JSON)
    assert sent[0]["status"] == 408


async def exchange(api: PriceApi, *, receive: Any, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """Post to /prices with a *receive* of one's own; return what was sent."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in {**headers, **KEY}.items()]
    scope = {"method": "POST", "path": "/prices", "query_string": b"", "headers": raw, "server": ("", 8080)}
    await api(scope, receive, send)
    return sent


async def test_client_that_leaves_within_its_body_gets_nothing(api: PriceApi) -> None:
    async def leave() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    assert await exchange(api, receive=leave, headers=JSON) == []


async def test_client_that_leaves_before_the_answer_is_no_error(
    world: World, api: PriceApi, caplog: pytest.LogCaptureFixture
) -> None:
    world.tick("BTC", "coinbase", "1")
    scope = {
        "method": "GET",
        "path": "/price",
        "query_string": b"asset=BTC",
        "headers": [(b"x-api-key", KEYS["partner"].encode())],
        "server": ("", 1),
    }

    async def send(message: dict[str, Any]) -> None:
        raise BrokenPipeError

    await api(scope, asyncio.Event().wait, send)
    assert caplog.records == []


async def test_unexpected_error_is_logged_and_answered_as_a_problem(
    world: World, api: PriceApi, caplog: pytest.LogCaptureFixture
) -> None:
    world.board.close()
    answer = await ask(api, "/price?asset=BTC")
    assert problem(answer) == (500, "internal_error")
    assert b"closed" not in answer.body
    assert caplog.records[0].exc_info is not None


async def test_system_error_within_an_answer_is_not_taken_for_a_client_that_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(query: object) -> None:
        raise OSError("no more files")

    monkeypatch.setattr(world.service, "at_once", fail)
    assert problem(await ask(make_api(world), "/price?asset=BTC")) == (500, "internal_error")


@pytest.mark.parametrize("path", PUBLIC_PATHS)
async def test_head_is_answered_like_get_without_the_body(world: World, api: PriceApi, path: str) -> None:
    world.tick("BTC", "coinbase", "1")
    target = path + {"/price": "?asset=BTC", "/prices": "?assets=BTC"}.get(path, "")
    got, head = await ask(api, target), await ask(api, target, method="HEAD")
    assert got.status == 200
    assert (head.status, head.headers, head.body) == (got.status, got.headers, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "get", "X" * 500])
async def test_other_method_is_refused_with_those_allowed(api: PriceApi, method: str) -> None:
    answer = await ask(api, "/price", method=method)
    assert problem(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_preflight_of_a_browser_is_answered(api: PriceApi) -> None:
    answer = await ask(api, "/prices", method="OPTIONS")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, POST, OPTIONS"
    assert "content-type" in answer.headers["access-control-allow-headers"]
    assert "content-length" not in answer.headers


async def test_exchanges_tell_liveness_from_the_board(world: World, api: PriceApi) -> None:
    world.tick("BTC", "kraken", "1")
    world.clock.forward(42)
    rows = (await ask(api, "/exchanges")).json()["exchanges"]
    assert [(row["name"], row["live"], row["age_ms"]) for row in rows] == [
        ("coinbase", False, None),
        ("kraken", True, 42),
        ("okx", False, None),
    ]


async def test_assets_and_categories_follow_the_catalogue(world: World, api: PriceApi) -> None:
    rows = (await ask(api, "/assets?exchange=OKX")).json()["assets"]
    assert [row["asset"] for row in rows] == ["BTC"]
    rows = (await ask(api, "/assets?category=DeFi")).json()["assets"]
    assert [row["asset"] for row in rows] == ["UNI"]
    assert len((await ask(api, "/assets")).json()["assets"]) == 3
    assert len((await ask(api, "/asset-categories")).json()["categories"]) == 2
    world.catalogue = msgspec.structs.replace(world.catalogue, assets={"ETH": world.catalogue.assets["ETH"]})
    assert [row["asset"] for row in (await ask(api, "/assets")).json()["assets"]] == ["ETH"]
    rows = (await ask(api, "/asset-categories")).json()["categories"]
    assert rows == [{"name": "Major Currencies", "assets": 1}]


@pytest.mark.parametrize("path", ["/exchanges", "/assets", "/asset-categories", "/openapi.json"])
async def test_known_body_is_not_sent_again(api: PriceApi, path: str) -> None:
    first = await ask(api, path)
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "public, max-age=2"
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await ask(api, path, headers={"If-None-Match": known})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
    assert (await ask(api, path, headers={"If-None-Match": '"other"'})).status == 200


@pytest.mark.parametrize("path", HEALTH_PATHS)
async def test_health_is_answered_on_its_own_port_only(api: PriceApi, world: World, path: str) -> None:
    assert problem(await ask(api, path)) == (404, "not_found")
    assert (await ask(api, path, server=HEALTH)).status in (200, 503)
    assert problem(await ask(make_api(world, None), path)) == (404, "not_found")


@pytest.mark.parametrize("path", [*PUBLIC_PATHS, "/nowhere", "/admin/"])
async def test_nothing_else_is_answered_on_the_health_port(api: PriceApi, world: World, path: str) -> None:
    assert problem(await ask(api, path, server=HEALTH)) == (404, "not_found")
    assert world.counters.seen() == {}


@pytest.mark.parametrize("server", [None, ("/run/socket", None)])
@pytest.mark.parametrize("health_port", [None, HEALTH_PORT])
async def test_server_without_a_port_is_a_public_one(
    world: World, server: tuple[str, None] | None, health_port: int | None
) -> None:
    answer = await ask(make_api(world, health_port), "/exchanges", server=server)
    assert answer.status == 200


async def test_live_is_answered_without_any_data(api: PriceApi) -> None:
    answer = await ask(api, "/health/live", server=HEALTH)
    assert (answer.status, answer.json()) == (200, {"status": "live"})


async def test_ready_means_fresh_data(world: World, api: PriceApi) -> None:
    answer = await ask(api, "/health/ready", server=HEALTH)
    assert (answer.status, answer.json()["status"]) == (503, "not_ready")
    world.tick("BTC", "kraken", "1")
    answer = await ask(api, "/health/ready", server=HEALTH)
    assert (answer.status, answer.json()["status"]) == (200, "degraded")
    assert [row["name"] for row in answer.json()["exchanges"]] == ["coinbase", "kraken", "okx"]


async def test_metrics_are_prometheus_text(world: World, api: PriceApi) -> None:
    await ask(api, "/price")
    answer = await ask(api, "/metrics", server=HEALTH)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\ntrinity_tcp_requests_total 1.0\n" in answer.body


def test_paths_that_belong_to_django_are_left_to_it(api: PriceApi) -> None:
    assert all(api.handles(path) for path in (*PUBLIC_PATHS, *HEALTH_PATHS))
    assert not any(api.handles(path) for path in ("/", "/admin/", "/docs", "/price/", "/prices/x", ""))


@asynccontextmanager
async def serving(api: PriceApi) -> AsyncIterator[str]:
    """Serve on a loopback port by a real uvicorn."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(api, lifespan="off", log_config=None, http="httptools")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await task


async def test_real_server_carries_every_kind_of_answer(world: World, api: PriceApi) -> None:
    world.tick("BTC", "coinbase", "1.10")
    body = b'{"assets":["BTC"]}'
    async with serving(api) as url, httpcore.AsyncConnectionPool(max_connections=1) as pool:
        answer = await pool.request("GET", f"{url}/price?asset=BTC", headers=KEY)
        assert answer.content == (await ask(api, "/price?asset=BTC")).body
        answer = await pool.request("HEAD", f"{url}/price?asset=BTC", headers=KEY)
        assert (answer.status, answer.content) == (200, b"")
        answer = await pool.request("POST", f"{url}/prices", content=body, headers={**JSON, **KEY})
        assert msgspec.json.decode(answer.content)["prices"][0]["price"] == "1.10"
        answer = await pool.request("OPTIONS", f"{url}/price")
        assert (answer.status, answer.content) == (204, b"")
        etag = dict((await pool.request("GET", f"{url}/assets")).headers)[b"etag"]
        answer = await pool.request("GET", f"{url}/assets", headers={b"if-none-match": etag})
        assert (answer.status, answer.content) == (304, b"")
        assert (await pool.request("GET", f"{url}/price?asset=BTC", headers=KEY)).status == 200


async def test_client_that_hangs_up_on_a_slow_price_harms_nobody(
    world: World, api: PriceApi, caplog: pytest.LogCaptureFixture
) -> None:
    gate = world.fallback.gates["coinbase"] = asyncio.Event()
    world.fallback.answers["coinbase"] = world.polled("1")
    async with serving(api) as url:
        port = int(url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        key = KEYS["partner"].encode()
        writer.write(b"GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\n\r\n" % key)
        async with asyncio.timeout(10):
            while not world.fallback.asked:  # noqa: ASYNC110  # the request is on its way through uvicorn
                await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.01)
        gate.set()
        async with httpcore.AsyncConnectionPool() as pool:
            assert (await pool.request("GET", f"{url}/price?asset=BTC", headers=KEY)).status == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


class SteppingClock:
    """A clock that goes forward with every look at it."""

    def __init__(self, start_ns: int, step_ns: int) -> None:
        self.ns, self.step_ns = start_ns, step_ns

    def __call__(self) -> int:
        self.ns += self.step_ns
        return self.ns


@pytest.mark.parametrize(
    ("target", "key", "status"),
    [
        ("/price?asset=BTC", KEYS["partner"], 200),
        ("/price?asset=BTC", None, 401),
        ("/price?asset=NO", KEYS["partner"], 404),
        ("/assets", None, 200),
    ],
)
async def test_time_until_an_answer_is_counted_whatever_the_answer(
    world: World, target: str, key: str | None, status: int
) -> None:
    world.tick("BTC", "coinbase", "1")
    api = make_api(world, mono_ns=SteppingClock(world.clock.mono, 1_000_000))
    assert (await ask(api, target, key=key)).status == status
    (bucket,) = (at for at, n in enumerate(world.counters.reader.latencies()["http"]) if n)
    assert bound_ns(bucket - 1) <= world.counters.reader.took_ns()["http"] < bound_ns(bucket)
    assert world.counters.reader.took_ns()["http"] >= 1_000_000


async def test_time_of_what_is_no_request_for_prices_is_not_counted(world: World) -> None:
    api = make_api(world, mono_ns=SteppingClock(world.clock.mono, 1_000_000))
    for path in HEALTH_PATHS:
        await ask(api, path, server=HEALTH)
    await ask(api, "/nothing")
    assert world.counters.reader.took_ns() == {"http": 0, "udp": 0}
