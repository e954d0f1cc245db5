"""The description of the public interface, OpenAPI 3.1: what /openapi.json answers and /docs shows. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from pricing.openapi_parts import (
    ASSET,
    EXAMPLES,
    EXCHANGE,
    MAX_AGE,
    MIN_SOURCES,
    NAME,
    PRICE_EXAMPLE,
    USAGE_EXAMPLE,
    Document,
    ref,
    schemas,
)
from pricing.problems import PROBLEMS, problem_members
from pricing.protocol import MAX_ASSETS, render_json

VERSION = "1.0.0"

KEYS: list[Document] = [{"header": []}, {"bearer": []}]
HOW = "A key from /account. In an address it is refused, because addresses end up in logs."
JUDGED = (
    "unauthorized",
    "revoked",
    "wrong_network",
    "not_in_plan",
    "too_many_attempts",
    "keys_unavailable",
    "usage_unavailable",
)
KEYED = (*JUDGED, "rate_limited", "quota_exceeded")
FRESHNESS = (
    "A price is given out while it is fresh: the home exchange's latest trade, else the freshest of the "
    "other exchanges, else what other nodes know (tier 2), else what an exchange's REST interface answers "
    "now (tier 3). `max_age_ms` and `min_sources` demand more than that, and are refused with 503 when they "
    "cannot be kept. Some exchanges do not tell over REST when a price traded: it is then marked "
    '`"time_is": "answer"`, and satisfies neither demand.'
)


@cache
def rendered() -> bytes:
    return render_json(document())


def document() -> Document:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The Trinity Beast",
            "version": VERSION,
            "summary": "Real-time crypto prices, straight from the exchanges",
            "description": FRESHNESS,
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "Prices"}, {"name": "Keys"}, {"name": "Catalogue"}],
        "paths": {
            "/price": {"get": _price()},
            "/prices": {"get": _prices(), "post": _prices_posted()},
            "/exchanges": {"get": _exchanges()},
            "/usage": {"get": _usage()},
            "/assets": {"get": _assets()},
            "/asset-categories": {"get": _categories()},
        },
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": HOW},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": HOW},
            },
        },
    }


def _price() -> Document:
    return {
        "operationId": "getPrice",
        "tags": ["Prices"],
        "summary": "The latest price of one asset",
        "description": FRESHNESS,
        "security": KEYS,
        "parameters": [
            parameter("asset", ASSET, "The asset, in upper or lower case.", "BTC", required=True),
            *_demands(),
        ],
        "responses": {
            "200": keyed_answer("The price", ref("Price"), PRICE_EXAMPLE),
            **problems(
                *KEYED,
                "bad_request",
                "secret_in_query",
                "unknown_asset",
                "unknown_exchange",
                "stale",
                "too_few_sources",
                "unavailable",
            ),
        },
    }


def _prices() -> Document:
    assets = {"type": "string", "pattern": f"^{NAME}(,{NAME}){{0,{MAX_ASSETS - 1}}}$"}
    text = f"Up to {MAX_ASSETS} assets with commas between; one named twice counts once."
    return {
        "operationId": "getPrices",
        "tags": ["Prices"],
        "summary": "The latest prices of several assets",
        "security": KEYS,
        "parameters": [parameter("assets", assets, text, "BTC,ETH", required=True), *_demands()],
        "responses": {
            "200": _prices_answer(),
            **problems(*KEYED, "bad_request", "secret_in_query"),
        },
    }


def _prices_posted() -> Document:
    return {
        "operationId": "postPrices",
        "tags": ["Prices"],
        "summary": "The latest prices of several assets, asked for in a body",
        "security": KEYS,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": ref("PricesQuestion"), "example": {"assets": ["BTC", "ETH"]}}
            },
        },
        "responses": {
            "200": _prices_answer(),
            **problems(
                *KEYED,
                "bad_request",
                "secret_in_query",
                "request_timeout",
                "too_large",
                "unsupported_media_type",
            ),
        },
    }


def _usage() -> Document:
    return {
        "operationId": "getUsage",
        "tags": ["Keys"],
        "summary": "A key's own limits, and what it has used of them",
        "description": "Takes nothing from them. Numbers of the month are those of all nodes.",
        "security": KEYS,
        "responses": {
            "200": keyed_answer("The limits; null is none", ref("Usage"), USAGE_EXAMPLE),
            **problems(*JUDGED, "bad_request", "secret_in_query"),
        },
    }


def _exchanges() -> Document:
    row = {
        "name": "coinbase",
        "display_name": "Coinbase",
        "quote": "USD",
        "assets": 61,
        "live": True,
        "age_ms": 42,
    }
    return _listing(
        "listExchanges", "The exchanges, and whether each is live", "Exchanges", {"exchanges": [row]}
    )


def _assets() -> Document:
    row = {
        "asset": "BTC",
        "category": "Major Currencies",
        "home": "coinbase",
        "exchanges": ["coinbase", "kraken"],
    }
    operation = _listing("listAssets", "The assets and where each is listed", "Assets", {"assets": [row]})
    category = {"type": "string", "minLength": 1, "maxLength": 64}
    operation["parameters"] = [
        parameter("exchange", EXCHANGE, "Only what this exchange lists.", "kraken"),
        parameter("category", category, "Only this category.", "Major Currencies"),
    ]
    operation["responses"].update(
        problems("bad_request", "secret_in_query", "unknown_exchange", "unknown_category")
    )
    return operation


def _categories() -> Document:
    example = {"categories": [{"name": "DeFi", "assets": 31}]}
    return _listing("listCategories", "The categories and how many assets each has", "Categories", example)


def _listing(operation: str, summary: str, schema: str, example: Document) -> Document:
    answer = _answer(summary, ref(schema), example)
    answer["headers"] = {
        "ETag": {"schema": {"type": "string"}},
        "Cache-Control": {"schema": {"type": "string"}, "example": "public, max-age=2"},
    }
    return {
        "operationId": operation,
        "tags": ["Catalogue"],
        "summary": summary,
        "security": [],
        "responses": {
            "200": answer,
            "304": {"description": "What If-None-Match named is still true"},
            **problems("bad_request", "secret_in_query"),
        },
    }


def _demands() -> list[Document]:
    return [
        parameter("exchange", EXCHANGE, "Ask this exchange and no other.", "kraken"),
        parameter(
            "max_age_ms",
            MAX_AGE,
            "The oldest trade that will do. It makes the service stricter, never more lenient.",
            5000,
        ),
        parameter("min_sources", MIN_SOURCES, "How many exchanges must have a fresh price of the asset.", 2),
    ]


def parameter(name: str, schema: Document, text: str, example: object, *, required: bool = False) -> Document:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": text,
        "schema": schema,
        "example": example,
    }


def _answer(text: str, schema: Document, example: Document) -> Document:
    return {
        "description": text,
        "content": {"application/json": {"schema": schema, "example": example}},
    }


def keyed_answer(text: str, schema: Document, example: Document) -> Document:
    policy, state = '"rate";q=20;w=2, "month";q=50000;w=2592000', '"rate";r=19;t=1, "month";r=48766;t=950400'
    fields = {"RateLimit-Policy": policy, "RateLimit": state}
    headers = {name: {"schema": {"type": "string"}, "example": value} for name, value in fields.items()}
    return {**_answer(text, schema, example), "headers": headers}


def _prices_answer() -> Document:
    error = {"asset": "NOPE", "error": problem_members(EXAMPLES["unknown_asset"])}
    return keyed_answer(
        "For each asset its price or its own error, in the order asked",
        ref("Prices"),
        {"prices": [PRICE_EXAMPLE, error]},
    )


def problems(*codes: str) -> Document:
    """Describe refusals by status with an example per code; those of every address are added."""
    by_status: dict[str, list[str]] = {}
    for code in (*codes, "method_not_allowed", "internal_error"):
        by_status.setdefault(str(PROBLEMS[code][0]), []).append(code)
    return {status: _problem(by_status[status]) for status in sorted(by_status)}


def _problem(codes: Iterable[str]) -> Document:
    named = list(codes)
    response: Document = {
        "description": "; ".join(f"`{code}`: {PROBLEMS[code][1].lower()}" for code in named),
        "content": {
            "application/problem+json": {
                "schema": ref("Problem"),
                "examples": {code: {"value": problem_members(EXAMPLES[code])} for code in named},
            }
        },
    }
    if "method_not_allowed" in named:
        response["headers"] = {"Allow": {"schema": {"type": "string"}, "example": "GET, HEAD, OPTIONS"}}
    return response
