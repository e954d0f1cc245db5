"""Both clients against a server on loopback that loses, delays, confuses and refuses."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from tests.udp_engine.servers import Respond, Server, serving
from udp_engine.client import AsyncPriceClient, PriceClient
from udp_engine.exceptions import (
    BadReply,
    ClientClosed,
    NoAnswer,
    RateLimited,
    Refused,
    RequestTooLarge,
    Stale,
    Unauthorized,
    UnknownAsset,
)
from udp_engine.questions import Retry
from udp_engine.wire import CODES, MAX_DATAGRAM_BYTES, Failure, Price, Prices, Summary, render_refusal

KEY = "tb_live_secretsecretsecretsecretsecretse1CHECK"
QUICK = Retry(total_s=0.4, attempts=3)
PATIENT = QUICK._replace(waits_for_turn=True)

Ask = Callable[..., Any]


def price(asset: str = "BTC") -> Price:
    return Price(asset, "67123.450", "USD", "coinbase-ws", 1_763_816_400_123, 42, 1)


def silent(datagram: bytes, address: object) -> list[bytes]:
    return []


def id_of(datagram: bytes) -> str:
    return str(msgspec.json.decode(datagram)["id"])


def told(datagram: bytes, reply: Price | Prices | Summary, id: str | None = None) -> bytes:
    return b'{"id":"%b",' % (id or id_of(datagram)).encode() + msgspec.json.encode(reply)[1:]


def priced(datagram: bytes, address: object) -> list[bytes]:
    return [told(datagram, price(msgspec.json.decode(datagram)["asset"]))]


def in_turn(*steps: Callable[[bytes], Iterable[bytes]]) -> Respond:
    """Answer the first datagram by the first step, and so on; the last one goes on."""
    left = list(steps)
    return lambda datagram, address: (left.pop(0) if len(left) > 1 else left[0])(datagram)


def nothing(datagram: bytes) -> list[bytes]:
    return []


def good(datagram: bytes) -> list[bytes]:
    return priced(datagram, None)


@pytest.fixture(params=["sync", "asyncio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Ask one question with a client of either kind: `ask(server, "price", "BTC", retry=…)`."""

    def by_sync(server: Server, method: str, *wanted: Any, retry: Retry = QUICK, **demands: Any) -> Any:
        with PriceClient("127.0.0.1", server.port, key=KEY, retry=retry) as client:
            return getattr(client, method)(*wanted, **demands)

    def by_asyncio(server: Server, method: str, *wanted: Any, retry: Retry = QUICK, **demands: Any) -> Any:
        async def run() -> Any:
            async with AsyncPriceClient("127.0.0.1", server.port, key=KEY, retry=retry) as client:
                found = await getattr(client, method)(*wanted, **demands)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return found

        return asyncio.run(run())

    return by_sync if request.param == "sync" else by_asyncio


def test_price_is_the_servers_with_its_digits(ask: Ask) -> None:
    with serving(priced) as server:
        found = ask(server, "price", "BTC", exchange="coinbase", max_age_ms=0)
    assert found == price()
    assert (found.decimal, str(found.decimal)) == (Decimal("67123.450"), "67123.450")
    (asked,) = server.requests
    assert asked.pop("id")
    assert asked == {"asset": "BTC", "api_key": KEY, "exchange": "coinbase", "max_age_ms": 0}


def test_lost_question_is_asked_again_word_for_word(ask: Ask) -> None:
    with serving(in_turn(nothing, nothing, good)) as server:
        assert ask(server, "price", "BTC") == price()
    assert len(server.datagrams) == 3
    assert len(set(server.datagrams)) == 1


def test_late_answer_to_an_earlier_try_counts(ask: Ask) -> None:
    kept: list[bytes] = []

    def keep(datagram: bytes) -> list[bytes]:
        kept.append(datagram)
        return []

    def late(datagram: bytes) -> list[bytes]:
        return [told(kept[0], price())]

    with serving(in_turn(keep, late, nothing)) as server:
        assert ask(server, "price", "BTC") == price()


