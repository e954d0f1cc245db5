"""Each limit of a connection, on real sockets against uvicorn on uvloop as it runs in production."""

import asyncio
import contextlib
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import uvicorn
import websockets

from pricing.doors import Limits
from pricing.edge import EdgeConfig, EdgeProtocol

SOON_S = 0.05  # deadlines under test
NEVER_S = 30.0
PATIENT = Limits(head_s=NEVER_S, body_s=NEVER_S, write_s=NEVER_S)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
PACE = b"GET /pace HTTP/1.1\r\nHost: x\r\n\r\n"
MEGABYTE = 1_048_576


class Site:
    """The application, and the server's thread it runs in."""

    def __init__(self, limits: Limits) -> None:
        self.asked: list[str] = []
        self.disconnects = 0
        self.heads: list[list[Any]] = []
        self.gate = asyncio.Event()  # opens /slow
        self.sockets = [socket.create_server(("127.0.0.1", 0), backlog=1_000) for _ in range(2)]
        self.port, self.health_port = (listener.getsockname()[1] for listener in self.sockets)
        options: dict[str, Any] = {
            "loop": "uvloop",
            "lifespan": "off",
            "log_config": None,
            "access_log": False,
        }
        self.config = EdgeConfig(self, limits=limits, health_port=self.health_port, **options)
        self.server = uvicorn.Server(self.config)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = threading.Thread(target=self.server.run, args=(self.sockets,))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.loop = asyncio.get_running_loop()
        if scope["type"] == "websocket":
            await self.echo(receive, send)
            return
        self.asked.append(scope["path"])
        self.heads.append(scope["headers"])
        body = b"fine"
        if scope["path"] == "/slow":
            await self.gate.wait()
        elif scope["path"] == "/pace":
            await asyncio.sleep(0.001)
            await self.upload(receive)
        elif scope["path"] == "/upload":
            body = await self.upload(receive)
        elif scope["path"] == "/large":
            body = bytes(8 * MEGABYTE)
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def upload(self, receive: Any) -> bytes:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return b""
            size += len(message["body"])
            more = message["more_body"]
        return b"%d" % size

    async def echo(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    def open_gate(self) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.gate.set)

    @property
    def connections(self) -> "list[EdgeProtocol]":
        return [one for one in list(self.server.server_state.connections) if isinstance(one, EdgeProtocol)]


@asynccontextmanager
async def serving(limits: Limits = PATIENT) -> AsyncIterator[Site]:
    site = Site(limits)
    site.thread.start()
    try:
        await until(lambda: site.server.started)
        yield site
    finally:
        if site.loop is not None:
            site.open_gate()
        site.server.should_exit = True
        await asyncio.to_thread(site.thread.join)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # another thread sets no event here
            await asyncio.sleep(0.005)


class Client(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """Return all that comes until the server closes; TimeoutError when it does not."""
        async with asyncio.timeout(5):
            return await self.reader.read()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(5):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, headers = parse_head(head)
            return status, headers, await self.reader.readexactly(int(headers["content-length"]))


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield client
    finally:
        client.writer.close()
        with contextlib.suppress(OSError):
            await client.writer.wait_closed()


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines)


