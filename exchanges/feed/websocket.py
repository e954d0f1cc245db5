"""A WebSocket that hands each whole data frame over in the callback that read it. The door to `websockets`.

The library stays responsible for the handshake, control frames, sizes and closing. Its queue, and waking a
coroutine that waits, are left out: they cost more than half of what reading a frame does (4.9 and 3.1 µs).
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import time
from typing import Any, Final, Protocol
from urllib.parse import urljoin

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.frames import BINARY, CONT, TEXT, CloseCode, Frame
from websockets.protocol import OPEN, Event

MAX_FRAME_BYTES: Final = 2**20
MAX_FRAGMENTS: Final = 4096
MAX_UNSENT_BYTES: Final = 2**20
FAIR_BYTES: Final = 65_536
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Conversation(Protocol):
    """What the socket tells of. All four are called from the event loop's callbacks and must not raise."""

    def opened(self, websocket: FeedSocket, wall_ns: int, mono_ns: int) -> None: ...
    def frame(self, frame: str | bytes, wall_ns: int, mono_ns: int) -> None: ...
    def batch_read(self) -> None: ...
    def lost(self, websocket: FeedSocket, reason: str) -> None: ...


class FeedSocket(ClientConnection):
    """One connection; `opened` is told before any frame, even of those that came with the handshake."""

    def __init__(self, *args: Any, conversation: Conversation, **options: Any) -> None:  # Any: the library's
        super().__init__(*args, **options)
        self._conversation = conversation
        self._parts: list[bytes | bytearray | memoryview] = []
        self._is_text = False
        self._failed = ""
        self._wall_ns = 0
        self._mono_ns = 0

    def data_received(self, data: bytes) -> None:
        self._wall_ns, self._mono_ns = time.time_ns(), time.monotonic_ns()
        super().data_received(data)
        self._conversation.batch_read()
        if self.protocol.close_expected():
            # Nothing more comes that counts, and a hostile peer may never let go of the connection.
            self._conversation.lost(self, self._why(None))
        if len(data) >= FAIR_BYTES and not self.transport.is_closing():
            # A flood on one connection must let the others read: uvloop would come back here up to 32 times.
            self.transport.pause_reading()
            self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def process_event(self, event: Event) -> None:
        if not isinstance(event, Frame):
            super().process_event(event)
            if self.protocol.handshake_exc is None:
                self._conversation.opened(self, self._wall_ns, self._mono_ns)
            return
        opcode = event.opcode
        if opcode is TEXT or opcode is BINARY:
            self._is_text = opcode is TEXT
            if event.fin:
                self._hand_over(event.data)
            else:
                self._parts = [event.data]
        elif opcode is CONT:
            self._parts.append(event.data)
            if event.fin:
                self._hand_over(b"".join(self._parts))
            elif len(self._parts) > MAX_FRAGMENTS:  # the library limits their bytes, but they can be empty
                self._fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
        else:
            super().process_event(event)

    def _hand_over(self, data: bytes | bytearray | memoryview) -> None:
        if self._failed:
            return
        try:
            frame = str(data, "utf-8") if self._is_text else bytes(data)
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "bad UTF-8")
            return
        self._conversation.frame(frame, self._wall_ns, self._mono_ns)

    def _fail(self, code: CloseCode, reason: str) -> None:
        self._failed = self._failed or reason
        self._parts.clear()
        self.protocol.fail(code, reason)
        self.send_data()
        self._conversation.lost(self, reason)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._conversation.lost(self, self._why(exc))

    def _why(self, error: BaseException | None) -> str:
        failure = self.protocol.parser_exc or error
        sent, received = self.protocol.close_sent, self.protocol.close_rcvd
        if received is not None:
            return f"closed by the exchange: {received}"
        if sent is not None and sent.code != CloseCode.NORMAL_CLOSURE:
            return f"closed: {sent.reason or sent}"
        return f"connection lost: {failure}" if failure and str(failure) else "connection lost"

    def send_now(self, text: str) -> None:
        """Send a text frame without waiting. A peer that makes us talk and does not read is hung up on."""
        if self.protocol.state is not OPEN:
            return
        if self.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._fail(CloseCode.POLICY_VIOLATION, "reads nothing of what it asks for")
            return
        self.protocol.send_text(text.encode())
        self.send_data()

    def ping_now(self) -> None:
        """Send a protocol ping whose answer nobody waits for."""
        if self.protocol.state is OPEN:
            self.protocol.send_ping(b"")
            self.send_data()


class _Connect(connect):
    """The library follows redirects by itself, to wherever they lead; here they are ordinary refusals."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def shake_hands(
    url: str,
    sock: socket.socket,
    *,
    conversation: Conversation,
    tls: ssl.SSLContext,
    ping_interval_s: float,
    ping_timeout_s: float,
    close_timeout_s: float,
) -> FeedSocket:
    """Make *sock*, connected to the host of *url*, a WebSocket; close it when that fails.

    No compression is offered: a small hostile frame could unpack to a huge one, and a message cut at the size
    limit can still read as another number (https://github.com/python-websockets/websockets/issues/1715).
    """
    try:
        websocket = await _Connect(
            url,
            sock=sock,
            proxy=None,
            compression=None,
            user_agent_header="trinity-beast",
            open_timeout=None,  # the caller's limit covers resolving and redirects as well
            ping_interval=ping_interval_s,
            ping_timeout=ping_timeout_s,
            close_timeout=close_timeout_s,
            max_size=MAX_FRAME_BYTES,
            create_connection=functools.partial(FeedSocket, conversation=conversation),  # type: ignore[arg-type]  # "a wrapper or a subclass"
            ssl=tls if url.startswith("wss:") else None,
        )
    except BaseException:
        sock.close()
        raise
    assert isinstance(websocket, FeedSocket)
    return websocket


def redirect_target(url: str, error: InvalidStatus) -> str | None:
    """Return where the refused handshake points to instead; None when it is no redirect."""
    location = error.response.headers.get("Location")
    if error.response.status_code not in _REDIRECTS or not location:
        return None
    return urljoin(url, location)


async def close_socket(websocket: FeedSocket, timeout_s: float) -> None:
    """Close in order, or abort when that takes longer than *timeout_s* or is cancelled."""
    try:
        async with asyncio.timeout(timeout_s):
            await websocket.close()
    except TimeoutError:
        pass
    finally:
        websocket.transport.abort()
    await websocket.wait_closed()