@pytest.mark.parametrize(
    "noise",
    [
        b"hello",
        b"",
        b"\xff",
        b'{"error":"stale"}',
        b'{"id":"another","error":"stale"}',
        told(b"", price("ETH"), "0123456789abcdef"),
    ],
)
def test_answer_to_another_question_is_left_alone(ask: Ask, noise: bytes) -> None:
    with serving(lambda datagram, address: [noise, *good(datagram)]) as server:
        assert ask(server, "price", "BTC") == price()
    assert len(server.datagrams) == 1


def test_answer_of_another_kind_is_left_alone(ask: Ask) -> None:
    several = Prices([price()])
    with (
        serving(lambda datagram, address: [told(datagram, several)]) as server,
        pytest.raises(NoAnswer),
    ):
        ask(server, "price", "BTC")


def test_datagram_of_somebody_else_is_not_heard(ask: Ask) -> None:
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def respond(datagram: bytes, address: tuple[str, int]) -> list[bytes]:
        stranger.sendto(told(datagram, price("FORGED")), address)
        return [told(datagram, price())]

    with stranger, serving(respond) as server:
        assert ask(server, "price", "BTC") == price()


def test_silence_ends_after_the_time_and_the_attempts(ask: Ask) -> None:
    begun_s = time.monotonic()
    with serving(silent) as server, pytest.raises(NoAnswer) as failure:
        ask(server, "price", "BTC")
    assert 0.35 < time.monotonic() - begun_s < 5
    assert (failure.value.attempts, len(server.datagrams)) == (3, 3)
    assert "no answer to 3 datagrams within 0.4" in str(failure.value)


def test_nobody_there_is_silence_with_its_cause(ask: Ask) -> None:
    with serving(silent) as server:
        pass
    with pytest.raises(NoAnswer) as failure:
        ask(server, "price", "BTC")
    assert isinstance(failure.value.__cause__, ConnectionRefusedError)


def test_server_that_comes_back_is_heard() -> None:
    with serving(silent) as gone:
        pass
    retry = Retry(total_s=10, attempts=8)
    with PriceClient("127.0.0.1", gone.port, key=KEY, retry=retry) as client:
        back: list[socket.socket] = []

        def come_back() -> None:
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            back.append(opened)
            opened.settimeout(10)
            opened.bind(("127.0.0.1", gone.port))
            datagram, address = opened.recvfrom(2_000)
            opened.sendto(told(datagram, price()), address)

        thread = threading.Timer(0.05, come_back)
        thread.start()
        assert client.price("BTC") == price()
        thread.join()
        back[0].close()


@pytest.mark.parametrize("code", [*CODES, "of_the_future"])
def test_refusal_is_an_exception_with_its_code(ask: Ask, code: str) -> None:
    with (
        serving(lambda datagram, address: [render_refusal(code, id_of(datagram))]) as server,
        pytest.raises(Refused) as refusal,
    ):
        ask(server, "price", "BTC")
    assert refusal.value.code == str(refusal.value) == code
    assert type(refusal.value).__name__ == (
        "Refused" if code == "of_the_future" else code.title().replace("_", "")
    )
    assert len(server.datagrams) == 1


def test_refusal_carries_its_figures(ask: Ask) -> None:
    stale = in_turn(lambda datagram: [render_refusal("stale", id_of(datagram), age_ms=5_120)])
    with serving(stale) as server, pytest.raises(Stale, match=r"^stale \(age_ms 5120\)$") as refusal:
        ask(server, "price", "BTC", max_age_ms=100)
    assert refusal.value.age_ms == 5_120


def limited(retry_ms: int) -> Callable[[bytes], list[bytes]]:
    return lambda datagram: [render_refusal("rate_limited", id_of(datagram), retry_ms=retry_ms)]


def test_too_early_is_told_unless_waiting_was_asked_for(ask: Ask) -> None:
    with serving(in_turn(limited(30), good)) as server, pytest.raises(RateLimited) as refusal:
        ask(server, "price", "BTC")
    assert refusal.value.retry_ms == 30
    assert len(server.datagrams) == 1