def problem(answer: bytes) -> tuple[int, str]:
    """Read the one answer that refuses, and check its form."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, headers = parse_head(head)
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) == len(body)
    members = json.loads(body)
    assert members["status"] == status
    return status, members["code"]


async def refused(site: Site, request: bytes) -> tuple[int, str]:
    async with connected(site.port) as client:
        with contextlib.suppress(ConnectionError):
            await client.send(request)
        return problem(await client.rest())


# Heads


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nX", b"GET / HTTP/1.1\r\nHost: x\r\nX: "]
)
async def test_header_without_end_is_refused(start: bytes) -> None:
    async with serving() as site:
        assert await refused(site, start + b"a" * 20_000) == (431, "head_too_large")


async def test_header_without_end_in_small_segments_is_refused() -> None:
    async with serving() as site, connected(site.port) as client:
        await client.send(b"GET / HTTP/1.1\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(400):
                await client.send(b"a" * 50)
                await asyncio.sleep(0)
        assert problem(await client.rest()) == (431, "head_too_large")


async def test_blank_lines_without_end_are_refused() -> None:
    async with serving() as site:
        assert await refused(site, b"\r\n" * 10_000) == (431, "head_too_large")


@pytest.mark.parametrize("lines", [101, 20_000])
async def test_too_many_header_lines_are_refused(lines: int) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * (lines - 1) + b"\r\n"
    async with serving() as site:
        assert await refused(site, request) == (431, "head_too_large")
        assert site.asked == []


@pytest.mark.parametrize("extra, status", [(0, 200), (1, 431)])
async def test_head_may_have_as_many_bytes_as_the_limit_says(extra: int, status: int) -> None:
    fixed = len("/") + len("HostX") + 4 + len("Y") + 4
    value = b"v" * (16_384 - fixed + extra)
    async with serving() as site, connected(site.port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: X\r\nY: " + value + b"\r\n\r\n")
        assert (await client.answer())[0] == status


@pytest.mark.parametrize("size, status", [(8_192, 200), (8_193, 414)])
async def test_address_may_have_as_many_bytes_as_the_limit_says(size: int, status: int) -> None:
    address = b"/?" + b"q" * (size - 2)
    async with serving() as site, connected(site.port) as client:
        await client.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % address)
        assert (await client.answer())[0] == status


async def test_address_without_end_is_refused() -> None:
    async with serving() as site:
        assert await refused(site, b"GET /" + b"a" * 12_000) == (414, "url_too_long")


async def test_hundred_header_lines_in_small_segments_are_answered() -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 99 + b"\r\n"
    async with serving() as site, connected(site.port) as client:
        for start in range(0, len(request), 7):
            await client.send(request[start : start + 7])
            await asyncio.sleep(0)
        assert (await client.answer())[0] == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /?asset=\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/3.7\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_malformed_request_gets_the_problem_that_others_get(request_: bytes) -> None:
    async with serving() as site:
        assert await refused(site, request_) == (400, "bad_request")


async def test_old_request_without_host_is_answered() -> None:
    async with serving() as site, connected(site.port) as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer())[0] == 200


async def test_refusals_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as site:
        for _ in range(5):
            await refused(site, b"FOO / HTTP/1.1\r\n\r\n")
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in told] == ["pricing.edge"]
    assert "127.0.0.1" in told[0].getMessage()


# Bodies


async def test_body_in_many_pieces_arrives_whole() -> None:
    async with serving() as site, connected(site.port) as client:
        head = b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (3 * MEGABYTE)
        await client.send(head + bytes(3 * MEGABYTE) + GET)
        assert (await client.answer())[2] == b"%d" % (3 * MEGABYTE)
        assert (await client.answer())[2] == b"fine"


UPGRADE = (
    b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CHUNKED = b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_trailers_are_not_taken_for_headers_of_the_request() -> None:
    async with serving() as site, connected(site.port) as client:
        await client.send(CHUNKED + b"3\r\nabc\r\n0\r\nX-API-Key: stolen\r\n\r\n")
        assert (await client.answer())[2] == b"3"
        assert [name for name, _ in site.heads[0]] == [b"host", b"transfer-encoding"]


@pytest.mark.parametrize(
    "endless", [b"0\r\nX: " + b"a" * 20_000, b"1;" + b"e" * 20_000, b"0\r\n" + b"a:\r\n" * 3_000]
)
async def test_trailer_and_chunk_extension_without_end_are_refused(endless: bytes) -> None:
    async with serving() as site:
        assert await refused(site, CHUNKED + endless) == (431, "head_too_large")
        await until(lambda: site.disconnects == 1)


# Pipelines


async def test_answers_to_pipelined_requests_come_in_order_and_whole() -> None:
    async with serving() as site, connected(site.port) as client:
        asyncio.get_running_loop().call_soon(client.writer.write, GET * 2_000 + SLOW + GET * 200)
        for _ in range(2_000):
            assert (await client.answer())[2] == b"fine"
        await until(lambda: "/slow" in site.asked)
        assert site.asked[-1] == "/slow"
        site.open_gate()
        for _ in range(201):
            assert (await client.answer())[2] == b"fine"
        assert len(site.asked) == 2_201


async def test_pipeline_is_read_no_further_than_the_limit() -> None:
    async with serving() as site, connected(site.port) as client:
        client.writer.write(SLOW + GET * 500_000)  # 13 MB
        await until(lambda: site.asked == ["/slow"])
        await asyncio.sleep(0.2)
        (connection,) = site.connections
        assert 16 <= len(connection.pipeline) < 16 + 2_048 / len(GET)
        assert len(connection.flow.held) <= MEGABYTE
        assert client.writer.transport.get_write_buffer_size() > MEGABYTE
        client.writer.transport.abort()


@pytest.mark.parametrize("at_once", [15, 100_000])
async def test_pipeline_that_is_being_answered_is_read_no_further_than_the_limit(at_once: int) -> None:
    async with serving() as site, connected(site.port) as client:
        waiting, held = 0, 0
        for _ in range(200):
            if not client.writer.transport.get_write_buffer_size():
                client.writer.write(PACE * at_once)
            await asyncio.sleep(0.002)
            for connection in site.connections:
                waiting = max(waiting, len(connection.pipeline))
                held = max(held, len(connection.flow.held))
        assert len(site.asked) > 50
        assert waiting < 16 + 2_048 / len(PACE)
        assert held <= MEGABYTE
        client.writer.transport.abort()


async def test_client_that_leaves_a_pipeline_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as site, connected(site.port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's is a whole transport
        await client.send(LARGE + GET + GET)
        await until(lambda: site.asked == ["/large", "/"])  # the second waits for room to write
        client.writer.transport.abort()
        await until(lambda: not site.server.server_state.tasks)
    assert not caplog.records


async def test_malformed_request_in_a_pipeline_is_refused_after_the_answers_before_it() -> None:
    async with serving() as site, connected(site.port) as client:
        await client.send(SLOW + GET + b"FOO / HTTP/1.1\r\n\r\n" + GET)
        await until(lambda: site.asked == ["/slow"])
        site.open_gate()
        assert [(await client.answer())[2] for _ in range(2)] == [b"fine", b"fine"]
        assert problem(await client.rest()) == (400, "bad_request")
        assert site.asked == ["/slow", "/"]


async def test_malformed_body_in_a_pipeline_is_refused_after_the_answers_before_it() -> None:
    async with serving() as site, connected(site.port) as client:
        await client.send(SLOW + CHUNKED + b"zz\r\n")
        await until(lambda: site.asked == ["/slow"])
        site.open_gate()
        assert (await client.answer())[2] == b"fine"
        assert problem(await client.rest()) == (400, "bad_request")
        assert site.asked == ["/slow"]


# Time


async def test_connection_that_says_nothing_is_closed() -> None:
    async with serving(Limits(head_s=SOON_S)) as site, connected(site.port) as client:
        assert await client.rest() == b""


async def test_head_that_drips_is_refused() -> None:
    async with serving(Limits(head_s=0.2)) as site, connected(site.port) as client:
        with contextlib.suppress(ConnectionError):
            for byte in b"GET / HTTP/1.1\r\nHost: " + b"x" * 50:
                await client.send(bytes([byte]))
                await asyncio.sleep(0.01)
        assert problem(await client.rest()) == (408, "request_timeout")


@pytest.mark.parametrize("start", [b"GET / HT", b"\r\n"])
async def test_second_request_has_a_deadline_too(start: bytes) -> None:
    async with serving(Limits(head_s=SOON_S)) as site, connected(site.port) as client:
        await client.send(GET)
        assert (await client.answer())[0] == 200
        await client.send(start)
        assert b" 200 " not in await client.rest()


async def test_idle_connection_is_kept_longer_than_a_head_may_take() -> None:
    async with serving(Limits(head_s=SOON_S)) as site, connected(site.port) as client:
        for _ in range(2):
            await client.send(GET)
            assert (await client.answer())[0] == 200
            await asyncio.sleep(3 * SOON_S)


async def test_slow_answer_is_no_fault_of_the_client() -> None:
    limits = Limits(head_s=SOON_S, body_s=SOON_S)
    async with serving(limits) as site, connected(site.port) as client:
        await client.send(SLOW + GET * 100)
        await until(lambda: site.asked == ["/slow"])
        await asyncio.sleep(3 * SOON_S)
        site.open_gate()
        for _ in range(101):
            assert (await client.answer())[0] == 200


async def test_body_that_stops_is_refused_and_the_application_told() -> None:
    limits = Limits(body_s=SOON_S, linger_s=NEVER_S)
    async with serving(limits) as site, connected(site.port) as client:
        await client.send(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        assert problem(await client.rest()) == (408, "request_timeout")
        await until(lambda: site.disconnects == 1)


async def test_deadline_of_a_body_ends_with_the_body() -> None:
    async with serving(Limits(body_s=0.2)) as site, connected(site.port) as client:
        await client.send(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
        await until(lambda: site.asked == ["/slow"])
        await client.send(b"x")
        await asyncio.sleep(0.4)
        site.open_gate()
        assert (await client.answer())[0] == 200


async def test_body_that_nobody_reads_has_a_deadline() -> None:
    async with serving(Limits(body_s=0.2)) as site, connected(site.port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert (await client.answer())[0] == 200
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await client.send(b"x")
                await asyncio.sleep(0.01)
            pytest.fail("the connection stays open")


@pytest.mark.parametrize("write_s, keep_alive_s", [(SOON_S, NEVER_S), (NEVER_S, SOON_S)])
async def test_client_that_does_not_read_is_cut_off(write_s: float, keep_alive_s: float) -> None:
    async with serving(Limits(write_s=write_s)) as site:
        site.config.timeout_keep_alive = keep_alive_s  # type: ignore[assignment]  # whole seconds to uvicorn
        with socket.create_connection(("127.0.0.1", site.port)) as client:
            client.sendall(LARGE)
            await until(lambda: site.asked == ["/large"])
            await until(lambda: not site.connections)


@pytest.mark.parametrize("then", [GET, UPGRADE])
async def test_client_that_reads_late_gets_all_and_stays(then: bytes) -> None:
    async with serving(Limits(write_s=0.4)) as site, connected(site.port) as client:
        site.config.timeout_keep_alive = NEVER_S  # type: ignore[assignment]  # whole seconds to uvicorn
        await client.send(LARGE)
        await until(lambda: site.asked == ["/large"])
        await asyncio.sleep(0.1)
        await client.send(then)
        await asyncio.sleep(0.1)
        assert len((await client.answer())[2]) == 8 * MEGABYTE
        await asyncio.sleep(0.6)
        assert site.server.server_state.connections


async def test_refused_client_that_goes_on_is_cut_off() -> None:
    async with serving(Limits(linger_s=SOON_S)) as site, connected(site.port) as client:
        await client.send(b"FOO / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await client.send(b"x")
                await asyncio.sleep(0.01)
            pytest.fail("the connection stays open")


# Connections


async def test_connection_too_many_is_told_so_and_the_others_go_on() -> None:
    async with serving(Limits(connections=2)) as site, connected(site.port) as one, connected(site.port):
        await until(lambda: len(site.connections) == 2)
        async with connected(site.port) as third:
            assert problem(await third.rest()) == (503, "too_many_connections")
        await one.send(GET)
        assert (await one.answer())[0] == 200


async def test_address_has_as_many_connections_as_the_limit_says() -> None:
    async with serving(Limits(connections_per_address=1)) as site:
        for _ in range(3):  # a place is free again when its connection is gone
            async with connected(site.port) as one:
                await one.send(GET)
                assert (await one.answer())[0] == 200
                async with connected(site.port) as other:
                    assert problem(await other.rest()) == (503, "too_many_connections")
            await until(lambda: not site.connections)


async def test_health_port_answers_while_all_connections_are_taken() -> None:
    async with serving(Limits(connections=1)) as site, connected(site.port):
        await until(lambda: len(site.connections) == 1)
        async with connected(site.health_port) as probe:
            await probe.send(GET)
            assert (await probe.answer())[0] == 200


# What stays uvicorn's


async def test_websocket_outlives_the_deadlines_and_gives_its_place_back() -> None:
    limits = Limits(connections_per_address=1, head_s=SOON_S, body_s=SOON_S)
    async with serving(limits) as site:
        for _ in range(2):
            async with websockets.connect(f"ws://127.0.0.1:{site.port}/live", proxy=None) as echo:
                await asyncio.sleep(3 * SOON_S)
                await echo.send("still here")
                assert await echo.recv() == "still here"
                async with connected(site.port) as other:
                    assert problem(await other.rest()) == (503, "too_many_connections")
            await until(lambda: not site.server.server_state.connections)


async def test_upgrade_that_does_not_wait_for_the_answer_before_it_is_refused() -> None:
    async with serving() as site, connected(site.port) as client:
        await client.send(SLOW + UPGRADE)
        await until(lambda: site.asked == ["/slow"])
        site.open_gate()
        assert (await client.answer())[2] == b"fine"
        assert problem(await client.rest()) == (400, "bad_request")


async def test_unknown_upgrade_is_answered_without_it_and_the_connection_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as site, connected(site.port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.rest() == b""
    assert not caplog.records


async def test_stop_lets_the_answer_under_way_finish() -> None:
    async with serving() as site, connected(site.port) as client, connected(site.port) as idle:
        await client.send(SLOW)
        await until(lambda: site.asked == ["/slow"])
        site.server.should_exit = True
        assert await idle.rest() == b""
        site.open_gate()
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (200, "close", b"fine")
