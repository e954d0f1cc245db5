"""One connection to an exchange: opens it, and lets a FeedProtocol lead the conversation.

Frames go from the socket's callback through the protocol to the board without a task switch. What the
protocol has to say, and its next deadline, is looked at once per read.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Concatenate, Final, NamedTuple, ParamSpec, Protocol
from urllib.parse import quote
from uuid import uuid4

from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

from exchanges.addresses import WEBSOCKET, Resolver, check_url, open_socket, resolve, tls_context
from exchanges.exceptions import AddressRefused
from exchanges.feed.decode import Faults
from exchanges.feed.paths import Path, load
from exchanges.feed.protocol import PING, FeedProtocol
from exchanges.feed.spec import FeedSpec
from exchanges.feed.templates import Moment, fill
from exchanges.feed.websocket import FeedSocket, close_socket, redirect_target, shake_hands
from pricing.tick import Tick

MAX_REDIRECTS: Final = 3
_SOONEST_S: Final = 0.001

P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What every connection of this process keeps to. A peer that answers no ping is found within 9 s."""

    allow_loopback: bool
    tls: ssl.SSLContext = field(default_factory=tls_context)
    resolver: Resolver = resolve
    open_timeout_s: float = 10.0
    ping_interval_s: float = 4.0
    ping_timeout_s: float = 4.0
    close_timeout_s: float = 1.0


class Sink(Protocol):
    """Where a connection's harvest goes; called from the event loop's callbacks."""

    def ticks(self, ticks: Sequence[Tick], wall_ns: int, mono_ns: int) -> int:
        """Return how many of them were of use: new here, let through, and traded just now."""

    def faults(self, faults: Faults, wall_ns: int) -> None: ...


class Ended(NamedTuple):
    """Why a connection ended, and how long the exchange wants to be left alone."""

    reason: str
    retry_after_s: float = 0.0
    refused: bool = False
    """The row itself is at fault: its address must not be connected to."""
    unreachable: bool = False
    """The exchange's host did not answer at all."""


AskToken = Callable[[str, Network], Awaitable[bytes]]
"""Answers a URL with the body that a POST to it returns."""


def _ends_by_errors(
    method: Callable[Concatenate[FeedConnection, P], None],
) -> Callable[Concatenate[FeedConnection, P], None]:
    """Let `run` raise what *method* raises: here it would only kill the transport, a timer, or the caller."""

    @functools.wraps(method)
    def entry(self: FeedConnection, /, *args: P.args, **named: P.kwargs) -> None:
        try:
            method(self, *args, **named)
        except Exception as error:  # noqa: BLE001 - raised again by run()
            self._fail(error)

    return entry


