"""The HTTP fast path beside the ordinary way: the same bytes in, the same bytes out, the same left behind."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from billing import keys
from billing.ratelimit import SECOND_NS
from tests.pricing.doubles import KEYS
from tests.pricing.wires import DATE, Wire, Wired

KEY = KEYS["pro"]
PLAIN = f"GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n".encode()


def request(
    target: str = "/price?asset=BTC",
    *lines: str,
    key: str | None = KEY,
    method: str = "GET",
    version: str = "1.1",
    host: str | None = "x",
) -> bytes:
    head = [f"{method} {target} HTTP/{version}"]
    head += [] if host is None else [f"Host: {host}"]
    head += [] if key is None else [f"X-API-Key: {key}"]
    return "\r\n".join([*head, *lines, "", ""]).encode("latin-1")


def filled(*, fast: bool) -> Wired:
    """Make a world with fresh prices, a stale one, one not shown in public, and words that need escapes."""
    world = Wired(fast=fast)
    world.tick("BTC", "coinbase", "67123.450", delay_ms=40)
    world.tick("BTC", "kraken", "67120.1", delay_ms=700)
    world.tick("UNI", "okx", "5.1")
    world.tick("UNI", "kraken", "5.2", delay_ms=300)
    world.tick("GUSD", "gemini", "1.00")
    world.tick("ETH", "kraken", "3000.1", delay_ms=3_600_000)
    return world


@pytest.fixture
async def worlds() -> AsyncIterator[tuple[Wired, Wired]]:
    pair = filled(fast=True), filled(fast=False)
    yield pair
    for world in pair:
        await world.aclose()


def left_behind(world: Wired) -> tuple[Any, ...]:
    usages = [world.gate.usage(row) for row in range(8)]
    counted = world.counted.totals(), world.counted.latencies(), world.counted.took_ns()
    usages = [usages, world.spool.take()]
    return counted, usages, [world.gate.key(row) for row in range(8)], world.guesses.noted


async def both_ways(worlds: tuple[Wired, Wired], *pieces: bytes) -> tuple[bytes, Wire]:
    """Send the same on a new connection of each world; return the answer, and the fast one's connection."""
    wires = [world.connect() for world in worlds]
    answers = [await wire.send(*pieces) for wire in wires]
    for wire in wires:
        wire.close()
    assert answers[0] == answers[1]
    assert wires[0].transport.closing == wires[1].transport.closing
    assert left_behind(worlds[0]) == left_behind(worlds[1])
    return answers[0], wires[0]


FAST = {
    "plain": PLAIN,
    "bearer": request("/price?asset=BTC", f"Authorization: Bearer {KEY}", key=None),
    "bearer in capitals": request("/price?asset=BTC", f"AUTHORIZATION: BEARER {KEY}", key=None),
    "exchange": request("/price?asset=BTC&exchange=kraken"),
    "exchange first": request("/price?exchange=kraken&asset=BTC"),
    "age": request("/price?asset=BTC&max_age_ms=50"),
    "greatest age": request("/price?asset=BTC&max_age_ms=86400000"),
    "not home, home is not listed": request("/price?asset=UNI&exchange=kraken"),
    "other headers": request("/price?asset=BTC", "User-Agent: a", "Accept: */*", "X-Empty:", "Accept: b\t "),
    "keep-alive": request("/price?asset=BTC", "Connection: Keep-Alive"),
    "spaces about values": request("/price?asset=BTC", f"X-API-Key:\t {KEY} \t", key=None),
    "partner": request(key=KEYS["partner"]),
    "free": request(key=KEYS["free"]),
    "no cap": request(key=KEYS["unlimited"]),
}


@pytest.mark.parametrize("question", FAST.values(), ids=FAST)
async def test_plain_question_takes_the_fast_path_and_is_answered_as_ever(
    worlds: tuple[Wired, Wired], question: bytes
) -> None:
    answer, wire = await both_ways(worlds, question)
    assert wire.slow == 0
    assert answer.startswith(b"HTTP/1.1 200 OK\r\ndate: ")


