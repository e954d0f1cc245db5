from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import uvloop

from exchanges.addresses import tls_context
from exchanges.rest import MAX_BODY_BYTES, RestClient, TokenBucket
from pricing.exceptions import FallbackError
from tests.exchanges.certificates import self_signed
from tests.exchanges.feed.replay import shipped_row
from tests.exchanges.rows import feed_spec, listing

SECOND_NS = 1_000_000_000


def answer(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


class Server:
    """An HTTP server on loopback that sends whatever bytes the test puts in `reply`."""

    def __init__(self) -> None:
        self.reply: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]] = answer(b'{"last":"64250.10"}')
        self.requests: list[bytes] = []
        self.connections = 0
        self.left = asyncio.Event()
        self.port = 0
        self._handlers: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self.connections += 1
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(request)
                if isinstance(self.reply, bytes):
                    writer.write(self.reply)
                    await writer.drain()
                else:
                    await self.reply(writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()
            self.left.set()

    async def stop(self) -> None:
        for task in self._handlers:
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    served = Server()
    listener = await asyncio.start_server(served.handle, "127.0.0.1", 0)
    served.port = listener.sockets[0].getsockname()[1]
    yield served
    await served.stop()
    listener.close()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[RestClient]:
    made = RestClient(allow_loopback=True, timeout_s=1.0)
    made.follow(
        [feed_spec(rest_url=f"http://127.0.0.1:{server.port}/last?symbol={{SYMBOL}}")],
        [listing("BTC", rest_symbol="XBTUSD"), listing("ETH", enabled=False)],
    )
    yield made
    await made.aclose()


async def reason_of(client: RestClient) -> str:
    with pytest.raises(FallbackError) as caught:
        await client.latest("BTC", "plain")
    return caught.value.reason


async def test_latest_asks_for_the_rest_symbol_and_keeps_the_digits(
    client: RestClient, server: Server
) -> None:
    price = await client.latest("BTC", "plain")
    assert price is not None
    assert (price.price, price.source, price.quote, price.traded_ns) == (
        "64250.10",
        "plain-rest",
        "USD",
        None,
    )
    assert price.received_ns > 1_600_000_000 * SECOND_NS
    assert server.requests[0].startswith(b"GET /last?symbol=XBTUSD HTTP/1.1\r\n")


@pytest.mark.parametrize(("time_is", "traded_ns"), [("trade", 1_763_816_400 * SECOND_NS), ("answer", None)])
async def test_time_of_the_answer_is_not_taken_for_the_trades(
    time_is: str, traded_ns: int | None, client: RestClient, server: Server
) -> None:
    rest = {"time_path": "time", "time_format": "unix_s", "time_is": time_is}
    url = f"http://127.0.0.1:{server.port}/{{SYMBOL}}"
    client.follow([feed_spec(rest_url=url, quirks={"rest": rest})], [listing("BTC")])
    server.reply = answer(b'{"last":"1.5","time":1763816400}')
    price = await client.latest("BTC", "plain")
    assert price is not None
    assert price.traded_ns == traded_ns
    assert client.knows_trades("plain") is (time_is == "trade")


@pytest.mark.parametrize(("name", "time_is"), [("coinbase", "trade"), ("bybit", "answer"), ("okx", "answer")])
def test_shipped_row_says_what_its_time_is(name: str, time_is: str) -> None:
    assert shipped_row(name).quirks.rest.time_is == time_is


@pytest.mark.parametrize(
    ("asset", "exchange"), [("BTC", "other"), ("ETH", "plain"), ("DOGE", "plain"), ("", "")]
)
async def test_what_is_not_listed_is_none_and_not_asked(
    asset: str, exchange: str, client: RestClient, server: Server
) -> None:
    assert not client.admits(asset, exchange)
    assert await client.latest(asset, exchange) is None
    assert server.requests == []


async def test_connection_is_used_again(client: RestClient, server: Server) -> None:
    for _ in range(3):
        await client.latest("BTC", "plain")
    assert (server.connections, len(server.requests)) == (1, 3)


async def test_connection_that_the_server_closed_is_replaced(client: RestClient, server: Server) -> None:
    server.reply = answer(b'{"last":"1.5"}', headers="Connection: close\r\n")
    await client.latest("BTC", "plain")
    assert (await client.latest("BTC", "plain")) is not None
    assert server.connections == 2


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer(b"", status="404 Not Found"), "http_404"),
        (answer(b'{"last":"1.5"}', status="429 Too Many Requests"), "http_429"),
        (answer(b'{"last":"1.5"}', status="500 Oops"), "http_500"),
        (answer(b"<html>"), "not JSON"),
        (answer(b'{"error":"unknown symbol"}'), "no price"),
        (answer(b'{"last":-1}'), "no price"),
        (answer(b'{"last":"NaN"}'), "no price"),
        (answer(b"[" * 200_000), "not JSON"),
        (answer(b"x" * (MAX_BODY_BYTES + 1)), "too_large"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not_http"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n", "not_http"),
    ],
)
async def test_answer_without_a_price_is_a_reason(
    reply: bytes, reason: str, client: RestClient, server: Server
) -> None:
    server.reply = reply
    assert await reason_of(client) == reason


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(status: int, client: RestClient, server: Server) -> None:
    location = f"Location: http://127.0.0.1:{server.port}/elsewhere\r\n"
    server.reply = answer(b'{"last":"1.5"}', status=f"{status} Moved", headers=location)
    assert await reason_of(client) == f"http_{status}"
    assert len(server.requests) == 1


