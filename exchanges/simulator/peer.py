"""One TCP connection to the simulator: HTTP first, then WebSocket if the client asks for it.

The WebSocket library only parses: every byte is written here, so that any can be late, wrong or missing.
"""

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from exchanges.simulator import faults as f
from exchanges.simulator.dialects.base import Close, Out, Ping, Session
from exchanges.simulator.exchange import SimulatedExchange
from exchanges.simulator.wire import text_frame

if TYPE_CHECKING:
    from exchanges.simulator.server import Simulator

_HEAD_BYTES = 65_536
_BODY_BYTES = 1_048_576
_BUFFER_BYTES = 64 * 2**20  # a client that reads more slowly than this is cut off
_FRAGMENT_BUFFER_BYTES = 2**20
_CLOSE_TIMEOUT_S = 2.0


class Peer(asyncio.Protocol):
    """A client. Belongs to an exchange once its opening handshake is done."""

    session: Session

    def __init__(self, simulator: "Simulator") -> None:
        self.fragments: f.EndlessFragments | None = None
        self._simulator = simulator
        self._loop = asyncio.get_running_loop()
        self._exchange: SimulatedExchange | None = None
        self._head = bytearray()
        self._websocket: ServerProtocol | None = None
        self._message = bytearray()  # a client's message in fragments
        self._backlog = bytearray()  # what a drip has not let out yet
        self._timers: set[asyncio.TimerHandle] = set()
        self._writable = asyncio.Event()
        self._writable.set()
        self._frozen = False
        self.gone = False  # closed, or about to be

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._simulator.peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        for timer in self._timers:
            timer.cancel()
        self._writable.set()
        self._simulator.peers.discard(self)
        self._simulator.changed()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._websocket is not None:
            self._feed(data)
            return
        if self._exchange is not None:
            return  # a client that speaks before the handshake is over
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end >= 0:
            self._request(bytes(self._head[:end]), bytes(self._head[end + 4 :]))
        elif len(self._head) > _HEAD_BYTES:
            self._transport.abort()

    # HTTP

    def _request(self, head: bytes, rest: bytes) -> None:
        line, _, fields = head.decode("latin-1").partition("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (field.partition(":") for field in fields.split("\r\n"))
        }
        method, _, target = line.partition(" ")
        target = target.partition(" ")[0]
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > _BODY_BYTES:
            self.answer(400, b'{"error":"bad Content-Length"}')
        elif headers.get("upgrade", "").lower() == "websocket":
            self._knock(target)
        elif len(rest) >= int(length):
            self._simulator.serve_http(self, method, target, rest[: int(length)], headers)

    def answer(self, status: int, body: bytes, *, fields: Iterable[tuple[str, str]] = ()) -> None:
        """Answer an HTTP request, and close."""
        head = f"HTTP/1.1 {status} {_phrase(status)}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields)
        self._transport.write(head.encode() + b"\r\n" + body)
        self._transport.close()

    def later(self, seconds: float, what: Callable[..., None], *args: object) -> None:
        self._timers.add(self._loop.call_later(seconds, what, *args))

    # The opening handshake

    def _knock(self, target: str) -> None:
        exchange = self._simulator.exchange_at(target)
        if exchange is None:
            self.answer(404, b'{"error":"no such exchange"}')
            return
        self._exchange = exchange
        self.obey()
        if self._frozen:
            exchange.knocking.add(self)
            return  # half-open: the kernel has accepted, nobody answers until obey() goes on
        exchange.counts["handshakes"] += 1
        self._simulator.changed()
        if refusal := exchange.strike(f.RefuseHandshake):
            self.answer(refusal.status, b"", fields=[("Retry-After", "1")])
        elif redirect := exchange.strike(f.Redirect):
            self.answer(302, b"", fields=[("Location", redirect.url)])
        elif not exchange.admits(self._simulator.now_ns()):
            exchange.counts["connections_refused"] += 1
            self.answer(429, b"", fields=[("Retry-After", "1")])
        elif slow := exchange.active(f.SlowHandshake):
            self.later(slow.seconds, self._welcome)
        else:
            self._welcome()

    def _welcome(self) -> None:
        assert self._exchange is not None
        # Accepted when offered, so that a bomb can be sent; ordinary frames go out as they are.
        self._websocket = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()], max_size=2**20)
        head = bytes(self._head)
        self._head.clear()
        self._feed(head)

    def _accept(self, request: Request) -> None:
        assert self._websocket is not None and self._exchange is not None
        response = self._websocket.accept(request)
        self._websocket.send_response(response)
        self._flush()
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            return
        exchange, now_ns = self._exchange, self._simulator.now_ns()
        number = exchange.counts["accepted"] + 1
        self.session = exchange.dialect(exchange.tape, number, exchange.limits, now_ns)
        exchange.open(self, now_ns)
        if closing := exchange.strike(f.AcceptThenClose):
            self.hang_up(closing.code)

    # WebSocket

    def _feed(self, data: bytes) -> None:
        assert self._websocket is not None
        self._websocket.receive_data(data)
        for event in self._websocket.events_received():
            if isinstance(event, Request):
                self._accept(event)
            elif isinstance(event, Frame):
                self._hear(event)
        self._flush()
        self._simulator.changed()

    def _hear(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT) or self.gone:
            return
        self._message += frame.data
        if frame.fin and self._exchange is not None:
            text = self._message.decode("utf-8", "replace")
            self._message.clear()
            self._exchange.hear(self, text, self._simulator.now_ns())

    def _flush(self) -> None:
        assert self._websocket is not None
        for data in self._websocket.data_to_send():
            if data:
                self.write(data)
            else:
                self._leave()
                self._transport.close()

    # Line

    def send(self, outs: Iterable[Out]) -> None:
        """Send frames and pings in order; a Close ends the connection and drops the rest."""
        assert self._websocket is not None
        if self._websocket.state is not State.OPEN:
            return
        data = bytearray()
        for out in outs:
            if isinstance(out, Close):
                self.write(bytes(data))
                self.hang_up(out.code, out.reason)
                return
            if isinstance(out, Ping):
                self._websocket.send_ping(b"")
                data += b"".join(self._websocket.data_to_send())
            else:
                data += text_frame(out)
        self.write(bytes(data))

    def write(self, data: bytes) -> None:
        if not data or self._transport.is_closing() or self._frozen:
            return
        if self._exchange is not None and self._exchange.active(f.SlowDrip):
            self._drip(data)
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > _BUFFER_BYTES:
            if self._exchange is not None:
                self._exchange.counts["slow_clients"] += 1
            self._transport.abort()

    async def write_all(self, data: bytes) -> bool:
        """Write, wait until the client has taken most of it, and tell whether it is still there."""
        self._transport.write(data)
        await self._writable.wait()
        return not self._transport.is_closing()

    def hang_up(self, code: int, reason: str = "") -> None:
        """Close with *code*; 0 cuts the connection without a word."""
        assert self._websocket is not None
        self._leave()
        if code == 0 or self._websocket.state is not State.OPEN:
            self._transport.abort()
            return
        self._websocket.send_close(code, reason)
        self._flush()
        self.later(_CLOSE_TIMEOUT_S, self._transport.abort)

    def abort(self) -> None:
        self._transport.abort()

    def obey(self) -> None:
        assert self._exchange is not None
        frozen = self._exchange.frozen()
        if frozen and not self._frozen:
            self._transport.pause_reading()
        self._frozen, was_frozen = frozen, self._frozen
        if was_frozen and not frozen:
            self._transport.resume_reading()
            if self in self._exchange.knocking:
                self._exchange.knocking.discard(self)
                self._knock(self._target())
        if self.fragments is not None and self._exchange.active(f.EndlessFragments) is None:
            self.hang_up(0)  # its message can no longer end well
        if self._backlog and not self._exchange.active(f.SlowDrip):
            self._transport.write(bytes(self._backlog))
            self._backlog.clear()

    def go_on(self) -> None:
        """Send the next part of a message that does not end."""
        if self.fragments and self._transport.get_write_buffer_size() < _FRAGMENT_BUFFER_BYTES:
            self._transport.write(self.fragments.more())

    def _target(self) -> str:
        return self._head.split(b" ", 2)[1].decode("latin-1")

    def _drip(self, data: bytes) -> None:
        idle = not self._backlog
        if len(self._backlog) < _HEAD_BYTES:  # the rest is lost, as in a full buffer
            self._backlog += data
        if idle:
            self._drop()

    def _drop(self) -> None:
        drip = self._exchange.active(f.SlowDrip) if self._exchange is not None else None
        if drip is None or not self._backlog or self._transport.is_closing():
            return
        self._transport.write(bytes(self._backlog[:1]))
        del self._backlog[:1]
        self._timers = {timer for timer in self._timers if timer.when() > self._loop.time()}
        self.later(1 / drip.bytes_per_s, self._drop)

    def _leave(self) -> None:
        self.gone = True
        if self._exchange is not None:
            self._exchange.lines.discard(self)
            self._exchange.knocking.discard(self)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
