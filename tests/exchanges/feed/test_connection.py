from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from websockets.asyncio.server import ServerConnection
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.uri import parse_uri
from websockets.utils import accept_key

from exchanges.feed.connection import Ended, FeedConnection, Network
from exchanges.feed.protocol import FeedProtocol
from exchanges.feed.websocket import FAIR_BYTES, MAX_FRAGMENTS, MAX_FRAME_BYTES, FeedSocket
from tests.exchanges.certificates import self_signed
from tests.exchanges.feed.exchange import Record, Script, ScriptedExchange, say_nothing, trade
from tests.exchanges.rows import feed_spec

QUICK = Network(
    allow_loopback=True, open_timeout_s=2.0, ping_interval_s=0.1, ping_timeout_s=0.1, close_timeout_s=0.3
)


TOKEN_URL = "{ENDPOINT}?token={TOKEN}"
TOKEN_QUIRKS = {
    "connect": {
        "token": {
            "url": "https://api.plain.example/token",
            "endpoint_path": "d.end",
            "token_path": "d.token",
        }
    }
}


async def no_token(url: str, network: Network) -> bytes:
    raise AssertionError("no row here asks for a token")


class Subject:
    """A connection under test, with what it delivered."""

    def __init__(
        self,
        url: str,
        *,
        symbols: Sequence[str] = ("BTC-USD", "ETH-USD"),
        network: Network = QUICK,
        ask_token: Callable[[str, Network], Awaitable[bytes]] = no_token,
        **row: Any,  # Any: columns
    ) -> None:
        spec = feed_spec(ws_url=url, **row)
        numbers = itertools.count()
        self.protocol = FeedProtocol(spec, symbols, uuid=lambda: f"uuid-{next(numbers)}")
        self.record = Record()
        self.connection = FeedConnection(
            self.protocol, network=network, sink=self.record, ask_token=ask_token
        )
        self.task: asyncio.Task[Ended] | None = None

    async def __aenter__(self) -> Subject:
        self.task = asyncio.create_task(self.connection.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task])

    async def prices(self, count: int) -> list[str]:
        await self.record.until(lambda: len(self.record.seen) >= count)
        return [tick.price for tick in self.record.seen]

    async def ended(self) -> Ended:
        async with asyncio.timeout(5):
            return await self.connection.run()


@asynccontextmanager
async def exchange(script: Script = say_nothing, **options: Any) -> AsyncIterator[ScriptedExchange]:
    async with ScriptedExchange(script, **options) as served:
        yield served