async def test_silent_server_is_given_up(server: Server) -> None:
    async def silence(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    server.reply = silence
    assert await reason_of(impatient(server)) == "timeout"


async def test_dripping_answer_is_given_up(server: Server) -> None:
    """Each byte is in time, the whole is not."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.01)

    server.reply = drip
    assert await reason_of(impatient(server)) == "timeout"


def impatient(server: Server) -> RestClient:
    client = RestClient(allow_loopback=True, timeout_s=0.2)
    client.follow([feed_spec(rest_url=f"http://127.0.0.1:{server.port}/{{SYMBOL}}")], [listing("BTC")])
    return client


async def test_endless_answer_is_cut_at_the_limit(client: RestClient, server: Server) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b" " * 65_536 + b"\r\n")
            await writer.drain()
            sent += 65_536

    server.reply = endless
    assert await reason_of(client) == "too_large"
    assert sent < 100 * MAX_BODY_BYTES


async def test_loopback_is_refused_unless_allowed(server: Server) -> None:
    client = RestClient(allow_loopback=False)
    client.follow([feed_spec(rest_url=f"https://127.0.0.1:{server.port}/{{SYMBOL}}")], [listing("BTC")])
    assert await reason_of(client) == "address_refused"
    assert server.connections == 0


async def test_name_that_resolves_to_a_forbidden_address_is_refused(server: Server) -> None:
    async def metadata(host: str, port: int) -> Sequence[str]:
        return ["169.254.169.254"]

    client = RestClient(allow_loopback=True, resolver=metadata)
    client.follow([feed_spec()], [listing("BTC")])
    assert await reason_of(client) == "address_refused"


async def test_unreachable_exchange_is_a_reason(client: RestClient, server: Server) -> None:
    port = server.port
    probe = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    free = probe.sockets[0].getsockname()[1]
    probe.close()
    await probe.wait_closed()
    assert free != port
    client.follow([feed_spec(rest_url=f"http://127.0.0.1:{free}/{{SYMBOL}}")], [listing("BTC")])
    assert await reason_of(client) == "unreachable"


async def test_rate_of_the_row_is_kept() -> None:
    now_ns = SECOND_NS
    client = RestClient(allow_loopback=True, mono_ns=lambda: now_ns)
    row = feed_spec(quirks={"rest": {"rate_per_s": 2}})
    client.follow([row], [listing("BTC")])
    assert [client.admits("BTC", "plain") for _ in range(3)] == [True, True, False]
    client.follow([row], [listing("BTC")])
    assert not client.admits("BTC", "plain")
    now_ns += SECOND_NS // 2
    assert [client.admits("BTC", "plain") for _ in range(2)] == [True, False]
    await client.aclose()


def test_bucket_holds_no_more_than_one_second() -> None:
    bucket = TokenBucket(3)
    assert [bucket.take(1000 * SECOND_NS) for _ in range(5)] == [True, True, True, False, False]
    assert [bucket.take(5000 * SECOND_NS) for _ in range(5)] == [True, True, True, False, False]


async def test_follow_takes_a_disabled_exchange_out_and_closes_its_connections(
    client: RestClient, server: Server
) -> None:
    await client.latest("BTC", "plain")
    client.follow([feed_spec(enabled=False)], [listing("BTC")])
    assert await client.latest("BTC", "plain") is None
    client.follow([feed_spec(rest_url="")], [listing("BTC")])
    assert await client.latest("BTC", "plain") is None


async def test_connections_of_a_row_that_was_taken_out_are_closed_without_another_question(
    client: RestClient, server: Server
) -> None:
    await client.latest("BTC", "plain")
    client.follow([], [])
    async with asyncio.timeout(5):
        await server.left.wait()


async def test_cancelled_request_leaves_no_task(client: RestClient, server: Server) -> None:
    asked = asyncio.Event()

    async def silence(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.Event().wait()

    server.reply = silence
    task = asyncio.create_task(client.latest("BTC", "plain"))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.reply = answer(b'{"last":"2.5"}')
    assert (await client.latest("BTC", "plain")) is not None


class Encrypted:
    """The same server over TLS, reached by a name."""

    def __init__(self, tmp_path: Path, *, certified: str, days: int = 1, timeout_s: float = 2.0) -> None:
        self.server = Server()
        self.timeout_s = timeout_s
        self.server_tls, self.client_tls = self_signed(tmp_path, certified, days=days)

    async def ask(self, *, trusted: bool = True) -> str:
        async def loopback(host: str, port: int) -> Sequence[str]:
            return ["127.0.0.1"]

        listener = await asyncio.start_server(self.server.handle, "127.0.0.1", 0, ssl=self.server_tls)
        port = listener.sockets[0].getsockname()[1]
        tls = self.client_tls if trusted else None
        client = RestClient(allow_loopback=True, timeout_s=self.timeout_s, tls=tls, resolver=loopback)
        client.follow([feed_spec(rest_url=f"https://api.plain.example:{port}/{{SYMBOL}}")], [listing("BTC")])
        try:
            price = await client.latest("BTC", "plain")
            return price.price if price else ""
        except FallbackError as error:
            return error.reason
        finally:
            await client.aclose()
            await self.server.stop()
            listener.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_price_over_tls(run: Callable[..., str], tmp_path: Path) -> None:
    assert run(Encrypted(tmp_path, certified="api.plain.example").ask()) == "64250.10"


async def test_time_limits_hold_with_a_tls_peer_that_never_says_farewell(tmp_path: Path) -> None:
    async def freeze(writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # it reads, whatever its type says
        try:
            await asyncio.Event().wait()
        finally:
            writer.transport.abort()

    encrypted = Encrypted(tmp_path, certified="api.plain.example", timeout_s=0.5)
    encrypted.server.reply = freeze
    clock = asyncio.get_running_loop().time
    start = clock()
    assert await encrypted.ask() == "timeout"
    assert clock() - start < 5


async def test_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    encrypted = Encrypted(tmp_path, certified="api.other.example")
    assert await encrypted.ask() == "tls"
    assert encrypted.server.requests == []


async def test_expired_certificate_is_refused(tmp_path: Path) -> None:
    assert await Encrypted(tmp_path, certified="api.plain.example", days=-1).ask() == "tls"


async def test_unknown_certificate_authority_is_refused(tmp_path: Path) -> None:
    encrypted = Encrypted(tmp_path, certified="api.plain.example")
    assert await encrypted.ask(trusted=False) == "tls"


def test_shipped_tls_settings_verify() -> None:
    context = tls_context()
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"
