"""Reports as one raw ASGI application, on a port of its own: who asks, what it costs, and how it is sent."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from django.db import Error as DatabaseFault

from billing.ratelimit import SECOND_NS, month_of, month_start_s, next_month, report_fields
from billing.reports import Allowance
from pricing.admission import Admission, Admitted, Refused
from pricing.exceptions import BadRequest
from pricing.http import UNEXPECTED
from pricing.messages import (
    COMMON,
    LIVE,
    ClientGone,
    Header,
    Receive,
    Response,
    Scope,
    Send,
    cacheable,
    header,
    other_method,
    refuse,
)
from pricing.metrics import FIELDS, Metrics
from pricing.problems import Problem
from pricing.protocol import parse_nothing, render_json, render_time, shorten
from telemetry._counters import LRS_REQUESTS, QUOTA_EXCEEDED
from telemetry.exceptions import NotWritten, TooManyBytes, TooManyRows
from telemetry.renderers import FORMATS
from telemetry.reports import Kind, Wanted
from telemetry.seldom import Seldom
from telemetry.usage import CLIENT_GONE, GIVEN_UP
from trinity_site.reports import openapi
from trinity_site.reports.maker import Made, Maker
from trinity_site.reports.questions import parse_report
from trinity_site.reports.room import Room

T = TypeVar("T")
Handler: TypeAlias = Callable[[Scope, Receive, AsyncExitStack], Awaitable["Response | Streamed"]]

PING_S = 2.0
RETRY_S = 1
METHODS = "GET, HEAD, OPTIONS"
EXPOSED: Header = (
    b"access-control-expose-headers",
    b"ratelimit-policy, ratelimit, retry-after, link, content-disposition",
)
_UNAVAILABLE = Problem(
    "reports_unavailable",
    "The database does not answer in time, or there is no room for a file; nothing was taken from the month.",
)

logger = logging.getLogger(__name__)


class Streamed(NamedTuple):
    """An answer whose first piece is there."""

    status: int
    headers: tuple[Header, ...]
    made: Made


class CounterRow(Protocol):
    def add(self, index: int, n: int = 1, /) -> None: ...


class ReportApi:
    """The application. Health and metrics are answered on *health_port* and nowhere else."""

    def __init__(
        self,
        maker: Maker,
        room: Room,
        asking: Room,
        admission: Admission,
        counters: CounterRow,
        metrics: Metrics,
        *,
        secret: bytes,
        health_port: int | None,
        wall_s: Callable[[], float] = time.time,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._maker = maker
        self._room = room
        self._asking = asking
        self._admission = admission
        self._counters = counters
        self._metrics = metrics
        self._secret = secret
        self._health_port = health_port
        self._wall_s = wall_s
        self._mono_ns = mono_ns
        self._may_log = Seldom(mono_ns)
        self._routes: dict[str, Handler] = {
            **{f"/reports/{kind.value}": partial(self._recorded, kind) for kind in Kind},
            "/openapi.json": self._openapi,
        }
        self._health: dict[str, Handler] = {
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/metrics": self._scrape,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:  # what a report holds until it has been sent
            client = await stack.enter_async_context(Client(receive))
            try:
                response = await client.waits_for(self._respond(scope, receive, stack))
                await _send(response, client, send, with_body=scope["method"] != "HEAD")
            except (ClientGone, OSError):
                return  # nobody is there to be answered

    async def _respond(self, scope: Scope, receive: Receive, stack: AsyncExitStack) -> Response | Streamed:
        port = (scope.get("server") or (None, None))[1]
        is_health = port is not None and port == self._health_port
        handler = (self._health if is_health else self._routes).get(scope["path"])
        if handler is None:
            return refuse(Problem("not_found", f"There is nothing at {shorten(scope['path'])!r}."))
        if not is_health:
            self._counters.add(LRS_REQUESTS)
        if scope["method"] not in ("GET", "HEAD"):
            return other_method(METHODS, scope["method"])
        try:
            return await handler(scope, receive, stack)
        except BadRequest as error:
            return refuse(error.problem)
        except Exception:
            logger.exception("Answering %s failed unexpectedly", scope["path"])
            return refuse(UNEXPECTED)

    # Reports

    async def _recorded(
        self, kind: Kind, scope: Scope, receive: Receive, stack: AsyncExitStack
    ) -> Response | Streamed:
        """Judge who asks, and leave a usage record of what became of the question."""
        judged = self._admission.admit(scope, kind.endpoint, take=False)
        if isinstance(judged, Refused):
            return refuse(judged.problem, *judged.fields)
        status = GIVEN_UP
        try:
            response = await self._answer(kind, judged, scope, stack)
            status = response.status
            return response
        except asyncio.CancelledError:
            status = CLIENT_GONE
            raise
        finally:
            self._admission.recorder.close(judged.asked, status)

    async def _answer(
        self, kind: Kind, judged: Admitted, scope: Scope, stack: AsyncExitStack
    ) -> Response | Streamed:
        account_id, now_s = judged.verdict.account_id, self._wall_s()
        month = month_of(now_s)
        fields: tuple[Header, ...] = ()
        try:
            if not self._asking.enter(account_id):  # each costs a query, whatever the question
                return _busy(fields)
            try:
                allowance = await self._maker.look(account_id, month)
            finally:
                self._asking.leave(account_id)
            fields = self._fields(allowance)
            wanted = parse_report(
                scope["query_string"],
                header(scope, b"accept"),
                kind,
                account_id=account_id,
                now=datetime.fromtimestamp(now_s, UTC),
                secret=self._secret,
            )
            if scope["method"] == "HEAD":
                return Response(200, b"", (*_content(wanted), *fields))
            if not self._room.enter(account_id):
                return _busy(fields)
            stack.callback(self._room.leave, account_id)
            is_first = not wanted.place  # later pages belong to the report of the first one
            if is_first and allowance.is_used_up:
                return self._used_up(allowance)
            made = await self._maker.make(wanted, stack)
            if is_first:
                taken, allowance = await self._maker.take(account_id, month)
                if not taken:  # another node was quicker
                    return self._used_up(allowance)
            return Streamed(200, (*_content(wanted, made), *self._fields(allowance)), made)
        except BadRequest as error:
            return refuse(error.problem, *fields)
        except (TooManyRows, TooManyBytes) as error:
            return refuse(_too_much(error), *fields)
        except (DatabaseFault, TimeoutError, NotWritten) as error:
            if self._may_log():
                logger.warning("A report could not be made: %s", error or "the database took too long")
            return refuse(_UNAVAILABLE, *fields, _retry_after(RETRY_S))

    def _fields(self, allowance: Allowance) -> tuple[Header, ...]:
        if allowance.cap is None:
            return (EXPOSED,)
        policy, state = report_fields(
            used=allowance.used, cap=allowance.cap, month=allowance.month, left_s=self._left_s(allowance)
        )
        return (b"ratelimit-policy", policy.encode()), (b"ratelimit", state.encode()), EXPOSED

    def _left_s(self, allowance: Allowance) -> int:
        return max(1, math.ceil(month_start_s(next_month(allowance.month)) - self._wall_s()))

    def _used_up(self, allowance: Allowance) -> Response:
        self._counters.add(QUOTA_EXCEEDED)
        resets_at = render_time(month_start_s(next_month(allowance.month)) * SECOND_NS)
        problem = Problem(
            "report_quota_exceeded",
            f"The {allowance.cap} reports of this month have been made.",
            {"limit": allowance.cap, "resets_at": resets_at},
        )
        return refuse(problem, *self._fields(allowance), _retry_after(self._left_s(allowance)))

    # The rest

    async def _openapi(self, scope: Scope, receive: Receive, stack: AsyncExitStack) -> Response:
        parse_nothing(scope["query_string"])
        return cacheable(scope, openapi.rendered())

    async def _live(self, scope: Scope, receive: Receive, stack: AsyncExitStack) -> Response:
        return Response(200, b'{"status":"live"}', LIVE)

    async def _ready(self, scope: Scope, receive: Receive, stack: AsyncExitStack) -> Response:
        """Ready is who could make a report: the database answers, and every key is known."""
        filled, answers = self._admission.gate.month(self._mono_ns()) != 0, True
        try:
            async with asyncio.timeout(PING_S):
                await self._maker.ping()
        except (DatabaseFault, TimeoutError):
            answers = False
        document = {
            "status": "ready" if filled and answers else "not_ready",
            "database": {"answers": answers},
            "keys": {"filled": filled},
        }
        return Response(200 if filled and answers else 503, render_json(document), LIVE)

    async def _scrape(self, scope: Scope, receive: Receive, stack: AsyncExitStack) -> Response:
        return Response(200, self._metrics.render(), FIELDS)


class Client:
    """The other end of one request. When it leaves, what it waits for is cancelled, and ClientGone raised."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    async def __aenter__(self) -> Client:
        self._leaving = asyncio.create_task(self._leaves(), name="client")
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._leaving.cancel()
        await asyncio.wait([self._leaving])

    async def waits_for(self, work: Coroutine[Any, Any, T]) -> T:  # Any: what coroutines send and take
        task = asyncio.create_task(work, name="report")
        try:
            await asyncio.wait([task, self._leaving], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ClientGone
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def _leaves(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass  # a body: nothing here reads one


async def _send(response: Response | Streamed, client: Client, send: Send, *, with_body: bool) -> None:
    """Send an answer. What fails in the middle is raised: the server ends the connection, never the body."""
    if isinstance(response, Streamed):
        made = response.made
        await send({"type": "http.response.start", "status": 200, "headers": list(response.headers)})
        await send({"type": "http.response.body", "body": made.first, "more_body": True})
        while (piece := await client.waits_for(_next(made))) is not None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    headers = [*response.headers]
    if with_body and response.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body if with_body else b""})