class FeedConnection:
    """Runs once. A new connection takes a new protocol and a new one of these."""

    def __init__(self, protocol: FeedProtocol, *, network: Network, sink: Sink, ask_token: AskToken) -> None:
        self.protocol = protocol
        self.frames = 0
        self.open = False
        self._network = network
        self._sink = sink
        self._ask_token = ask_token
        self._websocket: FeedSocket | None = None
        self._over: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._once_open: list[Callable[[], object]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        # A frame that is no trade may have moved a deadline forward or want an answer; trades never do.
        self._look = False

    async def run(self) -> Ended:
        """Connect and stay connected; return why that ended. Cancelling closes the connection in order."""
        try:
            websocket = await self._connect()
        except _EXPECTED as error:
            is_network = isinstance(error, OSError) and not isinstance(error, ssl.SSLError)
            return Ended(_describe(error), refused=isinstance(error, AddressRefused), unreachable=is_network)
        try:
            return await self._over
        finally:
            self.open = False
            if self._timer is not None:
                self._timer.cancel()
            await close_socket(websocket, self._network.close_timeout_s)

    def subscribe(self, symbols: Sequence[str]) -> None:
        """Ask for more symbols on this connection, or on it once it opens."""
        self._when_open(lambda: self.protocol.subscribe(symbols, time.time_ns(), time.monotonic_ns()))

    def unsubscribe(self, symbols: Sequence[str]) -> None:
        """Tell the exchange to stop, where the row knows how; their trades are ignored in any case."""
        self._when_open(lambda: self.protocol.unsubscribe(symbols, time.time_ns(), time.monotonic_ns()))

    @_ends_by_errors
    def _when_open(self, act: Callable[[], object]) -> None:
        if self._websocket is None:
            self._once_open.append(act)
        else:
            act()
            self._look_after()

    # Opening

    async def _connect(self) -> FeedSocket:
        network = self._network
        async with asyncio.timeout(network.open_timeout_s):
            url = await self._url()
            for _ in range(MAX_REDIRECTS + 1):
                endpoint = check_url(url, schemes=WEBSOCKET, allow_loopback=network.allow_loopback)
                sock = await open_socket(
                    endpoint.host,
                    endpoint.port,
                    allow_loopback=network.allow_loopback,
                    timeout_s=network.open_timeout_s,
                    resolver=network.resolver,
                )
                try:
                    return await shake_hands(
                        url,
                        sock,
                        conversation=self,
                        tls=network.tls,
                        ping_interval_s=network.ping_interval_s,
                        ping_timeout_s=network.ping_timeout_s,
                        close_timeout_s=network.close_timeout_s,
                    )
                except InvalidStatus as error:
                    target = redirect_target(url, error)
                    if target is None:
                        raise
                    if endpoint.scheme == "wss" and not target.startswith("wss:"):
                        raise AddressRefused(target[:200], "redirect to an unencrypted address") from None
                    url = target
        raise AddressRefused(url[:200], f"more than {MAX_REDIRECTS} redirects")

    async def _url(self) -> str:
        spec = self.protocol.spec
        token = spec.quirks.connect.token
        if token is None or not ("{ENDPOINT}" in spec.ws_url or "{TOKEN}" in spec.ws_url):
            return socket_url(spec, list(self.protocol.symbol_states()))
        body = await self._ask_token(token.url, self._network)
        try:
            document = load(body)
            endpoint, word = Path(token.endpoint_path).first(document), Path(token.token_path).first(document)
        except (ValueError, RecursionError):
            endpoint = word = None
        if not isinstance(endpoint, str) or not isinstance(word, str):
            raise ConnectionError("no endpoint and token in the answer")
        return socket_url(spec, list(self.protocol.symbol_states()), endpoint=endpoint, token=word)

    # What the socket tells (Conversation)

    @_ends_by_errors
    def opened(self, websocket: FeedSocket, wall_ns: int, mono_ns: int) -> None:
        self._websocket = websocket
        self.open = True
        self.protocol.opened(wall_ns, mono_ns)
        for act in self._once_open:
            act()
        self._look_after()

    @_ends_by_errors
    def frame(self, frame: str | bytes, wall_ns: int, mono_ns: int) -> None:
        self.frames += 1
        protocol = self.protocol
        ticks = protocol.receive(frame, wall_ns, mono_ns)
        if not ticks or protocol.paused:
            self._look = True
        if ticks and self._sink.ticks(ticks, wall_ns, mono_ns):
            protocol.harvested(mono_ns)

    @_ends_by_errors
    def batch_read(self) -> None:
        if self._look or self.protocol.faults.counts:
            self._look_after()

    @_ends_by_errors
    def lost(self, websocket: FeedSocket, reason: str) -> None:
        if websocket is self._websocket:  # and not one that only redirected
            self.open = False
            self._end(Ended(reason))

    # What the protocol wants

    def _look_after(self) -> None:
        """Do what the protocol wants done now, and be back at its next deadline."""
        self._look = False
        protocol, websocket = self.protocol, self._websocket
        if websocket is None or self._over.done():
            return
        if protocol.faults.counts:
            self._sink.faults(protocol.take_faults(), time.time_ns())
        for frame in protocol.outgoing():
            if frame is PING:
                websocket.ping_now()
            else:
                websocket.send_now(str(frame))
        if protocol.hangup is not None:
            self._end(Ended(protocol.hangup.reason, protocol.hangup.retry_after_s))
            return
        self._arm()

    def _arm(self) -> None:
        """Set the timer. One that is early is left alone: limits move with each frame, timers need not."""
        deadline_ns = self.protocol.next_deadline()
        if deadline_ns is None or (self._timer is not None and self._timer_ns <= deadline_ns):
            return
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(_SOONEST_S, (deadline_ns - time.monotonic_ns()) / 1e9)
        self._timer_ns = deadline_ns
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    @_ends_by_errors
    def _on_timer(self) -> None:
        self._timer = None
        mono_ns = time.monotonic_ns()
        deadline_ns = self.protocol.next_deadline()
        if deadline_ns is not None and deadline_ns <= mono_ns:
            self.protocol.tick_due(time.time_ns(), mono_ns)
        self._look_after()

    def _end(self, ended: Ended) -> None:
        if not self._over.done():
            self._over.set_result(ended)

    def _fail(self, error: Exception) -> None:
        if not self._over.done():
            self._over.set_exception(error)


def socket_url(spec: FeedSpec, symbols: Sequence[str], *, endpoint: str = "", token: str = "") -> str:
    """Return the row's address with its placeholders filled."""
    plain = [spec.symbol_template.replace("{SYMBOL}", symbol).strip('"') for symbol in symbols]
    return fill(
        spec.ws_url,
        Moment(time.time_ns(), 1, str(uuid4())),
        SYMBOLS=spec.quirks.symbol_join.join(plain),
        ENDPOINT=endpoint,
        TOKEN=quote(token, safe=""),
    )


_EXPECTED = (AddressRefused, InvalidHandshake, InvalidURI, OSError)  # TimeoutError and SSLError are OSErrors


def _describe(error: Exception) -> str:
    """Say what went wrong while connecting, for the status page."""
    match error:
        case AddressRefused():
            return str(error)
        case InvalidStatus():
            return f"handshake refused: HTTP {error.response.status_code}"
        case ssl.SSLCertVerificationError():
            return f"TLS: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS: {error.reason or error}"
        case TimeoutError():
            return str(error) or "timed out while connecting"
        case InvalidHandshake() | InvalidURI():
            return f"handshake failed: {error}"
    return f"cannot connect: {error}"
