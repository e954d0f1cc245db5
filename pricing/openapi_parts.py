"""What the description of the interface is put together from: schemas, and an example of each. Pure."""

from __future__ import annotations

from typing import Any

from pricing.problems import PROBLEMS, Problem
from pricing.protocol import MAX_AGE_LIMIT_MS, MAX_ASSETS, MAX_BODY_BYTES, MAX_SOURCES

Document = dict[str, Any]  # Any: a JSON document

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
USAGE_EXAMPLE: Document = {
    "key_id": 7,
    "partner": False,
    "rate": {"burst": 20, "per_second": 10.0, "remaining": 20, "reset_ms": 0},
    "month": {
        "name": "2026-11",
        "used": 1234,
        "limit": 50000,
        "remaining": 48766,
        "resets_at": "2026-12-01T00:00:00.000000Z",
    },
}
BTC: Document = {"asset": "BTC"}
EXAMPLES = {
    "bad_request": Problem("bad_request", "asset is missing.", {"parameter": "asset"}),
    "secret_in_query": Problem("secret_in_query", "Send the key in a header.", {"parameter": "api_key"}),
    "unauthorized": Problem("unauthorized", "This key is not known here. Was it copied whole?"),
    "revoked": Problem("revoked", "This key has been revoked or has expired. Make another one at /account."),
    "wrong_network": Problem("wrong_network", "This key must not be used from 203.0.113.9."),
    "not_in_plan": Problem("not_in_plan", "This key is not for prices."),
    "rate_limited": Problem(
        "rate_limited", "At most 20 requests at once, and 10 a second.", {"retry_after_ms": 58}
    ),
    "quota_exceeded": Problem(
        "quota_exceeded",
        "The 1000 requests of this month have been made.",
        {"limit": 1000, "resets_at": "2026-12-01T00:00:00.000000Z"},
    ),
    "too_many_attempts": Problem(
        "too_many_attempts", "Too many unknown keys came from your address. Try again in 3 s."
    ),
    "keys_unavailable": Problem(
        "keys_unavailable", "The keys could not be read yet; please try again in a moment."
    ),
    "usage_unavailable": Problem(
        "usage_unavailable",
        "Usage cannot be recorded now, so nothing is answered; please try again in a moment.",
    ),
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
    "too_many_rows": Problem(
        "too_many_rows", "As pdf a report may have 5000 rows; as CSV any number.", {"most_rows": 5000}
    ),
    "not_acceptable": Problem("not_acceptable", "A report can be application/json, text/csv."),
    "report_quota_exceeded": Problem(
        "report_quota_exceeded",
        "The 10 reports of this month have been made.",
        {"limit": 10, "resets_at": "2026-12-01T00:00:00.000000Z"},
    ),
    "busy": Problem("busy", "As many reports are being made as can be at once, here or for this account."),
    "reports_unavailable": Problem(
        "reports_unavailable",
        "The database does not answer in time, or there is no room for a file; "
        "nothing was taken from the month.",
    ),
    "internal_error": Problem("internal_error", "The error has been logged; please try again."),
}


def ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def schemas() -> Document:
    text, count = {"type": "string"}, {"type": "integer", "minimum": 0}
    return {
        "Price": _price_schema(),
        "PriceError": _object({"asset": text, "error": ref("Problem")}),
        "Prices": _list_of("prices", {"anyOf": [ref("Price"), ref("PriceError")]}),
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
        "Usage": _usage_schema(),
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


def _usage_schema() -> Document:
    count = {"type": "integer", "minimum": 0}
    rate = _object(
        {
            "burst": {**count, "description": "Requests at once."},
            "per_second": {"type": "number"},
            "remaining": count,
            "reset_ms": {**count, "description": "Until there is one more; 0 when none is missing."},
        }
    )
    month = _object(
        {
            "name": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"},
            "used": count,
            "limit": _or_null(count),
            "remaining": _or_null(count),
            "resets_at": {"type": "string", "format": "date-time"},
        }
    )
    parts = {"rate": _or_null(rate), "month": month}
    return _object({"key_id": _or_null(count), "partner": {"type": "boolean"}, **parts})


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
