"""The UDP interface as the page at /docs shows it; docs/udp.md has it at length. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from trinity_site.reference import Field
from udp_engine import wire


class UdpReference(NamedTuple):
    host: str
    port: int | None
    """None where prices are not answered."""
    fields: list[Field]
    answer: str
    members: list[Field]
    codes: Mapping[str, str]
    summaries_port: int | None
    """None where reports are not answered."""
    summary: str
    summary_members: list[Field]


def make_udp_reference(host: str, port: int | None, summaries_port: int | None) -> UdpReference:
    """Describe the interface of a node that is called *host*."""
    codes = SUMMARY_CODES if port is None else wire.CODES
    return UdpReference(host, port, FIELDS, ANSWER, MEMBERS, codes, summaries_port, SUMMARY, SUMMARY_MEMBERS)


ANSWER = (
    '{"id":"7","asset":"BTC","price":"67123.450","quote":"USD","source":"coinbase-ws","ts":1763816400123,'
    '"age_ms":42,"tier":1}'
)

FIELDS = [
    Field("asset", "text", "Which price. Either this or `assets`.", required=False),
    Field("assets", "list of text", "Up to 30 at once, for one request of the plan.", required=False),
    Field("api_key", "text", "Your key.", required=True),
    Field("id", "text", "Comes back with the answer: 1 to 64 printable ASCII characters.", required=False),
    Field("exchange", "text", "Ask this exchange alone.", required=False),
    Field(
        "max_age_ms",
        "whole number, 0 to 86,400,000",
        "Refuse a price whose trade is older, with `stale`.",
        required=False,
    ),
]

MEMBERS = [
    Field("id", "text", "Yours.", required=False),
    Field("asset", "text", "Which price it is.", required=True),
    Field("price", "text", "The exchange's own digits.", required=True),
    Field("quote", "text", "What it is in.", required=True),
    Field("source", "text", "The exchange, and how its price came: `okx-ws`, `okx-rest`.", required=True),
    Field("ts", "whole number", "When it traded, in milliseconds since the epoch.", required=True),
    Field("age_ms", "whole number", "How old it is. Beside `stale`: the newest one known.", required=True),
    Field("tier", "whole number", "1 board, 2 another node, 3 the exchange's REST interface.", required=True),
    Field("time_is", "text", "`answer`: the exchange does not tell when it traded.", required=False),
    Field("prices", "list", "For `assets`: each a price, or its `error`.", required=False),
    Field("omitted", "list of text", "Assets that had no room in 1,200 bytes: ask again.", required=False),
    Field("error", "text", "Instead of a price: why there is none.", required=False),
    Field("retry_ms", "whole number", "Beside `rate_limited`: in so long one more is taken.", required=False),
]

SUMMARY = (
    '{"id":"7","month":"2026-11","key":4,"used":123,"limit":50000,"answers":130,'
    '"by_status":{"200":120,"404":10},"by_day":{"01":30,"23":100},"by_asset":{"BTC":70,"ETH":50},'
    '"other_assets":10,"reports_used":2,"reports_limit":10}'
)

SUMMARY_MEMBERS = [
    Field("id", "text", "Yours.", required=False),
    Field("month", "text", "Which month it is, by UTC.", required=True),
    Field("key", "whole number", "Your key's, as `GET /usage` has it.", required=True),
    Field("used", "whole number", "Of the month's requests, by all keys that share them.", required=True),
    Field("limit", "whole number", "How many there may be; `null` is no limit.", required=True),
    Field("answers", "whole number", "Given to this key, refusals too.", required=True),
    Field("by_status", "object", "The answers by HTTP's number.", required=True),
    Field("by_day", "object", "The answers by day of the month.", required=True),
    Field("by_asset", "object", "The answers by asset: as many of the most wanted as fit.", required=True),
    Field("other_assets", "whole number", "Answers about the others, or about none.", required=True),
    Field("reports_used", "whole number", "Reports of the account this month.", required=True),
    Field("reports_limit", "whole number", "How many there may be; `null` is no limit.", required=True),
]

SUMMARY_CODES = {
    "bad_request": wire.CODES["bad_request"],
    "unauthorized": "The key is missing, not known, not for this network, or not for reports. Check it.",
    "revoked": wire.CODES["revoked"],
    "unavailable": "The database does not answer, or keys or usage cannot be seen to. Ask again in a second.",
}
"""What is refused where summaries alone are answered."""
