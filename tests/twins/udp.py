"""The UDP engine's answering step in plain Python: its specification. No sockets, clocks as arguments."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from billing import ratelimit
from billing.admission import REFUSALS, Code
from billing.ratelimit import Rate
from tests.twins.datagram import Drop, Query, Refusal, parse
from tests.twins.spool import UsageLog

REFLECTORS = frozenset((7, 13, 17, 19, 53, 111, 123, 137, 161, 389, 520, 1900, 5353, 11211))
SCOPE_PRICES, SCOPE_REPORTS = 2, 4
REPORT_SUMMARY = 4
LIMITS = (Code.ADMITTED, Code.RATE_LIMITED, Code.QUOTA_EXCEEDED)
MS = 1_000_000
MAPPED = bytes(10) + b"\xff\xff"

_unescaped = re.compile(r"[ !#-\[\]-~]*").fullmatch


class Verdict(Protocol):
    @property
    def code(self) -> int: ...
    @property
    def retry_after_ns(self) -> int: ...
    @property
    def key_id(self) -> int: ...
    @property
    def account_id(self) -> int: ...
    @property
    def month(self) -> int: ...


class Gate(Protocol):
    """As tests.twins.gate and billing._gate have it."""

    def month(self, mono_ns: int) -> int: ...
    def admit(
        self,
        key: bytes,
        mono_ns: int,
        wall_s: int,
        scope: int = ...,
        address: bytes | None = ...,
        *,
        take: bool = ...,
    ) -> Verdict: ...


class Price(Protocol):
    """As tests.twins.board and pricing._board have it."""

    @property
    def exchange(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def quote(self) -> str: ...
    @property
    def price(self) -> str: ...
    @property
    def traded_ns(self) -> int: ...
    @property
    def received_ns(self) -> int: ...
    def age_ns(self, mono_ns: int) -> int: ...


class Board(Protocol):
    def get(self, asset: str, exchange: str) -> Price | None: ...
    def best(self, asset: str, mono_ns: int, ttl_ns: int) -> Price | None: ...


class Question(NamedTuple):
    """What the board could not answer, or a summary that nothing is known of here; admitted already."""

    asset: str | None
    assets: tuple[str, ...]
    exchange: str | None
    max_age_ms: int | None
    id: str | None
    request_bytes: int


class Limiter:
    """Refusals to senders without a good key: so many per network, in a table of fixed size.

    *place* says where in the table a network of 16 bytes is; networks of one place share what it has.
    Summaries of accounts are limited likewise, in a table of their own.
    """

    def __init__(self, rate: Rate, places: int, place: Callable[[bytes], int]) -> None:
        self.rate = rate
        self.tats = [0] * places
        self.place = place

    def lets_through(self, address: bytes, mono_ns: int) -> bool:
        return self.has_turn(network_of(address), mono_ns)

    def has_turn(self, who: bytes, mono_ns: int) -> bool:
        place = self.place(who)
        turn = ratelimit.take(self.rate, self.tats[place], mono_ns)
        self.tats[place] = turn.tat_ns
        return turn.admitted


def network_of(address: bytes) -> bytes:
    """Give the /24 of IPv4, the /64 of IPv6."""
    return address[:15] + bytes(1) if address.startswith(MAPPED) else address[:8] + bytes(8)


class EngineTwin:
    """Says what becomes of a datagram; `counts` has the counters' names, `drops` the reasons.

    With *turns*, the summaries that an account may have, summaries are asked for, and otherwise prices.
    """

    def __init__(
        self,
        board: Board,
        gate: Gate,
        limiter: Limiter,
        *,
        ttl_ms: int,
        listed: Mapping[str, Collection[str]],
        own: tuple[bytes, int] | None = None,
        turns: Limiter | None = None,
    ) -> None:
        self.board = board
        self.gate = gate
        self.limiter = limiter
        self.ttl_ms = ttl_ms
        self.listed = listed
        self.own = own
        self.turns = turns
        self.counts: Counter[str] = Counter()
        self.drops: Counter[str] = Counter()
        self.records: list[UsageLog] = []  # without times
        self.owed: list[tuple[int, int, int]] = []  # key, account, month

    def take_records(self) -> list[UsageLog]:
        taken, self.records = self.records, []
        return taken

    def take_owed(self) -> list[tuple[int, int, int]]:
        taken, self.owed = self.owed, []
        return taken

    def respond(
        self, datagram: bytes, address: bytes, port: int, mono_ns: int, wall_s: int
    ) -> bytes | Question | None:
        self.counts["udp_packets_received"] += 1
        outcome = self.outcome(datagram, address, port, mono_ns, wall_s)
        if isinstance(outcome, Drop):
            self.drops[outcome.reason] += 1
            self.counts["udp_packets_dropped"] += 1
            return None
        self.counts["bg_work_submitted" if isinstance(outcome, Question) else "udp_packets_sent"] += 1
        return outcome

    def outcome(
        self, datagram: bytes, address: bytes, port: int, mono_ns: int, wall_s: int
    ) -> bytes | Question | Drop:
        if port == 0 or port in REFLECTORS or (address, port) == self.own:
            return Drop("bad_source")
        found: Drop | Refusal | Query = parse(datagram)
        if isinstance(found, Query):
            is_for_summary = found.asset is None and not found.assets
            if is_for_summary is (self.turns is not None):
                return self.judged(found, datagram, address, mono_ns, wall_s)
            found = Refusal("bad_request", found.id)
        return self.refused(found, datagram, address, mono_ns) if isinstance(found, Refusal) else found

    def refused(self, refusal: Refusal, datagram: bytes, address: bytes, mono_ns: int) -> bytes | Drop:
        reply = render_refusal(refusal)
        if len(reply) > len(datagram):
            return Drop("too_short")
        return reply if self.limiter.lets_through(address, mono_ns) else Drop("limited")

    def judged(
        self, query: Query, datagram: bytes, address: bytes, mono_ns: int, wall_s: int
    ) -> bytes | Question | Drop:
        takes = self.turns is None
        self.counts["udp_requests" if takes else "lrs_requests"] += 1
        if not self.gate.month(mono_ns):
            return self.refused(Refusal("unavailable", query.id), datagram, address, mono_ns)
        scope = SCOPE_PRICES if takes else SCOPE_REPORTS
        verdict = self.gate.admit(query.key or b"", mono_ns, wall_s, scope, address, take=takes)
        if self.turns is not None and verdict.code in LIMITS:
            return self.summary(self.turns, query, verdict, len(datagram), mono_ns)
        if verdict.code == Code.ADMITTED:
            return self.answer(query, verdict, len(datagram), mono_ns)
        reply = self.refused(self.refusal_of(query, verdict), datagram, address, mono_ns)
        if isinstance(reply, bytes) and verdict.key_id:
            self.record(query, verdict, 0, REFUSALS[Code(verdict.code)].status)
        return reply

    def refusal_of(self, query: Query, verdict: Verdict) -> Refusal:
        word = REFUSALS[Code(verdict.code)].udp
        self.counts[word if word in ("rate_limited", "quota_exceeded") else "auth_failures"] += 1
        retry_ms = -(-verdict.retry_after_ns // MS) if word == "rate_limited" else None
        return Refusal(word, query.id, retry_ms)

    def summary(
        self, turns: Limiter, query: Query, verdict: Verdict, request_bytes: int, mono_ns: int
    ) -> Question | Drop:
        """Nothing is taken of the key's limits, so turns of the account bound how often it asks."""
        if not turns.has_turn(verdict.account_id.to_bytes(8, "little") + bytes(8), mono_ns):
            return Drop("limited")
        self.owed.append((verdict.key_id, verdict.account_id, 0))
        return Question(*query[:4], query.id, request_bytes)

    def answer(self, query: Query, verdict: Verdict, request_bytes: int, mono_ns: int) -> bytes | Question:
        price = None if query.asset is None else self.fresh(query, query.asset, mono_ns)
        if price is None or query.asset is None:
            self.owed.append((verdict.key_id, verdict.account_id, verdict.month))
            return Question(*query[:4], query.id, request_bytes)
        self.counts["syncmap_hits"] += 1
        self.record(query, verdict, verdict.month, 200, price)
        return (
            f'{opening(query.id)}"asset":"{query.asset}","price":"{price.price}","quote":"{price.quote}",'
            f'"source":"{price.source}","ts":{price.traded_ns // MS},'
            f'"age_ms":{price.age_ns(mono_ns) // MS},"tier":1}}'
        ).encode()

    def record(
        self, query: Query, verdict: Verdict, month: int, status: int, price: Price | None = None
    ) -> None:
        asset = query.asset or "".join(query.assets[:1])
        log = UsageLog(0, verdict.key_id, verdict.account_id, month, 0, status, asset=asset, protocol=1)
        assets = len(query.assets) or int(query.asset is not None)
        log = log._replace(assets=assets, endpoint=endpoint_of(query))
        if price is not None:
            texts = {"exchange": price.exchange, "price": price.price, "quote": price.quote}
            log = log._replace(tier=1, **source_of(price.source), **texts)
        self.records.append(log)
        self.counts["batch_rows_queued"] += 1

    def fresh(self, query: Query, asset: str, mono_ns: int) -> Price | None:
        """Find a listed price that is fresh enough, and that is written without an escape."""
        if asset not in self.listed:
            return None
        ttl_ns = MS * (self.ttl_ms if query.max_age_ms is None else min(self.ttl_ms, query.max_age_ms))
        if query.exchange is None:
            price = self.board.best(asset, mono_ns, ttl_ns)
        else:
            price = self.board.get(asset, query.exchange)
        if price is None or price.age_ns(mono_ns) > ttl_ns or price.exchange not in self.listed[asset]:
            return None
        words = (price.price, price.quote, price.source, price.exchange)
        is_plain = all(map(_unescaped, words)) and min(price.traded_ns, price.received_ns) >= 0
        return price if is_plain else None


def endpoint_of(query: Query) -> int:
    if query.asset is not None:
        return 0
    return 1 if query.assets else REPORT_SUMMARY


def source_of(tag: str) -> dict[str, int]:
    """Say where a price came from, and whether the exchange is simulated: "kraken-ws-sim" is (1, 1)."""
    kinds = {"ws": 1, "rest": 2, "index": 3}
    kind = re.fullmatch(r"(?:.*-)?([a-z]*?)(-sim)?", tag)
    assert kind is not None
    return {"source": kinds.get(kind[1], 0), "flags": int(kind[2] is not None)}


def opening(id: str | None) -> str:
    if id is None:
        return "{"
    escaped = id.replace("\\", "\\\\").replace('"', '\\"')
    return f'{{"id":"{escaped}",'


def render_refusal(refusal: Refusal) -> bytes:
    retry = "" if refusal.retry_ms is None else f',"retry_ms":{refusal.retry_ms}'
    return f'{opening(refusal.id)}"error":"{refusal.code}"{retry}}}'.encode()
