"""Who asks over HTTP: credentials, and every verdict in HTTP's words."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from billing import keys
from billing.demo import BURST, LIFE_S, PER_MONTH
from billing.guessing import ELSEWHERE, REVOKED
from billing.ratelimit import SECOND_NS
from pricing.http import PriceApi
from tests.pricing.doubles import KEYS, MONTH, MONTH_S, Answer, World, ask
from tests.pricing.test_http import make_api, problem

BTC = "/price?asset=BTC"
SITE = {"Host": "prices.example", "Sec-Fetch-Site": "same-origin"}
PAGE = {**SITE, "Origin": "https://prices.example"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.tick("BTC", "coinbase", "1.10")
    yield world
    await world.aclose()


@pytest.fixture
def api(world: World) -> PriceApi:
    return make_api(world)


def used(world: World, name: str) -> int:
    row = world.gate.find(keys.digest(KEYS[name]))
    assert row is not None
    return world.gate.usage(row).counted


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEYS["pro"]},
        {"Authorization": f"Bearer {KEYS['pro']}"},
        {"Authorization": f"bearer  {KEYS['pro']} "},
        {"Authorization": f"Bearer {KEYS['pro']}", "X-API-Key": KEYS["pro"]},
    ],
)
async def test_key_is_taken_from_either_header(world: World, api: PriceApi, headers: dict[str, str]) -> None:
    answer = await ask(api, BTC, headers=headers, key=None)
    assert answer.status == 200
    assert used(world, "pro") == 1


async def test_answer_tells_of_the_limits(api: PriceApi) -> None:
    answer = await ask(api, BTC, key=KEYS["pro"])
    assert answer.headers["ratelimit-policy"] == f'"rate";q=20;w=2, "month";q=50000;w={MONTH_S}'
    assert answer.headers["ratelimit"] == f'"rate";r=19;t=1, "month";r=49999;t={MONTH_S}'
    assert answer.headers["access-control-expose-headers"] == "ratelimit-policy, ratelimit, retry-after"


@pytest.mark.parametrize(
    ("target", "status"), [("/price", 400), ("/price?asset=NOPE", 404), ("/price?asset=ETH", 503)]
)
async def test_refused_question_of_a_good_key_counts_and_tells_of_the_limits(
    world: World, api: PriceApi, target: str, status: int
) -> None:
    answer = await ask(api, target, key=KEYS["pro"])
    assert answer.status == status
    assert "ratelimit" in answer.headers
    assert used(world, "pro") == 1


async def test_several_prices_count_as_one_request(world: World, api: PriceApi) -> None:
    await ask(api, "/prices?assets=BTC,NOPE,ETH", key=KEYS["pro"])
    assert used(world, "pro") == 1


async def test_partner_has_no_limits_and_is_counted(world: World, api: PriceApi) -> None:
    for _ in range(300):
        answer = await ask(api, BTC, key=KEYS["partner"])
        assert answer.status == 200
    assert "ratelimit" not in answer.headers
    assert used(world, "partner") == 300


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, 'Bearer realm="prices"'),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, 'Bearer realm="prices"'),
        ({"X-API-Key": ""}, 'Bearer realm="prices"'),
        ({"X-API-Key": "x"}, 'Bearer realm="prices", error="invalid_token"'),
        ({"X-API-Key": KEYS["unknown"]}, 'Bearer realm="prices", error="invalid_token"'),
    ],
)
async def test_without_a_known_key_is_unauthorized(
    world: World, api: PriceApi, headers: dict[str, str], challenge: str
) -> None:
    answer = await ask(api, BTC, headers=headers, key=None)
    assert problem(answer) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == challenge
    assert world.counters.seen() == {"tcp_requests": 1, "auth_failures": 1}


async def test_several_keys_are_refused(api: PriceApi) -> None:
    headers = {"Authorization": f"Bearer {KEYS['free']}"}
    assert problem(await ask(api, BTC, headers=headers)) == (400, "bad_request")


@pytest.mark.parametrize("target", ["/price?asset=BTC&api_key=x", "/usage?token=x", "/prices?%6Bey=x"])
@pytest.mark.parametrize("key", [None, KEYS["pro"]])
async def test_key_in_the_address_is_refused_whoever_asks(
    world: World, api: PriceApi, target: str, key: str | None
) -> None:
    assert problem(await ask(api, target, key=key)) == (400, "secret_in_query")
    assert used(world, "pro") == 0


@pytest.mark.parametrize(
    ("name", "code", "noted"),
    [
        ("revoked", "revoked", [(REVOKED, "192.0.2.7", KEYS["revoked"][:12])]),
        ("expired", "revoked", [(REVOKED, "192.0.2.7", KEYS["expired"][:12])]),
        ("reports", "not_in_plan", []),
        ("elsewhere", "wrong_network", [(ELSEWHERE, "192.0.2.7", KEYS["elsewhere"][:12])]),
    ],
)
async def test_key_that_may_not_is_forbidden(
    world: World, api: PriceApi, name: str, code: str, noted: list[tuple[str, str, str]]
) -> None:
    answer = await ask(api, BTC, key=KEYS[name])
    assert problem(answer) == (403, code)
    assert world.guesses.noted == noted
    assert world.counters.seen()["auth_failures"] == 1
    assert KEYS[name] not in answer.body.decode()


async def test_key_is_admitted_from_its_network(api: PriceApi) -> None:
    answer = await ask(api, BTC, key=KEYS["elsewhere"], client=("198.51.100.20", 1))
    assert answer.status == 200


async def test_address_behind_a_proxy_is_the_last_that_it_names(world: World) -> None:
    world.admission = world.make_admission(trusts_proxy=True)
    api = make_api(world)
    named = {"X-Forwarded-For": "203.0.113.1, 198.51.100.20"}
    assert (await ask(api, BTC, key=KEYS["elsewhere"], headers=named)).status == 200
    claimed = {"X-Forwarded-For": "198.51.100.20, 203.0.113.1"}
    assert (await ask(api, BTC, key=KEYS["elsewhere"], headers=claimed)).status == 403


async def test_address_is_nobodys_claim_without_a_proxy(api: PriceApi) -> None:
    claimed = {"X-Forwarded-For": "198.51.100.20"}
    assert (await ask(api, BTC, key=KEYS["elsewhere"], headers=claimed)).status == 403


async def test_rate_is_refused_until_the_time_that_is_told(world: World, api: PriceApi) -> None:
    for _ in range(5):
        assert (await ask(api, BTC, key=KEYS["free"])).status == 200
    answer = await ask(api, BTC, key=KEYS["free"])
    assert problem(answer) == (429, "rate_limited")
    assert answer.json()["retry_after_ms"] == 1_000
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["ratelimit"].startswith('"rate";r=0;t=1, "month";r=995')
    assert world.counters.seen()["rate_limited"] == 1
    world.clock.forward(999)
    assert (await ask(api, BTC, key=KEYS["free"])).status == 429
    world.clock.forward(1)
    assert (await ask(api, BTC, key=KEYS["free"])).status == 200


async def test_cap_is_refused_until_the_month_ends(world: World, api: PriceApi) -> None:
    row = world.gate.find(keys.digest(KEYS["free"]))
    assert row is not None
    world.gate.restore(row, MONTH, 999)
    assert (await ask(api, BTC, key=KEYS["free"])).status == 200
    answer = await ask(api, BTC, key=KEYS["free"])
    assert problem(answer) == (429, "quota_exceeded")
    assert answer.headers["retry-after"] == str(MONTH_S)
    assert (answer.json()["limit"], answer.json()["resets_at"]) == (1_000, "2025-12-01T00:00:00.000000Z")
    assert world.counters.seen()["quota_exceeded"] == 1


async def test_who_guesses_is_told_to_wait(world: World, api: PriceApi) -> None:
    world.guesses.slowed["192.0.2.7"] = 3
    answer = await ask(api, BTC, key=KEYS["unknown"])
    assert problem(answer) == (429, "too_many_attempts")
    assert answer.headers["retry-after"] == "3"
    assert world.guesses.noted == [("refused", "192.0.2.7", KEYS["unknown"][:12])]
    assert (await ask(api, BTC, key=KEYS["pro"])).status == 200


async def test_text_that_is_no_key_is_not_kept(world: World, api: PriceApi) -> None:
    await ask(api, BTC, key="my-other-password")
    assert world.guesses.noted == [("refused", "192.0.2.7", "")]


async def test_no_key_is_unknown_before_the_keys_were_read(world: World, api: PriceApi) -> None:
    world.gate.set_month(0, 0)
    answer = await ask(api, BTC, key=KEYS["unknown"])
    assert problem(answer) == (503, "keys_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "retry-after" in answer.headers["access-control-expose-headers"]
    assert world.guesses.noted == []


# -- /usage


async def test_usage_tells_limits_and_counts_of_all_nodes(world: World, api: PriceApi) -> None:
    row = world.gate.find(keys.digest(KEYS["pro"]))
    assert row is not None
    world.gate.set_others(row, MONTH, 30)
    await ask(api, BTC, key=KEYS["pro"])
    answer = await ask(api, "/usage", key=KEYS["pro"])
    assert answer.json() == {
        "key_id": 3,
        "partner": False,
        "rate": {"burst": 20, "per_second": 10.0, "remaining": 19, "reset_ms": 100},
        "month": {
            "name": "2025-11",
            "used": 31,
            "limit": 50_000,
            "remaining": 49_969,
            "resets_at": "2025-12-01T00:00:00.000000Z",
        },
    }
    assert "ratelimit" in answer.headers


async def test_usage_takes_nothing_and_answers_when_nothing_is_left(world: World, api: PriceApi) -> None:
    for _ in range(6):
        await ask(api, BTC, key=KEYS["free"])
    answer = await ask(api, "/usage", key=KEYS["free"])
    assert (answer.status, answer.json()["rate"]["remaining"]) == (200, 0)
    assert used(world, "free") == 5


async def test_usage_of_a_partner_has_no_limits(api: PriceApi) -> None:
    await ask(api, BTC)
    usage = (await ask(api, "/usage")).json()
    assert (usage["partner"], usage["rate"]) == (True, None)
    assert (usage["month"]["used"], usage["month"]["limit"], usage["month"]["remaining"]) == (1, None, None)


async def test_usage_is_for_keys(api: PriceApi) -> None:
    assert problem(await ask(api, "/usage", key=None)) == (401, "unauthorized")


# -- the demo


async def token(api: PriceApi, **headers: str) -> Answer:
    return await ask(api, "/demo-token", method="POST", key=None, headers={**PAGE, **headers})


async def test_token_asks_like_a_key(api: PriceApi) -> None:
    made = (await token(api)).json()
    assert made["expires_in_s"] == LIFE_S
    answer = await ask(api, BTC, key=made["token"], headers=SITE)
    assert answer.status == 200
    assert answer.headers["ratelimit-policy"] == f'"rate";q={BURST};w=10, "month";q={PER_MONTH};w={MONTH_S}'
    assert (await ask(api, "/usage", key=made["token"], headers=SITE)).json()["key_id"] is None


async def test_tokens_of_one_client_share_their_limits(world: World, api: PriceApi) -> None:
    answers = []
    for _ in range(BURST + 1):
        made = (await token(api)).json()["token"]
        answers.append((await ask(api, BTC, key=made, headers=SITE)).status)
    assert answers == [200] * BURST + [429]
    assert world.counters.seen()["rate_limited"] == 1


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"Host": "other.example"}, "192.0.2.7"),
        ({**SITE, "Sec-Fetch-Site": "cross-site"}, "192.0.2.7"),
        ({**SITE, "Origin": "https://other.example"}, "192.0.2.7"),
        (SITE, "192.0.2.8"),
    ],
)
async def test_token_is_for_one_page_and_one_client(
    world: World, api: PriceApi, headers: dict[str, str], client: str
) -> None:
    made = (await token(api)).json()["token"]
    answer = await ask(api, BTC, key=made, headers=headers, client=(client, 1))
    assert problem(answer) == (401, "unauthorized")
    assert world.guesses.noted == []


async def test_token_ends(world: World, api: PriceApi) -> None:
    made = (await token(api)).json()["token"]
    world.clock.forward((LIFE_S - 1) * 1_000)
    world.tick("BTC", "coinbase", "1.10")
    assert (await ask(api, BTC, key=made, headers=SITE)).status == 200
    world.clock.forward(1_000)
    assert (await ask(api, BTC, key=made, headers=SITE)).status == 401


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://other.example"}])
async def test_token_is_made_for_this_sites_pages_alone(api: PriceApi, headers: dict[str, str]) -> None:
    assert problem(await token(api, **headers)) == (403, "forbidden")


async def test_token_is_not_made_for_who_does_not_say_whose_page_it_is(api: PriceApi) -> None:
    answer = await ask(api, "/demo-token", method="POST", key=None, headers={"Host": "prices.example"})
    assert problem(answer) == (403, "forbidden")


async def test_token_is_not_made_by_following_a_link(api: PriceApi) -> None:
    assert (await ask(api, "/demo-token", headers=SITE)).status == 405


def test_month_of_the_tests_is_their_clocks(world: World) -> None:
    assert world.gate.month(world.clock.mono + (MONTH_S - 1) * SECOND_NS) == MONTH
