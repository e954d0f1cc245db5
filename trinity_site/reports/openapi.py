"""The description of the reports, OpenAPI 3.1: what /openapi.json answers on their port. Pure."""

from __future__ import annotations

from functools import cache

from pricing.openapi import HOW, JUDGED, KEYS, VERSION, keyed_answer, parameter, problems
from pricing.openapi_parts import ASSET, EXCHANGE, Document, ref, schemas
from pricing.protocol import render_json
from telemetry._spool import PROTOCOLS
from telemetry.renderers import FORMATS
from telemetry.reports import DETAILS, FIGURES, GROUPS, MOST_GROUPS, Column, Kind
from trinity_site.reports.questions import DEFAULT_LIMIT, MOST_DAYS, MOST_ROWS

SUMMARIES = {
    Kind.USAGE: "Every record of the account's answers, in the order of time",
    Kind.SUMMARY: "Figures of the account's answers, by hour, asset, source and more",
    Kind.REPORT_USAGE: "Every answer to the account's questions for reports, in the order of time",
    Kind.REPORT_SUMMARY: "Figures of the answers to the account's questions for reports",
}
ABOUT = (
    "A report is of the whole account, all of its keys; `key_id` narrows. It costs one of the account's "
    "reports of the month when its first byte is sent; pages behind a cursor belong to that of the first. "
    "What is refused, or fails before that, costs nothing. The two about reports tell every answer, whether "
    "it cost one or not."
)
MEANINGS = {
    "at": "When it was answered.",
    "assets": "How many were asked for; `asset` is the first one.",
    "tier": "1 board, 2 another node, 3 the exchange's REST interface; null without a price.",
    "latency_us": "From reading the question to the answer, in microseconds.",
    "price": "As it was served: text, so that no digit is lost.",
    "month": "In which the answer counts against the plan; null: in none.",
    "answers": "How many records.",
    "counted": "How many of them count against the plan.",
    "ok": "Status below 300.",
    "refused": "Status 300 to 499.",
    "failed": "Status 500 and above.",
    "day": "By UTC.",
    "hour": "Its beginning, by UTC.",
}
FIGURES_EXAMPLE = {
    "answers": 1204,
    "counted": 1190,
    "ok": 1180,
    "refused": 20,
    "failed": 4,
    "assets": 1460,
    "latency_mean_us": 38,
    "latency_max_us": 2140,
}
RECORD_EXAMPLE = {
    "at": "2026-11-22T13:00:00.161044Z",
    "key_id": 7,
    "asset": "BTC",
    "exchange": "coinbase",
    "source": "coinbase-ws",
    "protocol": "http",
    "endpoint": "price",
    "status": 200,
    "assets": 1,
    "tier": 1,
    "latency_us": 38,
    "price": "67123.45",
    "quote": "USD",
    "month": "2026-11",
}
PERIOD = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-22T14:00:00Z"}
MOMENT: Document = {"type": "string", "format": "date-time"}
LIMITS = ('"reports";q=10;w=2592000', '"reports";r=9;t=730800')


@cache
def rendered() -> bytes:
    return render_json(document())


def document() -> Document:
    everything = schemas()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The Trinity Beast: reports",
            "version": VERSION,
            "summary": "What an account has asked for",
            "description": ABOUT,
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "Reports"}],
        "paths": {f"/reports/{kind.value}": {"get": _operation(kind)} for kind in Kind},
        "components": {
            "schemas": {
                "Records": _page(_row(DETAILS)),
                "Summary": _page(_group(), totals=_row(FIGURES)),
                "Problem": everything["Problem"],
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": HOW},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": HOW},
            },
        },
    }


def _operation(kind: Kind) -> Document:
    told = ref("Summary" if kind.is_summary else "Records")
    answer = keyed_answer("The report, or its first page", told, _example(kind))
    answer["headers"] = {
        **{
            name: {"schema": {"type": "string"}, "example": field}
            for name, field in zip(("RateLimit-Policy", "RateLimit"), LIMITS, strict=True)
        },
        "Link": {"schema": {"type": "string"}, "description": "The next page of JSON, if there is one."},
    }
    for row in FORMATS.values():
        answer["content"].setdefault(row.content_type.partition(";")[0], {"schema": {"type": "string"}})
    return {
        "operationId": "get" + "".join(word.capitalize() for word in kind.value.split("-")) + "Report",
        "tags": ["Reports"],
        "summary": SUMMARIES[kind],
        "description": ABOUT,
        "security": KEYS,
        "parameters": _parameters(kind),
        "responses": {
            "200": answer,
            **problems(
                *JUDGED,
                "bad_request",
                "secret_in_query",
                "too_many_rows",
                "not_acceptable",
                "report_quota_exceeded",
                "busy",
                "reports_unavailable",
            ),
        },
    }