@asynccontextmanager
async def raw_server(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Serve bytes; give the URL, and see every handler off."""
    handlers: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        await handle(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    server.close()
    await asyncio.gather(*handlers)


def sending(*frames: str | bytes) -> Script:
    """Send *frames*; bytes go onto the wire as they are."""

    async def script(socket: ServerConnection) -> None:
        for frame in frames:
            if isinstance(frame, bytes):
                socket.transport.write(frame)
            else:
                await socket.send(frame)
        await socket.wait_closed()

    return script


def wire(opcode: Opcode, data: bytes, **flags: bool) -> bytes:
    return bytes(Frame(opcode, data, **flags).serialize(mask=False))


# Conversation


async def test_subscribes_and_delivers_with_both_clocks() -> None:
    async with exchange(sending(trade("BTC-USD", "1.50"), trade("ETH-USD", "2.50", trade_id=2))) as served:
        before = time.time_ns(), time.monotonic_ns()
        async with Subject(served.url) as subject:
            assert await subject.prices(2) == ["1.50", "2.50"]
            await served.arrived.wait()
        after = time.time_ns(), time.monotonic_ns()
    assert served.received == [{"op": "subscribe", "args": ["BTC-USD", "ETH-USD"], "id": 1}]
    for wall_ns, mono_ns in subject.record.batches:
        assert before[0] <= wall_ns <= after[0]
        assert before[1] <= mono_ns <= after[1]


async def test_frames_that_come_with_the_handshake_are_not_lost() -> None:
    """They are in the same read as the handshake's answer, before the task that waits for it runs again."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line[19:] for line in request.split("\r\n") if line.startswith("Sec-WebSocket-Key: "))
        head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        answer = f"{head}Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode()
        writer.write(answer + wire(Opcode.TEXT, trade("BTC-USD", "9.75").encode()))
        await reader.read()

    async with raw_server(handle) as url, Subject(url) as subject:
        assert await subject.prices(1) == ["9.75"]
        assert subject.connection.open


async def test_binary_frame_is_delivered_as_it_is() -> None:
    frame = wire(Opcode.BINARY, trade("BTC-USD", "3.25").encode())
    async with exchange(sending(frame)) as served, Subject(served.url) as subject:
        assert await subject.prices(1) == ["3.25"]


async def test_fragmented_frame_is_put_together_around_control_frames() -> None:
    text = trade("BTC-USD", "4.125").encode()
    pieces = (
        wire(Opcode.TEXT, text[:5], fin=False),
        wire(Opcode.PING, b"are you there"),
        wire(Opcode.CONT, text[5:9], fin=False),
        wire(Opcode.CONT, text[9:]),
        wire(Opcode.TEXT, trade("BTC-USD", "5.5", trade_id=2).encode()),
    )
    async with exchange(sending(*pieces)) as served, Subject(served.url) as subject:
        assert await subject.prices(2) == ["4.125", "5.5"]
        assert subject.connection.frames == 2


async def test_symbols_added_and_removed_on_the_open_connection() -> None:
    row = {"quirks": {"unsubscribe_template": '{"op":"unsubscribe","args":[{SYMBOLS}]}'}}
    script = sending(trade("BTC-USD", "1.5"))
    async with exchange(script) as served, Subject(served.url, symbols=["BTC-USD"], **row) as subject:
        await subject.prices(1)
        subject.connection.subscribe(["SOL-USD"])
        subject.connection.unsubscribe(["BTC-USD"])
        while len(served.received) < 3:
            served.arrived.clear()
            await served.arrived.wait()
    assert [(frame["op"], frame["args"]) for frame in served.received] == [
        ("subscribe", ["BTC-USD"]),
        ("subscribe", ["SOL-USD"]),
        ("unsubscribe", ["BTC-USD"]),
    ]


async def test_symbol_added_before_the_connection_opens_is_asked_for_once() -> None:
    async with exchange() as served, Subject(served.url, symbols=["BTC-USD"]) as subject:
        subject.connection.subscribe(["SOL-USD"])
        while len(served.received) < 2:
            served.arrived.clear()
            await served.arrived.wait()
    assert [frame["args"] for frame in served.received] == [["BTC-USD"], ["SOL-USD"]]


async def test_ping_of_the_row_is_sent_in_time() -> None:
    async with exchange() as served, Subject(served.url, ping_interval_s=1, ping_payload='"ping"') as subject:
        async with asyncio.timeout(3):
            while "ping" not in served.received:
                served.arrived.clear()
                await served.arrived.wait()
        assert subject.connection.open


async def test_token_handshake_fills_the_url() -> None:
    async with exchange(sending(trade("BTC-USD", "6.5"))) as served:
        asked: list[str] = []

        async def ask(url: str, network: Network) -> bytes:
            asked.append(url)
            return json.dumps({"d": {"end": served.url, "token": "a/b c"}}).encode()

        async with Subject(TOKEN_URL, ask_token=ask, quirks=TOKEN_QUIRKS) as subject:
            assert await subject.prices(1) == ["6.5"]
    assert asked == ["https://api.plain.example/token"]
    assert served.handshakes == ["/feed?token=a%2Fb%20c"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"d":{"token":"x"}}'])
async def test_token_answer_without_an_address_ends_the_attempt(body: bytes) -> None:
    async def ask(url: str, network: Network) -> bytes:
        return body

    ended = await Subject(TOKEN_URL, ask_token=ask, quirks=TOKEN_QUIRKS).ended()
    assert "no endpoint and token" in ended.reason


async def test_address_that_the_token_handshake_gives_is_checked() -> None:
    async def ask(url: str, network: Network) -> bytes:
        return b'{"d":{"end":"wss://169.254.169.254/","token":"x"}}'

    ended = await Subject(TOKEN_URL, ask_token=ask, quirks=TOKEN_QUIRKS).ended()
    assert ended.refused
    assert "link-local" in ended.reason


# How it ends: each of these is a protection


def closing(code: int, reason: str = "") -> Script:
    async def script(socket: ServerConnection) -> None:
        await socket.close(code, reason)

    return script


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1013, 4000])
async def test_close_of_the_exchange_ends_the_connection(code: int) -> None:
    async with exchange(closing(code, "bye")) as served:
        ended = await Subject(served.url).ended()
    assert ended.reason.startswith(f"closed by the exchange: {code}")
    assert "bye" in ended.reason