async def _next(made: Made) -> bytes | None:
    return await anext(made.rest, None)


def _content(wanted: Wanted, made: Made | None = None) -> tuple[Header, ...]:
    question, name = wanted.question, wanted.format
    headers = [
        (b"content-type", FORMATS[name].content_type.encode()),
        (b"cache-control", b"no-store"),
        *COMMON,
    ]
    if name not in ("json", "text"):
        file = f"{question.kind.value}-{question.start:%Y-%m-%d}.{name}"
        headers.append((b"content-disposition", f'attachment; filename="{file}"'.encode()))
    if made is not None and made.length is not None:
        headers.append((b"content-length", b"%d" % made.length))
    if made is not None and made.following is not None:
        address = f"/reports/{question.kind.value}?cursor={made.following}&limit={wanted.limit}"
        headers.append((b"link", f'<{address}>; rel="next"'.encode()))
    return tuple(headers)


def _too_much(error: TooManyRows | TooManyBytes) -> Problem:
    if isinstance(error, TooManyRows):
        detail = f"As {error.name} a report may have {error.most} rows; as CSV any number."
        return Problem("too_many_rows", detail, {"most_rows": error.most})
    detail = f"As a file a report may have {error.most} bytes; ask for less of it, or for pages of JSON."
    return Problem("too_many_rows", detail, {"most_bytes": error.most})


def _busy(fields: tuple[Header, ...]) -> Response:
    problem = Problem("busy", "As many reports are asked for at once as can be, here or by this account.")
    return refuse(problem, *fields, _retry_after(RETRY_S))


def _retry_after(wait_s: int) -> Header:
    return b"retry-after", b"%d" % wait_s