def test_too_early_is_asked_again_when_the_server_says(ask: Ask) -> None:
    begun_s = time.monotonic()
    with serving(in_turn(limited(60), good)) as server:
        assert ask(server, "price", "BTC", retry=PATIENT) == price()
    assert time.monotonic() - begun_s >= 0.06
    assert len(server.datagrams) == 2


@pytest.mark.parametrize(("retry_ms", "datagrams"), [(60_000, 1), (1, 3)])
def test_waiting_for_a_turn_ends_with_the_time_and_the_attempts(
    ask: Ask, retry_ms: int, datagrams: int
) -> None:
    with serving(in_turn(limited(retry_ms))) as server, pytest.raises(RateLimited):
        ask(server, "price", "BTC", retry=PATIENT)
    assert len(server.datagrams) == datagrams


# -- several assets


def shelf(room: int) -> Respond:
    """Tell of so many assets at once, and leave the others out."""

    def respond(datagram: bytes, address: object) -> list[bytes]:
        names = msgspec.json.decode(datagram)["assets"]
        found = [Failure(name, "unknown_asset") if name == "NOPE" else price(name) for name in names[:room]]
        return [told(datagram, Prices(found, names[room:]))]

    return respond


def test_several_are_each_a_price_or_a_refusal(ask: Ask) -> None:
    with serving(shelf(30)) as server:
        found = ask(server, "prices", ["btc", "NOPE", "BTC", "ETH"])
    assert list(found) == ["BTC", "NOPE", "ETH"]
    assert (found["BTC"], found["ETH"]) == (price("BTC"), price("ETH"))
    assert isinstance(found["NOPE"], UnknownAsset)
    assert server.requests[0]["assets"] == ["BTC", "NOPE", "ETH"]


def test_what_was_left_out_is_asked_for_again(ask: Ask) -> None:
    names = [f"A{number}" for number in range(70)]
    with serving(shelf(11)) as server:
        found = ask(server, "prices", names)
    assert list(found) == names
    assert all(found[name] == price(name) for name in names)
    assert len(server.datagrams) == 7
    assert max(len(asked["assets"]) for asked in server.requests) == 30


def test_fewer_are_asked_for_where_nothing_has_room(ask: Ask) -> None:
    """An id and names of the greatest length leave no room for a price beside them."""

    def respond(datagram: bytes, address: object) -> Iterable[bytes]:
        names = msgspec.json.decode(datagram)["assets"]
        return shelf(0 if len(names) > 4 else 30)(datagram, ("", 0))

    names = [f"A{number}" for number in range(20)]
    with serving(respond) as server:
        assert list(ask(server, "prices", names)) == names
    assert len(server.datagrams) < 20


def test_names_that_fit_into_no_datagram_together_go_in_several(ask: Ask) -> None:
    names = [f"{number:032d}" for number in range(30)]
    with serving(shelf(30)) as server:
        found = ask(server, "prices", names, exchange="e" * 32, max_age_ms=86_400_000)
    assert list(found) == names
    assert max(map(len, server.datagrams)) <= MAX_DATAGRAM_BYTES


def test_server_that_tells_of_other_assets_forever_is_left(ask: Ask) -> None:
    with (
        serving(lambda datagram, address: [told(datagram, Prices([price("OTHER")]))]) as server,
        pytest.raises(BadReply),
    ):
        ask(server, "prices", ["A", "B", "C", "D"])
    assert len(server.datagrams) == 3


def test_none_are_not_asked_for(ask: Ask) -> None:
    with serving(silent) as server:
        assert ask(server, "prices", []) == {}
    assert not server.datagrams


# -- keys, and what ends