async def test_cut_connection_ends_it() -> None:
    async def cut(socket: ServerConnection) -> None:
        socket.transport.abort()

    async with exchange(cut) as served:
        ended = await Subject(served.url).ended()
    assert ended.reason.startswith("connection lost")


async def test_peer_that_answers_no_ping_is_found() -> None:
    async def frozen(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await asyncio.sleep(2)

    async with exchange(frozen) as served:
        began = time.monotonic()
        ended = await Subject(served.url).ended()
        took_s = time.monotonic() - began
    assert "keepalive ping timeout" in ended.reason
    assert took_s < 1.0  # interval, time-out and close of QUICK: 0.5 s


def test_default_limits_find_a_half_open_peer_within_ten_seconds() -> None:
    network = Network(allow_loopback=False)
    assert network.ping_interval_s + network.ping_timeout_s + network.close_timeout_s < 10


async def test_silence_with_pongs_ends_at_the_limit_of_the_row() -> None:
    async with exchange(sending(trade("BTC-USD", "1.5"))) as served:
        subject = Subject(served.url, quirks={"silence_limit_s": 1})
        began = time.monotonic()
        ended = await subject.ended()
    assert ended.reason == "no trade for 1 s"
    assert 1.0 <= time.monotonic() - began < 2.5
    assert served.closed == [1000]


async def test_reconnect_notice_ends_the_connection_and_says_how_long_to_wait() -> None:
    async with exchange(sending('{"event":"notice"}')) as served:
        ended = await Subject(served.url, quirks={"reconnect": [{"event": "notice"}]}).ended()
    assert ended.reason == "the exchange asked to reconnect"
    assert ended.retry_after_s > 0


async def bad_frame(*frames: bytes) -> tuple[Ended, Subject]:
    """Send *frames* and then a good trade; return what became of the connection."""
    good = wire(Opcode.TEXT, trade("BTC-USD", "1.5").encode())
    async with exchange(sending(b"".join(frames) + good)) as served:
        subject = Subject(served.url)
        return await subject.ended(), subject


async def test_oversized_frame_ends_the_connection_and_nothing_of_it_is_read() -> None:
    text = trade("BTC-USD", "7.5")
    ended, subject = await bad_frame(wire(Opcode.TEXT, (text + " " * MAX_FRAME_BYTES).encode()))
    assert "exceeds limit" in ended.reason or "too big" in ended.reason.lower()
    assert subject.record.seen == []


async def test_largest_frame_is_read() -> None:
    text = trade("BTC-USD", "7.5")
    frame = wire(Opcode.TEXT, (text + " " * (MAX_FRAME_BYTES - len(text))).encode())
    async with exchange(sending(frame)) as served, Subject(served.url) as subject:
        assert await subject.prices(1) == ["7.5"]


async def test_oversized_message_in_fragments_ends_the_connection() -> None:
    pieces = [wire(Opcode.TEXT, b" " * 65_536, fin=False)]
    pieces += [wire(Opcode.CONT, b" " * 65_536, fin=False)] * 16
    ended, subject = await bad_frame(*pieces)
    assert "exceeds limit" in ended.reason or "too big" in ended.reason.lower()
    assert subject.record.seen == []


async def test_endless_empty_fragments_end_the_connection() -> None:
    pieces = [wire(Opcode.TEXT, b"", fin=False)] + [wire(Opcode.CONT, b"", fin=False)] * (MAX_FRAGMENTS + 1)
    ended, _ = await bad_frame(*pieces)
    assert ended.reason == "too many fragments"


async def test_bad_utf8_ends_the_connection_and_nothing_after_it_is_read() -> None:
    ended, subject = await bad_frame(wire(Opcode.TEXT, b'{"e":"trade","s":"\xff\xfe"}'))
    assert ended.reason == "bad UTF-8"
    assert subject.record.seen == []


async def test_deflate_bomb_is_not_unpacked() -> None:
    """Compression is not offered, so a compressed frame breaks the protocol."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    packed = zlib.compress(b" " * 64 * 2**20, wbits=-15)
    frame = bytearray(wire(Opcode.TEXT, packed))
    frame[0] |= 0x40  # RSV1: compressed
    ended, subject = await bad_frame(bytes(frame))
    assert "reserved bits" in ended.reason
    assert subject.record.seen == []
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 160 * 1024  # the test's own 64 MiB and their copies


async def test_compression_is_not_offered() -> None:
    def answer(socket: ServerConnection, request: Request) -> Response | None:
        assert "Sec-WebSocket-Extensions" not in request.headers
        return None

    script = sending(trade("BTC-USD", "1.5"))
    async with exchange(script, answer=answer) as served, Subject(served.url) as subject:
        await subject.prices(1)


@pytest.mark.parametrize(
    "frame",
    [
        wire(Opcode.CONT, b"out of nowhere"),
        b"\x83\x00",  # an opcode that does not exist
        b"\x81\x85\x00\x00\x00\x00hello",  # masked, as only clients may
        wire(Opcode.TEXT, b"one", fin=False) + wire(Opcode.TEXT, b"two"),
    ],
)
async def test_broken_framing_ends_the_connection(frame: bytes) -> None:
    ended, subject = await bad_frame(frame)
    assert ended.reason
    assert subject.record.seen == []


async def test_peer_that_does_not_let_go_after_breaking_the_protocol_is_left_at_once() -> None:
    async def hold_on(socket: ServerConnection) -> None:
        socket.transport.write(b"\x83\x00")
        socket.transport.pause_reading()
        await asyncio.sleep(2)

    patient = Network(allow_loopback=True, ping_interval_s=60, ping_timeout_s=60, close_timeout_s=0.2)
    async with exchange(hold_on) as served:
        began = time.monotonic()
        ended = await Subject(served.url, network=patient).ended()
        assert time.monotonic() - began < 1.0
    assert "invalid opcode" in ended.reason


@pytest.mark.parametrize("text", ["", "not json", '{"e":"trade"', "[1,2", "\x00", "{" * 5000])
async def test_garbage_is_counted_and_the_connection_goes_on(text: str) -> None:
    async with exchange(sending(text, trade("BTC-USD", "1.5"))) as served, Subject(served.url) as subject:
        assert await subject.prices(1) == ["1.5"]
        assert subject.connection.open
    assert [fault.reason for fault in subject.record.bad] == ["bad_json"]


async def test_error_in_the_sink_is_raised_and_closes_the_connection() -> None:
    async with exchange(sending(trade("BTC-USD", "1.5"))) as served:
        subject = Subject(served.url)

        def broken(*args: object) -> None:
            raise RuntimeError("no room")

        subject.record.ticks = broken  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="no room"):
            await subject.ended()
    assert served.closed == [1000]


@pytest.mark.parametrize("method", ["tick_due", "next_deadline", "opened", "outgoing"])
async def test_error_anywhere_is_raised_and_closes_the_connection(method: str) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("a bug")

    async with exchange(sending(trade("BTC-USD", "1.5"))) as served:
        subject = Subject(served.url, ping_interval_s=1, quirks={"silence_limit_s": 1})
        setattr(subject.protocol, method, broken)
        with pytest.raises(RuntimeError, match="a bug"):
            await subject.ended()
    assert served.closed == [1000]


async def test_error_of_a_new_subscription_is_raised_by_the_connection() -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("a bug")

    async with exchange(sending(trade("BTC-USD", "1.5"))) as served:
        subject = Subject(served.url)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(expect_error(subject))
            await subject.prices(1)
            subject.protocol.subscribe = broken  # type: ignore[method-assign]
            subject.connection.subscribe(["SOL-USD"])
        assert task.result() == "a bug"


async def expect_error(subject: Subject) -> str:
    with pytest.raises(RuntimeError) as caught:
        await subject.ended()
    return str(caught.value)


async def test_repeats_keep_no_connection_alive() -> None:
    async def repeat(socket: ServerConnection) -> None:
        while True:
            await socket.send(trade("BTC-USD", "1.5"))
            await asyncio.sleep(0.05)

    async with exchange(repeat) as served:
        subject = Subject(served.url, quirks={"silence_limit_s": 1})
        subject.record.of_use = False
        ended = await subject.ended()
    assert ended.reason == "no trade for 1 s"
    assert len(subject.record.seen) > 10


async def test_peer_that_makes_us_talk_and_does_not_read_is_hung_up_on() -> None:
    async def asks_for_much(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        while True:
            await socket.send(json.dumps({"ping": "x" * 250}))

    patient = Network(allow_loopback=True, ping_interval_s=60, close_timeout_s=0.1)
    reply = {"match": {"ping": {"present": True}}, "frame": '{"pong":{$.ping},"and":"' + "y" * 1_900 + '"}'}
    async with exchange(asks_for_much) as served:
        ended = await Subject(served.url, network=patient, quirks={"replies": [reply]}).ended()
    assert ended.reason == "reads nothing of what it asks for"


class IdleTransport(asyncio.Transport):
    """Notes whether it is being read from."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: object) -> None:
        pass


@pytest.mark.parametrize(("size", "reads_on"), [(FAIR_BYTES - 1, True), (FAIR_BYTES, False)])
async def test_large_read_lets_other_connections_go_first(size: int, reads_on: bool) -> None:
    """uvloop reads a socket up to 32 times in a row while there is something."""
    subject = Subject("ws://127.0.0.1:9/")
    socket = FeedSocket(ClientProtocol(parse_uri("ws://127.0.0.1:9/")), conversation=subject.connection)
    transport = IdleTransport()
    socket.connection_made(transport)
    socket.data_received(b"x" * size)
    assert transport.reading is reads_on
    await asyncio.sleep(0)
    assert transport.reading


# Opening


async def test_refused_handshake_is_a_reason() -> None:
    def answer(socket: ServerConnection, request: Request) -> Response | None:
        return socket.respond(503, "later")

    async with exchange(answer=answer) as served:
        ended = await Subject(served.url).ended()
    assert ended == Ended("handshake refused: HTTP 503")


async def test_server_that_is_no_websocket_is_a_reason() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    async with raw_server(handle) as url:
        ended = await Subject(url).ended()
    assert ended.reason.startswith("handshake failed")


async def test_silent_handshake_is_given_up() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    impatient = Network(allow_loopback=True, open_timeout_s=0.1)
    async with raw_server(handle) as url:
        ended = await Subject(url, network=impatient).ended()
    assert ended == Ended("timed out while connecting", unreachable=True)


async def test_unreachable_host_says_so() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    ended = await Subject(f"ws://127.0.0.1:{port}/").ended()
    assert ended.unreachable
    assert not ended.refused


async def test_forbidden_address_is_not_contacted() -> None:
    async with exchange() as served:
        ended = await Subject(served.url, network=Network(allow_loopback=False)).ended()
    assert ended.refused
    assert "loopback" in ended.reason
    assert served.handshakes == []


def redirecting(*locations: str) -> Callable[[ServerConnection, Request], Response | None]:
    """Answer each handshake with the next redirect, and when there are none left with a WebSocket."""
    left = list(locations)

    def answer(socket: ServerConnection, request: Request) -> Response | None:
        if not left:
            return None
        response = socket.respond(307, "elsewhere")
        response.headers["Location"] = left.pop(0)
        return response

    return answer


async def test_redirect_is_followed_on_the_same_terms() -> None:
    """The end of the connection that redirected must not be taken for the end of the one it led to."""

    async def script(socket: ServerConnection) -> None:
        await socket.send(trade("BTC-USD", "8.5"))
        await asyncio.sleep(0.1)
        await socket.send(trade("BTC-USD", "8.75", trade_id=2))
        await socket.wait_closed()

    async with (
        exchange(script) as target,
        exchange(answer=redirecting(target.url)) as served,
        Subject(served.url) as subject,
    ):
        assert await subject.prices(2) == ["8.5", "8.75"]
    assert (served.handshakes, target.handshakes) == (["/feed"], ["/feed"])


async def test_relative_redirect_is_followed() -> None:
    script = sending(trade("BTC-USD", "8.5"))
    answer = redirecting("/v2/feed")
    async with exchange(script, answer=answer) as served, Subject(served.url) as subject:
        assert await subject.prices(1) == ["8.5"]
    assert served.handshakes == ["/feed", "/v2/feed"]


@pytest.mark.parametrize(
    "location",
    [
        "wss://169.254.169.254/latest/meta-data/",
        "wss://[fd00:ec2::254]/",
        "wss://10.0.0.1/",
        "ws://1.1.1.1/",
        "http://127.0.0.1:6379/",
        "https://1.1.1.1/",
        "file:///etc/passwd",
        "wss://user:pw@1.1.1.1/",
        "wss://2130706433/",
        "//[::ffff:10.0.0.1]/",
    ],
)
async def test_redirect_to_a_forbidden_address_is_refused(location: str) -> None:
    async with exchange(answer=redirecting(location)) as served:
        ended = await Subject(served.url).ended()
    assert ended.refused
    assert len(served.handshakes) == 1


async def test_redirect_to_a_name_with_a_forbidden_address_is_refused() -> None:
    async def resolver(host: str, port: int) -> Sequence[str]:
        return {"inside.example": ["10.0.0.5"]}[host]

    network = Network(allow_loopback=True, resolver=resolver)
    async with exchange(answer=redirecting("wss://inside.example/")) as served:
        ended = await Subject(served.url, network=network).ended()
    assert ended.refused
    assert "10.0.0.5" in ended.reason


async def test_redirects_without_end_are_refused() -> None:
    async with exchange(answer=redirecting(*["/again"] * 50)) as served:
        ended = await Subject(served.url).ended()
    assert ended.refused
    assert "more than 3 redirects" in ended.reason
    assert len(served.handshakes) == 4


# TLS


class Encrypted:
    """An exchange with a certificate, reached under the name stream.plain.example."""

    def __init__(self, folder: Path, *, certified: str, days: int = 1) -> None:
        self.server_tls, self.client_tls = self_signed(folder, certified, days=days)

    async def ended(self, *, trusted: bool = True, location: str = "") -> Ended:
        async def resolver(host: str, port: int) -> Sequence[str]:
            return ["127.0.0.1"]

        tls = {"tls": self.client_tls} if trusted else {}
        network = Network(allow_loopback=True, resolver=resolver, **tls)
        answer = redirecting(location) if location else None
        async with exchange(closing(1001), tls=self.server_tls, answer=answer) as served:
            return await Subject(f"wss://stream.plain.example:{served.port}/", network=network).ended()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_certified_host_is_connected_to(run: Callable[..., Ended], tmp_path: Path) -> None:
    ended = run(Encrypted(tmp_path, certified="stream.plain.example").ended())
    assert ended.reason.startswith("closed by the exchange: 1001")


async def test_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    ended = await Encrypted(tmp_path, certified="other.example").ended()
    assert ended.reason.startswith("TLS: Hostname mismatch")


async def test_expired_certificate_is_refused(tmp_path: Path) -> None:
    ended = await Encrypted(tmp_path, certified="stream.plain.example", days=-1).ended()
    assert ended.reason == "TLS: certificate has expired"


async def test_self_signed_certificate_is_refused(tmp_path: Path) -> None:
    ended = await Encrypted(tmp_path, certified="stream.plain.example").ended(trusted=False)
    assert ended.reason.startswith("TLS: self-signed certificate")


async def test_redirect_from_tls_to_plain_is_refused(tmp_path: Path) -> None:
    encrypted = Encrypted(tmp_path, certified="stream.plain.example")
    ended = await encrypted.ended(location="ws://127.0.0.1:9999/")
    assert ended.refused
    assert "unencrypted" in ended.reason


# Stopping


async def test_cancelling_an_open_connection_closes_it_in_order() -> None:
    async def script(socket: ServerConnection) -> None:
        await socket.send(trade("BTC-USD", "1.5"))
        await served.arrived.wait()
        await socket.send(trade("BTC-USD", "1.75", trade_id=2))
        await socket.wait_closed()

    async with exchange(script) as served:
        async with Subject(served.url) as subject:
            await subject.prices(2)
        assert not subject.connection.open
    assert served.closed == [1000]


async def test_cancelling_leaves_no_task() -> None:
    async def frozen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(frozen) as url:
        before = asyncio.all_tasks()
        async with Subject(url):
            await asyncio.sleep(0.05)
        names = {task.get_name() for task in asyncio.all_tasks() - before}
        assert len(names) <= 1, "nothing but the server's handler"


async def test_cancelling_does_not_wait_for_a_peer_that_is_frozen() -> None:
    async def frozen(socket: ServerConnection) -> None:
        await socket.send(trade("BTC-USD", "1.5"))
        await asyncio.sleep(0.1)
        socket.transport.pause_reading()
        await socket.send(trade("BTC-USD", "1.75", trade_id=2))
        await asyncio.sleep(2)

    async with exchange(frozen) as served:
        async with Subject(served.url) as subject:
            await subject.prices(2)
            began = time.monotonic()
        assert time.monotonic() - began < 1.0