SLOW = {
    "body": request("/price?asset=BTC", "Content-Length: 2") + b"hi",
    "empty body": request("/price?asset=BTC", "Content-Length: 0"),
    "chunked": request("/price?asset=BTC", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "expect": request("/price?asset=BTC", "Expect: 100-continue"),
    "upgrade": request("/price?asset=BTC", "Connection: upgrade", "Upgrade: h2c"),
    "upgrade alone": request("/price?asset=BTC", "Upgrade: h2c"),
    "trailer": request("/price?asset=BTC", "Trailer: x"),
    "close": request("/price?asset=BTC", "Connection: close"),
    "proxy-connection": request("/price?asset=BTC", "Proxy-Connection: close"),
    "two of them": PLAIN * 2,
    "more than one": PLAIN + b"G",
    "less than one": PLAIN[:-1],
    "no host": request(host=None),
    "two hosts": request("/price?asset=BTC", "Host: y"),
    "empty host": request(host=""),
    "two keys": request("/price?asset=BTC", f"X-API-Key: {KEYS['free']}"),
    "key twice": request("/price?asset=BTC", f"Authorization: Bearer {KEY}"),
    "no key": request(key=None),
    "basic": request("/price?asset=BTC", "Authorization: Basic " + "x" * 48, key=None),
    "folded": request("/price?asset=BTC", "X-A: b", " c"),
    "space before the colon": request("/price?asset=BTC", "X-A : b"),
    "no colon": request("/price?asset=BTC", "X-A"),
    "not ASCII": request("/price?asset=BTC", "X-A: \xe9"),
    "control character": request("/price?asset=BTC", "X-A: \x01"),
    "line feeds alone": PLAIN.replace(b"\r\n", b"\n"),
    "carriage returns alone": PLAIN.replace(b"\r\n", b"\r"),
    "absolute": request("http://x/price?asset=BTC"),
    "escape": request("/price?asset=%42TC"),
    "plus": request("/price?asset=BTC+"),
    "fragment": request("/price?asset=BTC#x"),
    "lower case": request("/price?asset=btc"),
    "exchange in capitals": request("/price?asset=BTC&exchange=Kraken"),
    "exchange that begins oddly": request("/price?asset=BTC&exchange=_kraken"),
    "parameter twice": request("/price?asset=BTC&asset=BTC"),
    "exchange twice": request("/price?asset=BTC&exchange=kraken&exchange=kraken"),
    "age twice": request("/price?asset=BTC&max_age_ms=5000&max_age_ms=5000"),
    "leading zero": request("/price?asset=BTC&max_age_ms=05000"),
    "age too great": request("/price?asset=BTC&max_age_ms=86400001"),
    "age far too great": request("/price?asset=BTC&max_age_ms=99999999999999999999"),
    "empty age": request("/price?asset=BTC&max_age_ms="),
    "negative age": request("/price?asset=BTC&max_age_ms=-1"),
    "trailing ampersand": request("/price?asset=BTC&"),
    "no asset": request("/price?exchange=kraken"),
    "empty asset": request("/price?asset="),
    "long asset": request("/price?asset=" + "B" * 33),
    "other parameter": request("/price?asset=BTC&min_sources=1"),
    "key in the query": request(f"/price?asset=BTC&api_key={KEY}"),
    "HEAD": request(method="HEAD"),
    "lower-case method": request(method="get"),
    "HTTP/1.0": request(version="1.0"),
    "HTTP/1.2": request(version="1.2"),
    "no query": request("/price"),
    "other path": request("/pricey?asset=BTC"),
    "long head": request("/price?asset=BTC", *[f"X-{number}: {'y' * 40}" for number in range(50)]),
    "many headers": request("/price?asset=BTC", *["a:b"] * 110),
    "unknown asset": request("/price?asset=NOPE"),
    "asset that is not shown": request("/price?asset=GUSD"),
    "exchange that is not shown": request("/price?asset=BTC&exchange=gemini"),
    "home that is not shown": request("/price?asset=UNI"),
    "unknown exchange": request("/price?asset=BTC&exchange=nope"),
    "stale": request("/price?asset=ETH"),
    "stale at that exchange": request("/price?asset=ETH&exchange=kraken"),
    "older than asked": request("/price?asset=BTC&max_age_ms=39"),
    "never traded there": request("/price?asset=BTC&exchange=okx"),
    "unknown key": request(key=KEYS["unknown"]),
    "revoked key": request(key=KEYS["revoked"]),
    "expired key": request(key=KEYS["expired"]),
    "key for reports": request(key=KEYS["reports"]),
    "key from elsewhere": request(key=KEYS["elsewhere"]),
    "key with a character more": request(key=KEY + "x"),
    "key with a character wrong": request(key=KEY[:-1] + ("a" if KEY[-1] != "a" else "b")),
    "demo token": request(key="tb_demo_" + "A" * 40),
}


@pytest.mark.parametrize("question", SLOW.values(), ids=SLOW)
async def test_anything_unusual_goes_the_ordinary_way(worlds: tuple[Wired, Wired], question: bytes) -> None:
    fast_path = worlds[0].app_state["fast_path"]
    before = left_behind(worlds[0])
    assert fast_path.answer(question, None, worlds[0].server_state.default_headers) is None
    assert left_behind(worlds[0]) == before
    await both_ways(worlds, question)


async def test_without_room_for_usage_nobody_is_answered(worlds: tuple[Wired, Wired]) -> None:
    for world in worlds:
        world.spool.appender.close()
    answer, wire = await both_ways(worlds, PLAIN)
    assert (wire.slow, answer[9:12]) == (1, b"503")
    assert b'"code":"usage_unavailable"' in answer
    assert worlds[0].gate.changed() == []
    assert worlds[0].spool.appender.refused == 1


async def test_without_room_for_usage_answers_go_on_where_the_operator_chose_so(
    worlds: tuple[Wired, Wired],
) -> None:
    for world in worlds:
        world.spool.appender.close()
        world.spool.appender.sheds = True
    answer, wire = await both_ways(worlds, PLAIN)
    assert (wire.fast, answer[9:12]) == (1, b"200")
    assert [world.spool.appender.tally.shed for world in worlds] == [1, 1]


async def test_fast_answer_is_one_bracket_and_a_refused_one_ends_it(world: Wired) -> None:
    wire = world.connect()
    await wire.send(PLAIN)
    assert world.spool.appender.tally == (1, 1, 0, 0, 0)
    fast_path = world.app_state["fast_path"]
    assert fast_path.answer(request(key=KEYS["revoked"]), None, [DATE]) is None
    assert world.spool.appender.tally == (2, 2, 0, 0, 0)
    wire.close()


async def test_limits_run_out_alike_and_are_told_alike(worlds: tuple[Wired, Wired]) -> None:
    question = request(key=KEYS["free"])
    answers = []
    for _ in range(8):
        answer, _ = await both_ways(worlds, question)
        answers.append(answer[9:12])
        for world in worlds:
            world.clock.forward(100)
    assert answers == [b"200"] * 5 + [b"429"] * 3


async def test_cap_runs_out_alike(worlds: tuple[Wired, Wired]) -> None:
    for world in worlds:
        row = world.gate.find(keys.digest(KEYS["free"]))
        assert row is not None
        world.gate.restore(row, 202511, 998)
    question = request(key=KEYS["free"])
    answers = [(await both_ways(worlds, question))[0] for _ in range(3)]
    assert [answer[9:12] for answer in answers] == [b"200", b"200", b"429"]
    assert b'"month";r=0;t=' in answers[1]


async def test_connection_goes_back_and_forth_between_both_ways(worlds: tuple[Wired, Wired]) -> None:
    wires = [world.connect() for world in worlds]
    pieces = [
        PLAIN,
        SLOW["lower case"],
        PLAIN,
        PLAIN[:9],
        PLAIN[9:],
        PLAIN,
        PLAIN * 3,
        PLAIN,
        SLOW["HEAD"],
        PLAIN,
    ]
    answers = [await wire.send(*pieces) for wire in wires]
    assert answers[0] == answers[1]
    assert answers[0].count(b"HTTP/1.1 200 OK") == 11
    assert wires[0].slow < wires[1].slow
    assert left_behind(worlds[0]) == left_behind(worlds[1])
    for wire in wires:
        wire.close()


async def test_body_that_looks_like_a_question_is_a_body(worlds: tuple[Wired, Wired]) -> None:
    wire = worlds[0].connect()
    lines = "Content-Type: application/json", f"Content-Length: {len(PLAIN)}"
    wire.protocol.data_received(request("/prices", *lines, method="POST"))
    answer = await wire.send(PLAIN)
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.startswith(b"HTTP/1.1 400")
    wire.close()


async def test_client_that_does_not_read_is_held_up_by_the_ordinary_way() -> None:
    world = filled(fast=True)
    wire = world.connect()
    wire.protocol.pause_writing()
    wire.protocol.data_received(PLAIN)
    assert world.server_state.tasks
    wire.protocol.resume_writing()
    assert (await wire.send(b"")).count(b"HTTP/1.1 200 OK") == 1
    wire.close()
    await world.aclose()


@pytest.fixture
async def world() -> AsyncIterator[Wired]:
    world = filled(fast=True)
    yield world
    await world.aclose()


async def test_connection_is_kept_alive_from_its_last_question_on(world: Wired) -> None:
    world.config.timeout_keep_alive = 0.2  # type: ignore[assignment]  # the loop takes fractions
    wire = world.connect()
    for _ in range(3):
        await wire.send(PLAIN)
        await asyncio.sleep(0.1)
    assert not wire.transport.closing
    await asyncio.sleep(0.2)
    assert wire.transport.closing
    assert (wire.fast, world.server_state.total_requests) == (3, 3)
    wire.close()


async def test_deadline_of_the_first_head_is_kept_by_a_plain_question(world: Wired) -> None:
    wire = world.connect()
    assert wire.protocol._deadline is not None
    await wire.send(PLAIN)
    assert wire.protocol._deadline is None
    wire.close()


async def test_stopping_server_closes_between_questions(world: Wired) -> None:
    wire = world.connect()
    await wire.send(PLAIN)
    wire.protocol.shutdown()
    assert wire.transport.closing
    wire.close()


async def test_health_port_has_no_prices(world: Wired) -> None:
    wire = world.connect(port=8081)
    assert (await wire.send(PLAIN)).startswith(b"HTTP/1.1 404")
    wire.close()


@pytest.mark.parametrize(
    ("state", "fast"), [({}, 1), ({"trusts_proxy": True}, 0)], ids=["direct", "behind a proxy"]
)
async def test_network_is_that_of_the_connection_unless_a_proxy_tells(
    world: Wired, state: dict[str, Any], fast: int
) -> None:
    world.app_state |= state
    wire = world.connect("198.51.100.20")
    await wire.send(request(key=KEYS["elsewhere"]))
    assert wire.fast + wire.slow == 1
    assert wire.fast == fast
    wire.close()


async def test_text_that_needs_escapes_goes_the_ordinary_way(worlds: tuple[Wired, Wired]) -> None:
    for world in worlds:
        world.board.set_exchange("kraken", source='say "ws"', quote="USD")
        world.tick("BTC", "kraken", "1.5")
    answer, wire = await both_ways(worlds, request("/price?asset=BTC&exchange=kraken"))
    assert wire.slow == 1
    assert rb'"source":"say \"ws\""' in answer


async def test_price_that_needs_escapes_goes_the_ordinary_way(worlds: tuple[Wired, Wired]) -> None:
    for world in worlds:
        world.tick("BTC", "coinbase", '1"')
    answer, wire = await both_ways(worlds, PLAIN)
    assert wire.slow == 1
    assert rb'"price":"1\""' in answer


async def test_gate_that_is_not_filled_admits_nobody(worlds: tuple[Wired, Wired]) -> None:
    for world in worlds:
        world.gate.set_month(0, 0)
    answer, wire = await both_ways(worlds, PLAIN)
    assert (wire.slow, answer[9:12]) == (1, b"503")
    assert worlds[0].gate.changed() == []


async def test_label_that_changes_is_told_at_once(worlds: tuple[Wired, Wired]) -> None:
    question = request("/price?asset=BTC&exchange=kraken")
    await both_ways(worlds, question)
    for world in worlds:
        world.board.set_exchange("kraken", source="kraken-ws", quote="EUR")
        world.tick("BTC", "kraken", "1.5")
    answer, wire = await both_ways(worlds, question)
    assert wire.slow == 0
    assert b'"quote":"EUR"' in answer


async def test_asset_that_is_taken_out_is_answered_no_more(worlds: tuple[Wired, Wired]) -> None:
    fast_path = worlds[0].app_state["fast_path"]
    fast_path.follow({"ETH": ("kraken",)})
    assert fast_path.answer(PLAIN, None, [DATE]) is None


@pytest.mark.parametrize(
    "wall_ns",
    [
        0,
        951_782_399 * SECOND_NS,
        951_782_400 * SECOND_NS + 999_999_999,
        4_102_444_799 * SECOND_NS,
        2**63 - 1,
    ],
)
async def test_time_is_written_alike(worlds: tuple[Wired, Wired], wall_ns: int) -> None:
    for world in worlds:
        world.board.write(world.board.place("BTC", "coinbase"), "1", wall_ns, wall_ns, world.clock.mono)
    _, wire = await both_ways(worlds, PLAIN)
    assert wire.slow == 0


async def test_time_before_1970_goes_the_ordinary_way(worlds: tuple[Wired, Wired]) -> None:
    for world in worlds:
        world.board.write(world.board.place("BTC", "coinbase"), "1", -1, -1, world.clock.mono)
    _, wire = await both_ways(worlds, PLAIN)
    assert wire.slow == 1


@pytest.mark.parametrize("month", [202402, 202502, 202504, 210002, 200002, 202512])
async def test_month_is_as_long_as_it_is(worlds: tuple[Wired, Wired], month: int) -> None:
    for world in worlds:
        world.gate.set_month(month, world.clock.mono + 5 * SECOND_NS + 1)
    _, wire = await both_ways(worlds, PLAIN)
    assert wire.slow == 0


def test_closed_memory_goes_the_ordinary_way() -> None:
    world = filled(fast=True)
    world.gate.close()
    assert world.app_state["fast_path"].answer(PLAIN, None, [DATE]) is None


# -- the same bytes both ways, as chance has it

LINES = [
    *["User-Agent: curl/8", "Accept: */*", "Connection: keep-alive", "Accept-Encoding: gzip"] * 5,
    "Connection: close",
    "Content-Length: 0",
    "Content-Length: 3",
    "Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "Upgrade: h2c",
    "X-A : b",
    " folded",
    "X-Long: " + "y" * 900,
    "Host: y",
    "Origin: http://z",
    "Sec-Fetch-Site: cross-site",
    "X-Forwarded-For: 198.51.100.9",
    f"Authorization: bearer {KEYS['free']}",
    f"x-api-key:{KEYS['partner']}",
]
TARGETS = [
    *["/price?asset=BTC"] * 12,
    "/price?asset=UNI",
    "/price?asset=ETH",
    "/price?asset=GUSD",
    "/price?asset=NOPE",
    "/price?asset=btc",
    "/price?asset=BTC&exchange=kraken",
    "/price?exchange=okx&asset=UNI",
    "/price?asset=BTC&max_age_ms=41",
    "/price?asset=BTC&max_age_ms=0",
    "/price?asset=BTC&min_sources=2",
    "/price?asset=%42TC",
    "/price?asset=BTC&key=x",
    "/prices?assets=BTC,ETH",
    "/usage",
    "/exchanges",
    "http://x/price?asset=BTC",
]


def some_request(chance: random.Random) -> bytes:
    key = chance.choice([*KEYS.values(), *[KEYS["unlimited"], KEYS["partner"]] * 8, None])
    lines = chance.sample(LINES, k=chance.choice([0, 0, 0, 1, 1, 2, 3]))
    whole = bytearray(
        request(chance.choice(TARGETS), *lines, key=key, host=chance.choice(["x"] * 40 + [None]))
    )
    if chance.random() < 0.25:
        for _ in range(chance.randrange(1, 4)):
            spoil(whole, chance)
    return bytes(whole)


def spoil(whole: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(whole))
    act: Callable[[], None] = chance.choice(
        [
            lambda: whole.__setitem__(place, chance.randrange(256)),
            lambda: whole.__setitem__(place, chance.choice(b"\r\n :&=?%\t0aA")),
            lambda: whole.insert(place, chance.choice(b"\r\n :&=?%\t0aA")),
            lambda: whole.__delitem__(place),
            lambda: whole.__setitem__(slice(place, place), whole[place : place + 30]),
        ]
    )
    act()


def pieces_of(data: bytes, chance: random.Random) -> list[bytes]:
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice([0] * 8 + [1, 2, 3])))
    edges = [0, *cuts, len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(edges) if begin < end]