def _parameters(kind: Kind) -> list[Document]:
    days, count = MOST_DAYS[kind.is_summary], {"type": "integer", "minimum": 1}
    whole = " Rounded to whole hours, outwards." if kind.is_summary else ""
    rows = [
        parameter("format", {"type": "string", "enum": list(FORMATS)}, "Or what `Accept` names.", "csv"),
        parameter(
            "from", MOMENT, f"A day or a time; else the month of `to` begins it.{whole}", PERIOD["from"]
        ),
        parameter(
            "to", MOMENT, f"Its end, which is not in it; else now. At most {days} days.{whole}", PERIOD["to"]
        ),
        parameter("asset", ASSET, "Only this asset.", "BTC"),
        parameter("exchange", EXCHANGE, "Only answers from this exchange.", "kraken"),
        parameter("source", {"type": "string"}, "Only this source.", "coinbase-ws"),
        parameter(
            "status", {"type": "integer", "minimum": 100, "maximum": 599}, "Only this status of HTTP.", 200
        ),
        parameter("protocol", {"type": "string", "enum": list(PROTOCOLS)}, "Only this protocol.", "udp"),
        parameter(
            "endpoint",
            {"type": "string", "enum": list(kind.endpoints)},
            "Only this.",
            next(iter(kind.endpoints)),
        ),
        parameter("key_id", count, "Only this key, see /usage.", 7),
        parameter(
            "limit",
            count,
            f"At most so many rows; of one page of JSON {MOST_ROWS:,}, and {DEFAULT_LIMIT:,} unless told.",
            100,
        ),
        parameter(
            "cursor",
            {"type": "string"},
            "The `next` of a page of JSON, good for an hour. Beside it only `limit` may stand.",
            "kR5s…",
        ),
    ]
    if kind.is_summary:
        text = f"Up to {MOST_GROUPS}, with commas between: {', '.join(GROUPS)}."
        rows.append(parameter("group_by", {"type": "string"}, text, "day,asset"))
    return rows


def _example(kind: Kind) -> Document:
    page: Document = {
        "report": kind.value,
        **PERIOD,
        "filters": {},
        "group_by": ["day"] if kind.is_summary else [],
    }
    if kind.is_summary:
        rows = [{"day": "2026-11-22", **FIGURES_EXAMPLE}]
        return {**page, "totals": FIGURES_EXAMPLE, "rows": rows, "next": None}
    record: Document = RECORD_EXAMPLE
    if kind.is_of_reports:
        nothing = dict.fromkeys(("asset", "exchange", "source", "tier", "price", "quote", "month"))
        record = {**record, **nothing, "endpoint": "reports/usage", "assets": 0}
    return {**page, "rows": [record], "next": "kR5s…"}


def _page(row: Document, *, totals: Document | None = None) -> Document:
    properties = {
        "report": {"type": "string", "enum": [kind.value for kind in Kind]},
        "from": MOMENT,
        "to": MOMENT,
        "filters": {"type": "object", "description": "What was chosen."},
        "group_by": {"type": "array", "items": {"type": "string"}},
        **({"totals": totals} if totals else {}),
        "rows": {"type": "array", "items": row},
        "next": {
            "type": ["string", "null"],
            "description": "The cursor of the next page; null: this is the last.",
        },
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _row(columns: tuple[Column, ...]) -> Document:
    properties = {column.name: _value(column) for column in columns}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _group() -> Document:
    """Describe a row of figures; of the groups it has those that were asked for."""
    figures = _row(FIGURES)
    return {
        **figures,
        "properties": {**{name: _value(one) for name, one in GROUPS.items()}, **figures["properties"]},
    }


def _value(column: Column) -> Document:
    kinds: dict[str, Document] = {
        "moment": MOMENT,
        "hour": MOMENT,
        "day": {"type": "string", "format": "date"},
        "number": {"type": ["integer", "null"]},
        "text": {"type": ["string", "null"]},
        "word": {"type": ["string", "null"]},
    }
    schema = kinds[column.kind]
    return {**schema, "description": MEANINGS[column.name]} if column.name in MEANINGS else schema
