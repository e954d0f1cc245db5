"""A worker over real sockets: the lower tiers, its bounds, its end, what the kernel has dropped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from pricing.problems import Problem
from telemetry.running import stop_on_signals
from tests.pricing.doubles import KEYS
from tests.udp_engine.live import Live, request, without_age
from tests.udp_engine.working import PricesDouble, make_worker, priced, replies, told, until, working
from udp_engine import slow, sockets, worker
from udp_engine.worker import Worker

KEY = KEYS["partner"].encode()


@pytest.fixture
def live() -> Iterator[Live]:
    with Live() as live:
        yield live


@pytest.fixture
def prices() -> PricesDouble:
    return PricesDouble()


def several(*assets: str, id: str = "7") -> bytes:
    return b'{"id":"%b","assets":["%b"],"api_key":"%b"}' % (id.encode(), '","'.join(assets).encode(), KEY)


# ---- what it answers


async def test_board_and_lower_tiers_answer_the_same_client(live: Live, prices: PricesDouble) -> None:
    client = live.client()
    async with working(live, prices):
        live.send(client, request(id="1"))
        assert [without_age(reply) for reply in await replies(client, 1)] == [live.told("1")]
        live.send(client, request(asset="ETH", id="2", exchange="kraken", max_age_ms=9))
        assert await replies(client, 1) == [b'{"id":"2",' + told("ETH", 2) + b"}"]
        live.send(client, request(asset="UNI"))
        assert await replies(client, 1) == [b"{" + told("UNI", 3) + b"}"]
    assert [(one.asset, one.exchange, one.max_age_ms) for one in prices.asked] == [
        ("ETH", "kraken", 9),
        ("UNI", None, None),
    ]
    account = live.account()
    assert (account.sent, account.difference, account.latencies) == (3, 0, 3)
    assert [account.totals[f"bg_work_{what}"] for what in ("submitted", "completed", "dropped")] == [2, 2, 0]


@pytest.mark.parametrize(
    ("asset", "reply"),
    [("XXX", b'{"error":"unknown_asset"}'), ("OLD", b'{"error":"stale","age_ms":5120}')],
)
async def test_problem_is_told_by_its_code(
    live: Live, prices: PricesDouble, asset: str, reply: bytes
) -> None:
    client = live.client()
    async with working(live, prices):
        live.send(client, request(asset=asset))
        assert await replies(client, 1) == [reply]


async def test_several_assets_are_answered_in_their_order(live: Live, prices: PricesDouble) -> None:
    prices.board["BTC"] = priced("BTC", 1, "67123.45")
    client = live.client()
    async with working(live, prices):
        live.send(client, several("ETH", "XXX", "BTC", "OLD", "UNI"))
        (reply,) = await replies(client, 1)
    assert reply == (
        b'{"id":"7","prices":[{%b},{"asset":"XXX","error":"unknown_asset"},{%b},'
        b'{"asset":"OLD","error":"stale","age_ms":5120},{%b}]}'
        % (told("ETH", 2), told("BTC", 1, "67123.45"), told("UNI", 3))
    )
    assert live.account().totals["udp_requests"] == 1


async def test_what_has_no_room_is_omitted_by_name(live: Live, prices: PricesDouble) -> None:
    names = [f"A{number:02}" for number in range(30)]
    prices.board.update({name: priced(name, 1) for name in names})
    client = live.client()
    async with working(live, prices):
        live.send(client, several(*names))
        (reply,) = await replies(client, 1)
    assert 1_050 < len(reply) <= 1_200
    assert reply.endswith(b'"A29"]}')
    assert prices.asked == []  # all of it was on the board


async def test_bad_datagrams_do_not_end_it(live: Live, prices: PricesDouble) -> None:
    client = live.client()
    async with working(live, prices):
        live.send(client, b"hello", b"", b"\0" * 9, b"[" * 1_200, b"x" * 60_000, request("unknown"))
        live.send(client, request(id="after"))
        refused, good = await replies(client, 2)
    assert refused == b'{"error":"unauthorized"}'
    assert without_age(good) == live.told("after")


# ---- what goes wrong below


async def test_exception_of_the_lower_tiers_is_unavailable(
    live: Live, prices: PricesDouble, caplog: pytest.LogCaptureFixture
) -> None:
    prices.lower["ETH"] = RuntimeError("no")
    client = live.client()
    async with working(live, prices):
        live.send(client, request(asset="ETH"), request(asset="ETH"), request(asset="UNI"))
        assert sorted(await replies(client, 3)) == [
            b"{" + told("UNI", 3) + b"}",
            *[b'{"error":"unavailable"}'] * 2,
        ]
    assert caplog.text.count("Answering 'ETH' failed") == 1


async def test_exception_of_the_board_is_unavailable_and_harms_nobody_else(
    live: Live, prices: PricesDouble
) -> None:
    prices.board["ETH"] = RuntimeError("no")
    client = live.client()
    live.send(client, request(asset="ETH", id="1"), several("UNI", "ETH"), request(asset="UNI", id="3"))
    async with working(live, prices):
        assert sorted(await replies(client, 3)) == [
            b'{"id":"1","error":"unavailable"}',
            b'{"id":"3",' + told("UNI", 3) + b"}",
            b'{"id":"7","prices":[{%b},{"asset":"ETH","error":"unavailable"}]}' % told("UNI", 3),
        ]
    assert live.account().difference == 0


async def test_what_comes_beyond_a_keys_share_is_shed(live: Live, prices: PricesDouble) -> None:
    prices.gate.clear()
    client = live.client()
    async with working(live, prices, waiting=8):
        live.send(client, *[request(asset="ETH", id=str(number)) for number in range(5)])
        await until(lambda: live.account().drops == {"shed": 3})
        live.send(client, request())
        assert len(await replies(client, 1)) == 1  # the board still answers
        prices.gate.set()
        assert len(await replies(client, 2)) == 2
        live.send(client, request(asset="ETH"))
        assert len(await replies(client, 1)) == 1
    account = live.account()
    assert account.difference == 0
    assert [account.totals[f"bg_work_{what}"] for what in ("submitted", "completed", "dropped")] == [6, 3, 3]


async def test_key_that_asks_too_much_leaves_room_for_others(live: Live, prices: PricesDouble) -> None:
    prices.gate.clear()
    client = live.client()
    async with working(live, prices, waiting=8):
        live.send(client, *[request(asset="ETH")] * 20)
        await until(lambda: live.account().drops == {"shed": 18})
        live.send(client, *[request("unlimited", asset="UNI", id=str(number)) for number in range(2)])
        prices.gate.set()
        assert len(await replies(client, 4)) == 4
    assert live.account().drops == {"shed": 18}


async def test_what_comes_beyond_the_bound_is_shed_whoever_asks(live: Live, prices: PricesDouble) -> None:
    prices.gate.clear()
    client = live.client()
    async with working(live, prices, waiting=1):
        live.send(client, request(asset="ETH"))
        await until(lambda: len(prices.asked) == 1)
        live.send(client, request("unlimited", asset="ETH"))
        await until(lambda: live.account().drops == {"shed": 1})
        prices.gate.set()
        assert len(await replies(client, 1)) == 1


async def test_many_questions_leave_the_loop_its_turns(
    live: Live, prices: PricesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow, "SLICE_NS", 0)
    prices.board["ETH"] = priced("ETH", 1)
    client, turns, done = live.client(), 0, asyncio.Event()

    async def count_turns() -> None:
        nonlocal turns
        while not done.is_set():
            await asyncio.sleep(0)
            turns += 1

    live.send(client, *[request(asset="ETH")] * 200)
    async with working(live, prices, waiting=1_000):
        counting = asyncio.create_task(count_turns())
        assert len(await replies(client, 200)) == 200
        done.set()
        await counting
    assert turns >= 200


# ---- its end


def leaves_nothing(live: Live) -> None:
    loop = asyncio.get_running_loop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not loop.remove_reader(live.socket)
    assert not loop.remove_writer(live.socket)
    assert live.socket.fileno() >= 0  # its opener's
    assert live.account().difference == 0


def run(worker: Worker, stop: asyncio.Event) -> asyncio.Task[None]:
    return asyncio.create_task(worker.run(stop), name="worker")


async def test_stop_by_event_lets_what_waits_finish(live: Live, prices: PricesDouble) -> None:
    prices.gate.clear()
    client, stop = live.client(), asyncio.Event()
    running = run(make_worker(live, prices), stop)
    live.send(client, request(asset="ETH"))
    await until(lambda: bool(prices.asked))
    stop.set()
    await asyncio.sleep(0.01)
    assert not running.done()
    live.send(client, request(id="later"))  # stays in the socket
    prices.gate.set()
    await running
    assert await replies(client, 1) == [b"{" + told("ETH", 2) + b"}"]
    leaves_nothing(live)
    async with working(live, prices):
        assert without_age((await replies(client, 1))[0]) == live.told("later")


async def test_stop_counts_what_is_not_answered_in_time(
    live: Live, prices: PricesDouble, caplog: pytest.LogCaptureFixture
) -> None:
    prices.gate.clear()
    stop = asyncio.Event()
    running = run(make_worker(live, prices, grace_ms=20), stop)
    live.send(live.client(), request(asset="ETH"), several("ETH", "UNI"))
    await until(lambda: len(prices.asked) == 3)
    stop.set()
    await running
    assert live.account().drops == {"stopped": 2}
    assert "Left with 2 questions unanswered" in caplog.text
    leaves_nothing(live)


async def test_stop_by_cancellation_leaves_nothing(live: Live, prices: PricesDouble) -> None:
    prices.gate.clear()
    running = run(make_worker(live, prices, grace_ms=20), asyncio.Event())
    live.send(live.client(), request(asset="ETH"), request())
    await until(lambda: len(prices.asked) == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert live.account().drops == {"stopped": 1}
    leaves_nothing(live)


async def test_stop_by_signal_leaves_nothing(live: Live, prices: PricesDouble) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    running = run(make_worker(live, prices), stop)
    client = live.client()
    live.send(client, request())
    assert len(await replies(client, 1)) == 1
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    leaves_nothing(live)


# ---- what the kernel has dropped


def overfill(live: Live, count: int) -> None:
    live.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    live.send(live.client(), *[request()] * count)


async def test_kernel_drops_are_counted_once(live: Live, prices: PricesDouble) -> None:
    overfill(live, 100)
    lost = sockets.kernel_drops(live.socket)
    assert 0 < lost < 100
    async with working(live, prices):
        await until(lambda: live.account().received == 100)
    assert live.account().drops == {"kernel": lost}
    async with working(live, prices):  # another one on the same socket
        await asyncio.sleep(0)
    assert live.account().drops == {"kernel": lost}
    assert (live.account().sent, live.account().difference) == (100 - lost, 0)


async def test_kernel_drops_of_a_new_socket_begin_anew(live: Live, prices: PricesDouble) -> None:
    overfill(live, 100)
    async with working(live, prices):
        await until(lambda: live.account().received == 100)
    before = live.account().drops["kernel"]
    with Live() as other:
        other.memory = live.memory  # the same row
        overfill(other, 100)
        lost = sockets.kernel_drops(other.socket)
        async with working(other, prices):
            await until(lambda: live.account().received == 200)
    assert live.account().drops == {"kernel": before + lost}


async def test_count_of_the_kernel_wraps(
    live: Live, prices: PricesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "DROPS_PERIOD_S", 0.001)
    so_far = iter([2**32 - 2, 2**32 - 1, *[3] * 1_000_000])
    monkeypatch.setattr(sockets, "kernel_drops", lambda opened: next(so_far))
    async with working(live, prices):
        await until(lambda: live.account().drops.get("kernel") == 2**32 + 3)
    assert live.account().drops == {"kernel": 2**32 + 3}


# ---- what it tells the kernel, and the kernel it


async def test_buffers_are_read_back(live: Live, prices: PricesDouble) -> None:
    live.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    async with working(live, prices) as worker:
        assert worker.buffers.receive_bytes == 100_000
    assert live.account().sockets[32] == worker.buffers


async def test_workers_share_what_a_network_may_be_refused(live: Live, prices: PricesDouble) -> None:
    client = live.client()
    async with working(live, prices, workers=5, refusals_per_s=5, refusal_burst=20):
        live.send(client, *[request("unknown")] * 10)
        assert len(await replies(client, 4)) == 4
        await until(lambda: live.account().drops == {"limited": 6})


async def test_worker_on_all_addresses_answers_from_the_one_that_was_asked(prices: PricesDouble) -> None:
    with Live("0.0.0.0") as live:
        client = live.client()
        async with working(live, prices):
            live.send(client, request(asset="ETH"), to="127.0.0.6")
            _, sender = await asyncio.to_thread(client.recvfrom, 2_000)
    assert sender == ("127.0.0.6", live.port)


async def test_problem_of_an_unknown_exchange_is_unknown_asset(live: Live, prices: PricesDouble) -> None:
    prices.board["ETH"] = Problem("unknown_exchange", "")
    client = live.client()
    async with working(live, prices):
        live.send(client, request(asset="ETH"))
        assert await replies(client, 1) == [b'{"error":"unknown_asset"}']