def test_key_is_in_no_text(ask: Ask) -> None:
    sync = PriceClient("127.0.0.1", 9, key=KEY)
    sync.close()
    assert repr(sync) == "PriceClient('127.0.0.1', 9)"
    assert repr(AsyncPriceClient("127.0.0.1", 9, key=KEY)) == "AsyncPriceClient('127.0.0.1', 9)"
    texts = []
    with serving(silent) as server:
        for wanted in ("BTC", "B" * 2_000):
            with pytest.raises((NoAnswer, RequestTooLarge)) as failure:
                ask(server, "price", wanted, retry=Retry(0.01, 1))
            texts += [repr(failure.value), *traceback.format_exception(failure.value)]
    assert KEY not in "".join(texts)


def test_closed_client_says_so() -> None:
    with PriceClient("127.0.0.1", 9, key=KEY) as client:
        pass
    client.close()
    with pytest.raises(ClientClosed):
        client.price("BTC")


async def test_many_questions_are_in_flight_at_once() -> None:
    waiting: list[tuple[bytes, tuple[str, int]]] = []

    def backwards(datagram: bytes, address: tuple[str, int]) -> list[bytes]:
        waiting.append((datagram, address))
        return [told(one, price(msgspec.json.decode(one)["asset"])) for one, _ in reversed(waiting)] * (
            len(waiting) == 20
        )

    names = [f"A{number}" for number in range(20)]
    with serving(backwards) as server:
        async with AsyncPriceClient("127.0.0.1", server.port, key=KEY, retry=Retry(10, 1)) as client:
            found = await asyncio.gather(*map(client.price, names))
    assert [one.asset for one in found] == names


async def test_no_more_are_in_flight_than_there_is_room() -> None:
    arrivals_s: list[float] = []

    def note(datagram: bytes, address: object) -> list[bytes]:
        arrivals_s.append(time.monotonic())
        return []

    retry = Retry(total_s=0.3, attempts=1)
    with serving(note) as server:
        async with AsyncPriceClient("127.0.0.1", server.port, key=KEY, retry=retry, in_flight=2) as client:
            ended = await asyncio.gather(*(client.price("BTC") for _ in range(3)), return_exceptions=True)
    assert {type(error) for error in ended} == {NoAnswer}
    assert arrivals_s[2] - arrivals_s[0] > 0.2


async def test_closing_ends_what_still_waits() -> None:
    with serving(silent) as server:
        client = AsyncPriceClient("127.0.0.1", server.port, key=KEY, retry=Retry(60, 1))
        with pytest.raises(ClientClosed):
            await client.price("BTC")
        async with client:
            asked = asyncio.create_task(client.price("BTC"))
            await arrived(server)
        with pytest.raises(ClientClosed):
            await asked
        with pytest.raises(ClientClosed):
            await client.price("BTC")
        await client.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancelled_question_leaves_nothing_behind() -> None:
    with serving(silent) as server:
        async with AsyncPriceClient("127.0.0.1", server.port, key=KEY, in_flight=1) as client:
            asked = asyncio.create_task(client.price("BTC"))
            await arrived(server)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            server.respond = priced
            assert await client.price("ETH") == price("ETH")


async def arrived(server: Server) -> None:
    async with asyncio.timeout(10):
        while not server.datagrams:  # noqa: ASYNC110  # a thread tells nobody
            await asyncio.sleep(0.001)


def test_client_needs_no_django() -> None:
    program = (
        "import sys, udp_engine.client; print([name for name in sys.modules if name.startswith('django')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def summary() -> Summary:
    return Summary("2026-11", 12, 123, None, 130, {"200": 130}, {"23": 130}, {"BTC": 70}, 60, 2, 10)


def test_summary_is_the_servers_after_a_loss(ask: Ask) -> None:
    with serving(
        in_turn(nothing, lambda datagram: [told(datagram, price()), told(datagram, summary())])
    ) as server:
        assert ask(server, "summary") == summary()
    (asked, *_) = server.requests
    assert asked == {"id": asked["id"], "api_key": KEY}


def test_refused_summary_is_raised(ask: Ask) -> None:
    def refuse(datagram: bytes, address: object) -> list[bytes]:
        return [render_refusal("unauthorized", id_of(datagram))]

    with serving(refuse) as server, pytest.raises(Unauthorized):
        ask(server, "summary")
