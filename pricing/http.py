"""The public price interface as one raw ASGI application: answered before, and without, Django's handler."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from billing._gate import Gate
from billing.demo import LIFE_S
from pricing import openapi
from pricing._board import BoardReader
from pricing._finder import Finder
from pricing._http import FastPath
from pricing.admission import EXPOSED, Admission, Admitted, Refused, describe_usage
from pricing.board import Board
from pricing.catalogue import list_assets, list_categories, list_exchanges
from pricing.exceptions import BadRequest
from pricing.health import exchange_ages_ms, readiness
from pricing.messages import (
    LIVE,
    ClientGone,
    Receive,
    Response,
    Scope,
    Send,
    cacheable,
    other_method,
    read_json,
    refuse,
)
from pricing.metrics import FIELDS, Metrics
from pricing.problems import Problem
from pricing.protocol import (
    PriceAnswer,
    PriceQuery,
    parse_assets,
    parse_nothing,
    parse_price,
    parse_prices,
    parse_prices_body,
    render_json,
    render_price,
    render_prices,
    shorten,
)
from pricing.service import CounterRow, PriceService
from pricing.usage import told_price, told_prices
from telemetry._counters import HTTP_LATENCY, TCP_REQUESTS, Counters
from telemetry._spool import PRICE, PRICES, USAGE, Appender
from telemetry.spool import SpoolState
from telemetry.traffic import Counted
from telemetry.usage import CLIENT_GONE, GIVEN_UP, NOTHING

STATUS_LINE = b"HTTP/1.1 200 OK\r\n"
_LABEL = '","quote":"{quote}","source":"{source}","exchange":"{exchange}","timestamp":"'
UNEXPECTED = Problem("internal_error", "The error has been logged; please try again.")


logger = logging.getLogger(__name__)


Handler: TypeAlias = Callable[[Scope, Receive], Awaitable[Response]]
KeyedHandler: TypeAlias = Callable[[Admitted, Scope, Receive], Awaitable[Response]]


class Route(NamedTuple):
    handlers: dict[str, Handler]
    on_health_port: bool = False

    @property
    def allow(self) -> str:
        return ", ".join([*self.handlers, "OPTIONS"])


class WorkerRow(CounterRow, Protocol):
    def latency(self, kind: int, ns: int, n: int = 1, /) -> None: ...


class PriceApi:
    """The application. *counted* are the counters of all workers, for /metrics; this one is number *worker*.

    Health and metrics are answered on *health_port* and nowhere else; nothing else is answered there.
    """

    def __init__(
        self,
        service: PriceService,
        board: Board,
        counters: WorkerRow,
        admission: Admission,
        *,
        counted: Counted,
        spool: Callable[[], SpoolState],
        health_port: int | None,
        worker: int,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._service = service
        self._board = board
        self._counters = counters
        self._admission = admission
        self._health_port = health_port
        self._mono_ns = mono_ns
        self._metrics = Metrics(
            board, admission.gate, counted, mono_ns, spool=spool, tier2=service.tier2, worker=worker
        )
        self._documents = Documents()
        self._routes = {
            "/price": Route(_get(self._keyed(PRICE, self._price))),
            "/prices": Route(
                _get(self._keyed(PRICES, self._prices)) | {"POST": self._keyed(PRICES, self._prices_posted)}
            ),
            "/usage": Route(_get(self._keyed(USAGE, self._usage, take=False))),
            "/demo-token": Route({"POST": self._demo_token}),
            "/exchanges": Route(_get(self._exchanges)),
            "/asset-categories": Route(_get(self._categories)),
            "/assets": Route(_get(self._assets)),
            "/openapi.json": Route(_get(self._openapi)),
            "/health/live": Route(_get(self._live), on_health_port=True),
            "/health/ready": Route(_get(self._ready), on_health_port=True),
            "/metrics": Route(_get(self._scrape), on_health_port=True),
        }

    def handles(self, path: str) -> bool:
        """Say whether *path* belongs to this application, on whichever port."""
        return path in self._routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status, body, headers, _ = await self._respond(scope, receive)
        except ClientGone:
            return
        if status not in (204, 304):  # which have no body, and no length either
            headers = (*headers, (b"content-length", b"%d" % len(body)))
        try:
            await send({"type": "http.response.start", "status": status, "headers": list(headers)})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        except OSError:
            return  # servers raise OSError for a send after the client has left; there is nobody to tell

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        route = self._routes.get(scope["path"])
        port = (scope.get("server") or (None, None))[1]  # unknown behind some servers, None on a unix socket
        on_health_port = port is not None and port == self._health_port
        if route is None or route.on_health_port is not on_health_port:
            return refuse(Problem("not_found", f"There is nothing at {shorten(scope['path'])!r}."))
        if on_health_port:
            return await self._handle(route, scope, receive)
        self._counters.add(TCP_REQUESTS)
        begun_ns = self._mono_ns()
        response = await self._handle(route, scope, receive)
        self._counters.latency(HTTP_LATENCY, self._mono_ns() - begun_ns)
        return response

    async def _handle(self, route: Route, scope: Scope, receive: Receive) -> Response:
        handler = route.handlers.get(scope["method"])
        if handler is None:
            return other_method(route.allow, scope["method"])
        return await self._answer(handler, scope, receive)

    def _keyed(self, endpoint: int, handler: KeyedHandler, *, take: bool = True) -> Handler:
        """Judge who asks before the question is looked at.

        Every answer tells of the key's limits, and is recorded, whatever becomes of it.
        """

        async def keyed(scope: Scope, receive: Receive) -> Response:
            judged = self._admission.admit(scope, endpoint, take=take)
            if isinstance(judged, Refused):
                return refuse(judged.problem, *judged.fields)
            status, told = GIVEN_UP, NOTHING
            try:
                response = await self._answer(partial(handler, judged), scope, receive)
                status, told = response.status, response.told
            except ClientGone:
                status = CLIENT_GONE
                raise
            finally:
                self._admission.recorder.close(judged.asked, status, told)
            return response._replace(headers=(*response.headers, *judged.fields))

        return keyed

    async def _answer(self, handler: Handler, scope: Scope, receive: Receive) -> Response:
        try:
            return await handler(scope, receive)
        except BadRequest as error:
            return refuse(error.problem)
        except ClientGone:
            raise
        except Exception:
            logger.exception("Answering %s failed unexpectedly", scope["path"])
            return refuse(UNEXPECTED)

    async def _price(self, judged: Admitted, scope: Scope, receive: Receive) -> Response:
        query = parse_price(scope["query_string"])
        answer = self._service.at_once(query)
        if answer is None:
            answer = await self._service.below(query)
        told = told_price(query.asset, answer)
        if isinstance(answer, Problem):
            return refuse(answer, told=told)
        body = render_price(answer.price, age_ns=answer.age_ns, tier=answer.tier, cached=answer.cached)
        return Response(200, body, LIVE, told)

    async def _prices(self, judged: Admitted, scope: Scope, receive: Receive) -> Response:
        return await self._answer_all(parse_prices(scope["query_string"]))

    async def _prices_posted(self, judged: Admitted, scope: Scope, receive: Receive) -> Response:
        parse_nothing(scope["query_string"])
        return await self._answer_all(parse_prices_body(await read_json(scope, receive)))

    async def _answer_all(self, queries: list[PriceQuery]) -> Response:
        """Answer what the board knows at once, and wait for the rest together."""
        answers: dict[str, PriceAnswer | Problem] = {}
        waiting: dict[str, asyncio.Task[PriceAnswer | Problem]] = {}
        async with asyncio.TaskGroup() as group:
            for query in queries:
                answer = self._service.at_once(query)
                if answer is not None:
                    answers[query.asset] = answer
                else:
                    task = group.create_task(self._below(query), name=f"price:{query.asset}")
                    waiting[query.asset] = task
        answers.update((asset, task.result()) for asset, task in waiting.items())
        assets = [query.asset for query in queries]
        body = render_prices((asset, answers[asset]) for asset in assets)
        return Response(200, body, LIVE, told_prices(assets))

    async def _below(self, query: PriceQuery) -> PriceAnswer | Problem:
        """Ask the lower tiers for one of several prices, whose fault is its own and not the others'."""
        try:
            return await self._service.below(query)
        except Exception:
            logger.exception("Answering for %s failed unexpectedly", query.asset)
            return UNEXPECTED

    async def _usage(self, judged: Admitted, scope: Scope, receive: Receive) -> Response:
        parse_nothing(scope["query_string"])
        document = describe_usage(judged.verdict, self._admission.total(judged.verdict))
        return Response(200, render_json(document), LIVE)

    async def _demo_token(self, scope: Scope, receive: Receive) -> Response:
        parse_nothing(scope["query_string"])
        token = self._admission.demo_token(scope)
        if token is None:
            return refuse(Problem("forbidden", "Demo tokens are for the pages of this site."))
        return Response(200, render_json({"token": token, "expires_in_s": LIFE_S}), LIVE)

    async def _exchanges(self, scope: Scope, receive: Receive) -> Response:
        parse_nothing(scope["query_string"])
        ages_ms = exchange_ages_ms(self._board, self._mono_ns())
        rows = list_exchanges(self._service.view.catalogue(), ages_ms, self._service.parameters.price_ttl_ms)
        return cacheable(scope, render_json(rows))

    async def _categories(self, scope: Scope, receive: Receive) -> Response:
        parse_nothing(scope["query_string"])
        catalogue = self._service.view.catalogue()
        return cacheable(
            scope, self._documents.get(catalogue, "categories", lambda: list_categories(catalogue))
        )

    async def _assets(self, scope: Scope, receive: Receive) -> Response:
        exchange, category = parse_assets(scope["query_string"])
        catalogue = self._service.view.catalogue()
        if exchange is not None and exchange not in catalogue.exchanges:
            return refuse(Problem("unknown_exchange", f"{exchange} is not listed; see /exchanges."))
        if category is not None and all(row.category != category for row in catalogue.assets.values()):
            detail = f"{shorten(category)!r} is not a category; see /asset-categories."
            return refuse(Problem("unknown_category", detail))
        body = self._documents.get(
            catalogue, (exchange, category), lambda: list_assets(catalogue, exchange, category)
        )
        return cacheable(scope, body)

    async def _openapi(self, scope: Scope, receive: Receive) -> Response:
        parse_nothing(scope["query_string"])
        return cacheable(scope, openapi.rendered())

    async def _live(self, scope: Scope, receive: Receive) -> Response:
        return Response(200, b'{"status":"live"}', LIVE)

    async def _ready(self, scope: Scope, receive: Receive) -> Response:
        followed = self._service.view.followed()
        ready, rows = readiness(
            self._board, self._admission.gate, followed, self._service.parameters, self._mono_ns()
        )
        return Response(200 if ready else 503, render_json(rows), LIVE)

    async def _scrape(self, scope: Scope, receive: Receive) -> Response:
        return Response(200, self._metrics.render(), FIELDS)


def make_fast_path(
    board: BoardReader,
    gate: Gate,
    counters: Counters,
    appender: Appender,
    *,
    ttl_ms: int,
    clock: Callable[[], tuple[int, int]] | None = None,
) -> FastPath:
    """Make what answers plain questions before this application, with its words."""
    return FastPath(
        Finder(board, ttl_ms=ttl_ms, label=_LABEL),
        gate,
        counters,
        appender,
        status=STATUS_LINE,
        common=LIVE,
        exposed=(EXPOSED,),
        clock=clock,
    )


class Documents:
    """Bodies rendered once for each catalogue."""

    def __init__(self) -> None:
        self._catalogue: object = None
        self._bodies: dict[object, bytes] = {}

    def get(self, catalogue: object, key: object, make: Callable[[], dict[str, object]]) -> bytes:
        if catalogue is not self._catalogue:
            self._catalogue = catalogue
            self._bodies.clear()
        body = self._bodies.get(key)
        if body is None:
            body = self._bodies[key] = render_json(make())
        return body


def _get(handler: Handler) -> dict[str, Handler]:
    return {"GET": handler, "HEAD": handler}