@pytest.mark.parametrize(
    "connections",
    [5_000, pytest.param(500_000, marks=[pytest.mark.full, pytest.mark.timeout(7200)])],
)
async def test_same_bytes_get_the_same_answers_both_ways(
    worlds: tuple[Wired, Wired], connections: int
) -> None:
    seed = int.from_bytes(os.urandom(4))
    chance = random.Random(seed)
    fast = slow = 0
    for number in range(connections):
        wires = [world.connect() for world in worlds]
        for _ in range(chance.randrange(1, 6)):
            data = b"".join(some_request(chance) for _ in range(chance.choice([1] * 9 + [2, 3])))
            pieces = pieces_of(data, chance)
            answers = [await wire.send(*pieces) for wire in wires]
            assert answers[0] == answers[1], (seed, number, pieces)
            assert wires[0].transport.closing == wires[1].transport.closing, (seed, number, pieces)
        fast += wires[0].fast
        slow += wires[0].slow
        step_ms = chance.choice([0, 5, 400])
        for world, wire in zip(worlds, wires, strict=True):
            wire.close()
            world.clock.forward(step_ms)
        refresh(worlds)
        if number % 50 == 0:
            assert left_behind(worlds[0]) == left_behind(worlds[1]), (seed, number)
    assert left_behind(worlds[0]) == left_behind(worlds[1]), seed
    print(f"{fast} answers by the fast path, {slow} questions the ordinary way")  # noqa: T201  # the drill's figure
    assert fast > connections / 5
    assert slow > connections / 5


def refresh(worlds: tuple[Wired, Wired]) -> None:
    """New trades in both worlds."""
    for world in worlds:
        world.tick("BTC", "coinbase", "67123.450", delay_ms=40)
        world.tick("BTC", "kraken", "67120.1", delay_ms=700)
        world.tick("UNI", "kraken", "5.2", delay_ms=300)


async def test_fast_answer_counts_the_time_from_its_bytes_to_its_answer(
    worlds: tuple[Wired, Wired],
) -> None:
    world, looks = worlds[0], itertools.count()

    def clock() -> tuple[int, int]:
        return world.clock.mono + 3_000 * next(looks), world.clock.wall

    path = world.make_fast_path(clock)
    assert path.answer(PLAIN, None, [DATE]) is not None
    assert world.counted.took_ns()["http"] == 6_000
    (log,) = world.spool.take()
    assert (log.latency_us, log.time_ns) == (3, world.clock.wall + 3_000)  # to its record
    assert sum(world.counted.latencies()["http"]) == 1
    assert path.answer(PLAIN[:-1], None, [DATE]) is None
    assert sum(world.counted.latencies()["http"]) == 1
