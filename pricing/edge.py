"""uvicorn's HTTP protocol with a fast path for plain questions, and limits on what a connection may cost.

    EdgeConfig      uvicorn's configuration, and what all connections of one worker share
    EdgeProtocol    one connection; whoever breaks a limit is told why, and the connection is closed
    EdgeWebSocket   the same connection after its upgrade

uvicorn has no limits of its own here, because it expects a proxy in front: this server has none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import httptools
import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from billing.admission import pack_address
from pricing._http import FastPath
from pricing.doors import Door, Limits
from pricing.exceptions import BadRequest
from pricing.messages import refuse
from pricing.problems import Problem
from telemetry.seldom import Seldom

PIECE_BYTES = 2_048
"""The parser is given no more at once, so that between two pieces every limit can be looked at."""

logger = logging.getLogger(__name__)


class EdgeConfig(uvicorn.Config):
    """uvicorn's configuration with *limits*; who asks on *health_port* takes no place from anybody else."""

    def __init__(
        self,
        app: Callable[..., Any],  # Any: ASGI's three arguments, and uvicorn's own options below
        *,
        limits: Limits,
        health_port: int | None = None,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        **options: Any,
    ) -> None:
        super().__init__(app, http=EdgeProtocol, ws=EdgeWebSocket, **options)
        self.limits = limits
        self._health_port = health_port
        self._door = Door(limits.connections, limits.connections_per_address)
        self._health_door = Door(limits.health_connections, limits.health_connections)
        self._refused = 0
        self._may_log = Seldom(mono_ns)

    def is_for_health(self, server: tuple[str, int | None] | None) -> bool:
        return server is not None and server[1] == self._health_port

    def door(self, server: tuple[str, int | None] | None) -> Door:
        return self._health_door if self.is_for_health(server) else self._door

    def note(self, problem: Problem, client: tuple[str, int] | None) -> None:
        """Count a refusal; the log hears of them once a minute."""
        self._refused += 1
        if self._may_log():
            address = client[0] if client else "?"
            logger.warning(
                "%d requests or connections refused so far, the latest from %s: %s %s",
                self._refused,
                address,
                problem.code,
                problem.detail,
            )


