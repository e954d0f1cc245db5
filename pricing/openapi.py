"""The description of the public interface, OpenAPI 3.1: what /openapi.json answers and /docs shows. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from pricing.problems import PROBLEMS, Problem, problem_members
from pricing.protocol import (
    MAX_AGE_LIMIT_MS,
    MAX_ASSETS,
    MAX_BODY_BYTES,
    MAX_SOURCES,
    render_json,
)

Document = dict[str, Any]  # Any: a JSON document

VERSION = "1.0.0"

NAME = "[A-Za-z0-9]{1,32}"
ASSET: Document = {"type": "string", "pattern": f"^{NAME}$"}
EXCHANGE: Document = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$"}
MAX_AGE: Document = {"type": "integer", "minimum": 0, "maximum": MAX_AGE_LIMIT_MS}
MIN_SOURCES: Document = {"type": "integer", "minimum": 1, "maximum": MAX_SOURCES}
AGE: Document = {"type": ["integer", "null"], "minimum": 0, "description": "Milliseconds; null: never."}

PRICE_EXAMPLE: Document = {
    "asset": "BTC",
    "price": "67123.45",
    "quote": "USD",
    "source": "coinbase-ws",
    "exchange": "coinbase",
    "timestamp": "2026-11-22T13:00:00.123456Z",
    "received_at": "2026-11-22T13:00:00.161002Z",
    "age_ms": 42,
    "tier": 1,
    "cached": True,
}
BTC: Document = {"asset": "BTC"}
EXAMPLES = {
    "bad_request": Problem("bad_request", "asset is missing.", {"parameter": "asset"}),
    "secret_in_query": Problem("secret_in_query", "Send the key in a header.", {"parameter": "api_key"}),
    "unknown_asset": Problem("unknown_asset", "NOPE is not listed; see /assets.", {"asset": "NOPE"}),
    "unknown_exchange": Problem(
        "unknown_exchange", "BTC is not listed on nope; it is on coinbase.", {**BTC, "exchange": "nope"}
    ),
    "unknown_category": Problem("unknown_category", "'Nope' is not a category; see /asset-categories."),
    "method_not_allowed": Problem("method_not_allowed", "DELETE is not answered here; GET is."),
    "request_timeout": Problem("request_timeout", "The body did not arrive within 5 s."),
    "too_large": Problem("too_large", f"A body may have {MAX_BODY_BYTES} bytes."),
    "unsupported_media_type": Problem("unsupported_media_type", "Send the body as JSON."),
    "stale": Problem(
        "stale",
        "The newest known price of BTC is 1200 ms old; at most 500 ms were asked for.",
        {**BTC, "age_ms": 1200, "max_age_ms": 500},
    ),
    "too_few_sources": Problem(
        "too_few_sources",
        "2 exchanges have a fresh price of BTC, not 5.",
        {**BTC, "sources": 2, "min_sources": 5},
    ),
    "unavailable": Problem(
        "unavailable",
        "The newest known price of BTC is 61000 ms old, too old to be given out.",
        {**BTC, "age_ms": 61000},
    ),
    "internal_error": Problem("internal_error", "The error has been logged; please try again."),
}

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
        "tags": [{"name": "Prices"}, {"name": "Catalogue"}],
        "paths": {
            "/price": {"get": _price()},
            "/prices": {"get": _prices(), "post": _prices_posted()},
            "/exchanges": {"get": _exchanges()},
            "/assets": {"get": _assets()},
            "/asset-categories": {"get": _categories()},
        },
        "components": {"schemas": _schemas()},
    }


def _price() -> Document:
    return {
        "operationId": "getPrice",
        "tags": ["Prices"],
        "summary": "The latest price of one asset",
        "description": FRESHNESS,
        "security": [],
        "parameters": [
            _parameter("asset", ASSET, "The asset, in upper or lower case.", "BTC", required=True),
            *_demands(),
        ],
        "responses": {
            "200": _answer("The price", _ref("Price"), PRICE_EXAMPLE),
            **_problems(
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
        "security": [],
        "parameters": [_parameter("assets", assets, text, "BTC,ETH", required=True), *_demands()],
        "responses": {
            "200": _prices_answer(),
            **_problems("bad_request", "secret_in_query"),
        },
    }


def _prices_posted() -> Document:
    return {
        "operationId": "postPrices",
        "tags": ["Prices"],
        "summary": "The latest prices of several assets, asked for in a body",
        "security": [],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _ref("PricesQuestion"), "example": {"assets": ["BTC", "ETH"]}}
            },
        },
        "responses": {
            "200": _prices_answer(),
            **_problems(
                "bad_request", "secret_in_query", "request_timeout", "too_large", "unsupported_media_type"
            ),
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
        _parameter("exchange", EXCHANGE, "Only what this exchange lists.", "kraken"),
        _parameter("category", category, "Only this category.", "Major Currencies"),
    ]
    operation["responses"].update(
        _problems("bad_request", "secret_in_query", "unknown_exchange", "unknown_category")
    )
    return operation


def _categories() -> Document:
    example = {"categories": [{"name": "DeFi", "assets": 31}]}
    return _listing("listCategories", "The categories and how many assets each has", "Categories", example)


def _listing(operation: str, summary: str, schema: str, example: Document) -> Document:
    answer = _answer(summary, _ref(schema), example)
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
            **_problems("bad_request", "secret_in_query"),
        },
    }


def _demands() -> list[Document]:
    return [
        _parameter("exchange", EXCHANGE, "Ask this exchange and no other.", "kraken"),
        _parameter(
            "max_age_ms",
            MAX_AGE,
            "The oldest trade that will do. It makes the service stricter, never more lenient.",
            5000,
        ),
        _parameter("min_sources", MIN_SOURCES, "How many exchanges must have a fresh price of the asset.", 2),
    ]


def _parameter(
    name: str, schema: Document, text: str, example: object, *, required: bool = False
) -> Document:
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


def _prices_answer() -> Document:
    error = {"asset": "NOPE", "error": problem_members(EXAMPLES["unknown_asset"])}
    return _answer(
        "For each asset its price or its own error, in the order asked",
        _ref("Prices"),
        {"prices": [PRICE_EXAMPLE, error]},
    )


def _problems(*codes: str) -> Document:
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
                "schema": _ref("Problem"),
                "examples": {code: {"value": problem_members(EXAMPLES[code])} for code in named},
            }
        },
    }
    if "method_not_allowed" in named:
        response["headers"] = {"Allow": {"schema": {"type": "string"}, "example": "GET, HEAD, OPTIONS"}}
    return response


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> Document:
    text, count = {"type": "string"}, {"type": "integer", "minimum": 0}
    return {
        "Price": _price_schema(),
        "PriceError": _object({"asset": text, "error": _ref("Problem")}),
        "Prices": _list_of("prices", {"anyOf": [_ref("Price"), _ref("PriceError")]}),
        "PricesQuestion": {
            "type": "object",
            "properties": {
                "assets": {"type": "array", "items": ASSET, "minItems": 1, "maxItems": MAX_ASSETS},
                "exchange": _or_null(EXCHANGE),
                "max_age_ms": _or_null(MAX_AGE),
                "min_sources": _or_null(MIN_SOURCES),
            },
            "required": ["assets"],
            "additionalProperties": False,
        },
        "Exchanges": _list_of(
            "exchanges",
            _object(
                {
                    "name": text,
                    "display_name": text,
                    "quote": text,
                    "assets": count,
                    "live": {"type": "boolean", "description": "Its newest price is fresh."},
                    "age_ms": AGE,
                }
            ),
        ),
        "Assets": _list_of(
            "assets",
            _object(
                {
                    "asset": text,
                    "category": text,
                    "home": {
                        "type": ["string", "null"],
                        "description": "The exchange that answers by default.",
                    },
                    "exchanges": {"type": "array", "items": text},
                }
            ),
        ),
        "Categories": _list_of("categories", _object({"name": text, "assets": count})),
        "Problem": _problem_schema(),
    }


def _price_schema() -> Document:
    text = {"type": "string"}
    moment = {"type": "string", "format": "date-time"}
    schema = _object(
        {
            "asset": text,
            "price": {
                "type": "string",
                "pattern": r"^[0-9]+(\.[0-9]+)?$",
                "description": "Text, so that no digit is lost.",
            },
            "quote": {"type": "string", "description": "The currency of the price: USD or USDT."},
            "source": {
                "type": "string",
                "description": "`<exchange>-ws` or `<exchange>-rest`; a simulated one ends in `-sim`.",
            },
            "exchange": text,
            "timestamp": {**moment, "description": "When it traded; with `time_is`, `received_at`."},
            "received_at": moment,
            "age_ms": {"type": "integer", "minimum": 0, "description": "Since `timestamp`."},
            "tier": {"type": "integer", "enum": [1, 2, 3]},
            "cached": {"type": "boolean", "description": "False when this very request fetched the price."},
        }
    )
    schema["properties"]["time_is"] = {
        "type": "string",
        "enum": ["answer"],
        "description": "Only where the exchange does not tell when it traded: nobody knows how old it is.",
    }
    return schema


def _problem_schema() -> Document:
    codes = {"type": "string", "enum": sorted(PROBLEMS), "description": "The stable word for programs."}
    schema = _object(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": codes,
        }
    )
    schema["description"] = "RFC 9457, with the figures that the case has (`age_ms`, `sources` and others)."
    return schema


def _or_null(schema: Document) -> Document:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(properties: Document) -> Document:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list_of(name: str, item: Document) -> Document:
    return _object({name: {"type": "array", "items": item}})
