"""What each counter and each reason for a drop means, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MEANINGS: Final[Mapping[str, str]] = {
    "tcp_requests": "Requests over HTTP for prices and what belongs to them",
    "udp_requests": "Datagrams whose key was judged",
    "lrs_requests": "Requests for usage reports, summaries over UDP among them",
    "syncmap_hits": "Prices answered from the board (tier 1)",
    "elasticache_hits": "Prices answered from Valkey or Redis (tier 2)",
    "cache_misses": "Prices that neither of them had: asked for over REST (tier 3), or refused",
    "udp_packets_received": "Datagrams that reached the socket, those the kernel dropped included",
    "udp_packets_dropped": "Datagrams that were not answered, for whatever reason",
    "udp_packets_sent": "Replies that the kernel took",
    "bg_work_submitted": "Questions over UDP handed to the lower tiers, or to the database for a summary",
    "bg_work_dropped": "Of these, given up: too many waited, or the worker had to leave",
    "bg_work_completed": "Of these, answered",
    "batch_rows_queued": "Usage records written to the spool, on their way to the database",
    "db_open_conns": "Database connections open",
    "db_in_use_conns": "Database connections in use",
    "db_wait_count": "Waits for a database connection",
    "auth_failures": "Requests refused for their key: unknown, revoked, of another network or scope",
    "rate_limited": "Requests refused for coming faster than the plan allows",
    "quota_exceeded": "Requests refused because the month is used up",
    "rest_fallbacks": "Requests to exchanges over REST",
    "feed_ticks": "Trades that feeds wrote to the board",
    "feed_reconnects": "Connections to exchanges dialled again",
    "stale_refusals": "Requests refused because no price was as fresh as asked",
    "governor_delays": "Answers that the governor delayed",
}

GAUGES: Final = frozenset({"db_open_conns", "db_in_use_conns"})
"""Those that go up and down: they have no rate, and a reset leaves them."""

REASON_MEANINGS: Final[Mapping[str, str]] = {
    "kernel": "dropped by the kernel: the socket's receive buffer was full",
    "bad_source": "from port 0, a port of a reflector, or this socket's own address",
    "empty": "nothing in it",
    "oversized": "longer than 1,200 bytes",
    "not_utf8": "not UTF-8",
    "malformed": "no JSON object",
    "truncated": "ends inside the JSON",
    "too_deep": "nested deeper than four levels",
    "bad_escape": "a string with an escape that JSON does not know",
    "duplicate_field": "names a field twice",
    "reply_shaped": "looks like a reply: to answer it could go on for ever",
    "too_short": "shorter than the refusal it would get",
    "limited": "its network has had its refusals for now",
    "shed": "too many wait for the lower tiers",
    "unsent": "the kernel did not take the reply",
    "stopped": "still waiting when the worker had to leave",
}
