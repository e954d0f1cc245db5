"""The UDP interface as the page at /docs shows it; docs/udp.md has it at length. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from trinity_site.reference import Field
from udp_engine import wire


class UdpReference(NamedTuple):
    host: str
    port: int
    fields: list[Field]
    answer: str
    members: list[Field]
    codes: Mapping[str, str]


def make_udp_reference(host: str, port: int) -> UdpReference:
    """Describe the interface of a node that is called *host*."""
    return UdpReference(host, port, FIELDS, ANSWER, MEMBERS, wire.CODES)


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