class Flow(FlowControl):
    """Reads on only when all that was read before has been parsed."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self.held = bytearray()

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class EdgeProtocol(HttpToolsProtocol):
    config: EdgeConfig
    flow: Flow

    def __init__(self, config: EdgeConfig, *arguments: Any, **options: Any) -> None:  # Any: uvicorn's own
        super().__init__(config, *arguments, **options)
        self.url = b""
        self.headers = []
        self._limits = config.limits
        self._is_inside = False
        self._is_deaf = False  # what still arrives is for nobody: the client was refused, or has upgraded
        self._refusal: Problem | None = None  # waits for the answers that are due before it
        self._held = bytearray()  # the flow's
        self._running: RequestResponseCycle | None = None
        self._in_body = False
        self._loose = 0  # bytes parsed since a request was complete or a piece of body came
        self._in_message = False
        self._fast: FastPath | None = None
        self._is_free = False  # for the fast path: nothing is half read, nothing waits for its answer
        self._asked_s = 0.0  # the loop's time of the last question that it answered
        self._address: bytes | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    # Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._held = self.flow.held
        problem = self.config.door(self.server).enter(self.client)
        self._is_inside = problem is None
        if problem is None:
            self._watch()
            self._open_fast_path()
        else:
            self._is_deaf = True
            self._write_refusal(problem)
            transport.close()  # without lingering: these may come in thousands

    def _open_fast_path(self) -> None:
        """Use the fast path that the application has put into its lifespan's state, if it has."""
        if not self.config.is_for_health(self.server):
            self._fast = self.app_state.get("fast_path")
            self._is_free = self._fast is not None
            if self.client is not None and not self.app_state.get("trusts_proxy"):
                self._address = pack_address(self.client[0])

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._running is not None:  # uvicorn tells the last request of a pipeline alone
            self._running.disconnected = True
            self._running.message_event.set()
        self._unwatch()
        self._forget_write_deadline()
        if self._is_inside:
            self.config.door(self.server).leave(self.client)

    def handle_websocket_upgrade(self) -> None:
        self._is_deaf = True
        self._forget_write_deadline()
        super().handle_websocket_upgrade()

    # Bytes in

    def data_received(self, data: bytes) -> None:
        if self._is_free and not self.flow.write_paused:
            answer = self._fast.answer(data, self._address, self.server_state.default_headers)  # type: ignore[union-attr]  # free: it is there
            if answer is not None:
                self._answered(answer)
                return
        if self._is_deaf:
            return
        self._unset_keepalive_if_required()
        if len(data) <= PIECE_BYTES and not self._held and not self.pipeline:
            self._parse(data)
        else:
            self._held += data
            self._parse_held()
        self._watch()

    def _answered(self, answer: bytes) -> None:
        """Do what uvicorn does after an answer; its keep-alive timer looks by itself who has asked since."""
        self.transport.write(answer)
        self.server_state.total_requests += 1
        self._asked_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._keep_alive(self.timeout_keep_alive)
        if self._deadline is not None:
            self._unwatch()

    def _keep_alive(self, wait_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(wait_s, self.timeout_keep_alive_handler)

    def _parse_held(self) -> None:
        """Parse what is held until enough requests wait; the rest is held, and nothing more is read."""
        held = self._held
        while held and len(self.pipeline) < self._limits.waiting and not self._is_deaf:
            piece = bytes(held[:PIECE_BYTES])
            del held[:PIECE_BYTES]
            self._parse(piece)
        if held:
            self.flow.pause_reading()

    def _parse(self, piece: bytes) -> None:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            if not self._should_upgrade():
                self.cycle.keep_alive = False  # the parser understands nothing that comes after
            elif self._is_busy():
                self._refuse(Problem("bad_request", "An upgrade must wait for the answers before it."))
            else:
                self.handle_websocket_upgrade()
        except httptools.HttpParserError as error:
            cause = error.__context__
            malformed = Problem("bad_request", "This is not HTTP/1.1 as RFC 9112 has it.")
            self._refuse(cause.problem if isinstance(cause, BadRequest) else malformed)
        else:
            self._loose += len(piece)
            if self._loose > PIECE_BYTES and (problem := self._too_large(self._loose - PIECE_BYTES)):
                self._refuse(problem)

    def _too_large(self, head_bytes: int) -> Problem | None:
        limits = self._limits
        if len(self.url) > limits.url_bytes:
            return Problem("url_too_long", f"An address may have {limits.url_bytes} bytes.")
        if head_bytes > limits.head_bytes or len(self.headers) > limits.headers:
            detail = f"A head may have {limits.head_bytes} bytes and {limits.headers} header lines."
            return Problem("head_too_large", detail)
        return None

    # What the parser has found

    def on_message_begin(self) -> None:
        self._in_message = True
        self._is_free = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        hosts = 0
        for name, _ in self.headers:
            if name == b"host":
                hosts += 1
        if hosts != 1 and (hosts or self.parser.get_http_version() != "1.0"):
            raise BadRequest(Problem("bad_request", "A request needs the header Host, once."))
        # The bytes of a head that came in one or two pieces need no counting.
        if self._loose > PIECE_BYTES or len(self.headers) > self._limits.headers:
            self._judge_head()
        super().on_headers_complete()
        self._in_body = True
        if self._deadline is not None:
            self._unwatch()

    def _judge_head(self) -> None:
        head_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if problem := self._too_large(head_bytes):
            raise BadRequest(problem)

    def on_chunk_header(self) -> None:
        self.headers = []  # the parser reports trailers as headers: they are none of the request's

    def on_body(self, body: bytes) -> None:
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_message = False
        self._in_body = False
        self._loose = 0
        if self._deadline is not None:
            self._unwatch()

    # Answers out

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        is_last = not self.pipeline
        super().on_response_complete()
        if self._refusal is not None:
            if is_last and not self.transport.is_closing():
                self._tell(self._refusal)
        elif self._held and not self.transport.is_closing():
            self._parse_held()
            self.flow.resume_reading()
            self._watch()
        self._is_free = self._fast is not None and not (
            self._in_message or self._held or self._is_deaf or self._is_busy()
        )

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(self._limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_write_deadline()

    def _forget_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def timeout_keep_alive_handler(self) -> None:
        left_s = self._asked_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._keep_alive(left_s)
        elif self.transport.get_write_buffer_size():
            self.transport.abort()  # closing would wait for a client that does not read
        else:
            super().timeout_keep_alive_handler()

    # Deadlines

    def _watch(self) -> None:
        """Set a deadline when something must come from the client, and nothing else would notice if not."""
        if self.cycle is not None and not self.cycle.response_complete and not self._in_body:
            return  # an answer is due, and uvicorn's own deadline follows it
        if self._deadline is None and not self._is_deaf:
            wait_s = self._limits.body_s if self._in_body else self._limits.head_s
            self._deadline = self.loop.call_later(wait_s, self._expire)

    def _in_head(self) -> bool:
        return (
            self.scope is not None and "method" not in self.scope
        )  # uvicorn sets it when the head is complete

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self._watch()  # not the client's fault
        elif not self._in_body and not self._in_head():
            self.transport.close()  # browsers open connections ahead: to those an answer means nothing
        else:
            self._refuse(Problem("request_timeout", "The rest of the request did not arrive in time."))

    # Refusals

    def _refuse(self, problem: Problem) -> None:
        """Answer with *problem* once every request before it is answered, and close."""
        self._is_deaf = True
        self._refusal = problem
        self._unwatch()
        self._held.clear()
        if self._in_body and not self._abandon():
            self.transport.close()
        elif not self._is_busy():
            self._tell(problem)

    def _is_busy(self) -> bool:
        """Say whether the last request that was understood is still to be answered."""
        return not (self.cycle is None or self.cycle.response_complete or self.cycle.disconnected)

    def _abandon(self) -> bool:
        """Give up the request whose body cannot be read, and say whether it can still be answered."""
        if self.pipeline:
            self.pipeline.popleft()
        elif self.cycle.response_started:
            return False
        else:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        return True

    def _tell(self, problem: Problem) -> None:
        self._unset_keepalive_if_required()
        self._write_refusal(problem)
        self.transport.write_eof()
        self.flow.resume_reading()
        self._deadline = self.loop.call_later(self._limits.linger_s, self.transport.abort)

    def _write_refusal(self, problem: Problem) -> None:
        self.config.note(problem, self.client)
        response = refuse(problem, (b"connection", b"close"))
        length = (b"content-length", b"%d" % len(response.body))
        headers = (*self.server_state.default_headers, *response.headers, length)
        lines = (b"%s: %s\r\n" % header for header in headers)
        self.transport.write(b"".join((STATUS_LINE[response.status], *lines, b"\r\n", response.body)))


class EdgeWebSocket(WebSocketsSansIOProtocol):
    """Gives back the place that its connection took as HTTP."""

    config: EdgeConfig

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.config.door(self.server).leave(self.client)
