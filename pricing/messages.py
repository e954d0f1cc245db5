"""Responses made and bodies read, as ASGI has them: what every route of the price interface has in common."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from pricing.exceptions import BadRequest
from pricing.problems import Problem, render_problem
from pricing.protocol import MAX_BODY_BYTES, shorten
from telemetry.usage import NOTHING, Told

Scope: TypeAlias = Mapping[str, Any]  # Any: ASGI messages are open dictionaries
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Header: TypeAlias = tuple[bytes, bytes]

BODY_TIMEOUT_S = 5.0
CATALOGUE_MAX_AGE_S = 2

COMMON: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"access-control-allow-origin", b"*"),
)
JSON: tuple[Header, ...] = ((b"content-type", b"application/json"), *COMMON)
LIVE: tuple[Header, ...] = (*JSON, (b"cache-control", b"no-store"))
PROBLEM: tuple[Header, ...] = (
    (b"content-type", b"application/problem+json"),
    (b"cache-control", b"no-store"),
    *COMMON,
)


class Response(NamedTuple):
    status: int
    body: bytes
    headers: tuple[Header, ...]
    told: Told = NOTHING
    """For the usage record."""


class ClientGone(Exception):
    """The client has left in the middle of its request: nobody is there to be answered."""


def refuse(problem: Problem, *headers: Header, told: Told = NOTHING) -> Response:
    return Response(problem.status, render_problem(problem), (*PROBLEM, *headers), told)


def other_method(allow: str, method: str) -> Response:
    """Answer OPTIONS with the methods of an address, and refuse all others."""
    if method != "OPTIONS":
        problem = Problem("method_not_allowed", f"{shorten(method)} is not answered here; {allow} are.")
        return refuse(problem, (b"allow", allow.encode()))
    preflight = (
        (b"allow", allow.encode()),
        (b"access-control-allow-methods", allow.encode()),
        (b"access-control-allow-headers", b"authorization, content-type, x-api-key"),
        (b"access-control-max-age", b"86400"),
    )
    return Response(204, b"", (*COMMON, *preflight))


def cacheable(scope: Scope, body: bytes) -> Response:
    """Answer with an ETag, and with 304 alone to a client that has this very body."""
    etag = b'"%s"' % hashlib.blake2b(body, digest_size=16).hexdigest().encode()
    caching = ((b"etag", etag), (b"cache-control", b"public, max-age=%d" % CATALOGUE_MAX_AGE_S))
    known = header(scope, b"if-none-match")
    if known == b"*" or etag in [tag.strip().removeprefix(b"W/") for tag in known.split(b",")]:
        return Response(304, b"", (*COMMON, *caching))
    return Response(200, body, (*JSON, *caching))


def header(scope: Scope, name: bytes) -> bytes:
    values = [value for key, value in scope["headers"] if key == name]
    return b", ".join(values)


async def read_json(scope: Scope, receive: Receive) -> bytes:
    """Read a body that says it is JSON. Raises BadRequest, ClientGone."""
    kind = header(scope, b"content-type").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        detail = "Send the body as JSON, with the header Content-Type: application/json."
        raise BadRequest(Problem("unsupported_media_type", detail))
    if header(scope, b"content-encoding") not in (b"", b"identity"):
        raise BadRequest(Problem("unsupported_media_type", "Send the body without a Content-Encoding."))
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read_body(receive)
    except TimeoutError as error:
        detail = f"The body did not arrive within {BODY_TIMEOUT_S:.0f} s."
        raise BadRequest(Problem("request_timeout", detail)) from error


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise BadRequest(Problem("too_large", f"A body may have {MAX_BODY_BYTES} bytes."))
        if not message.get("more_body", False):
            return bytes(body)
