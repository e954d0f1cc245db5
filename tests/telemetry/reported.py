"""Usage in a database to make reports of."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from telemetry._spool import (
    HTTP,
    NO_SOURCE,
    PRICE,
    PRICES,
    REPORT_SUMMARY,
    REPORT_USAGE,
    REST,
    SIMULATED,
    UDP,
    WS,
    UsageLog,
)
from telemetry.ledger import write_envelopes
from telemetry.reports import Kind, Question
from tests.telemetry.usage import make_envelope, make_records

DAY_NS = 86_400_000_000_000
START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 11, 4, tzinfo=UTC)
START_NS = int(START.timestamp()) * 1_000_000_000
ACCOUNT, OTHER = 7, 8


def make_usage(count: int = 380, seed: int = 1) -> list[UsageLog]:
    """Make answers of three days, of two accounts, of every kind that differs in a report."""
    chance = random.Random(seed)
    return [make_one(chance) for _ in range(count)]


def make_one(chance: random.Random) -> UsageLog:
    is_report, status = chance.random() < 0.1, chance.choice((200, 200, 200, 404, 429, 503))
    is_told = status == 200 and not is_report
    account_id = chance.choice((ACCOUNT, ACCOUNT, ACCOUNT, OTHER))
    exchange = chance.choice(("coinbase", "kraken")) if is_told else ""
    return UsageLog(
        # A few at the very same microsecond, and a few at the edges of hours and days.
        time_ns=START_NS
        + chance.randrange(3 * 48) * DAY_NS // 48
        + chance.choice((0, 0, 1_000, 999_999_000)),
        key_id=account_id * 10 + chance.randrange(2),
        account_id=account_id,
        month=202611 if status != 429 and not is_report else 0,
        latency_us=chance.randrange(1, 5_000),
        status=status,
        assets=chance.choice((1, 1, 3)),
        tier=1 if is_told else 0,
        source=chance.choice((WS, REST)) if is_told else NO_SOURCE,
        flags=SIMULATED if is_told and chance.random() < 0.2 else 0,
        protocol=chance.choice((HTTP, UDP)),
        endpoint=chance.choice((REPORT_USAGE, REPORT_SUMMARY) if is_report else (PRICE, PRICES)),
        asset="" if is_report else chance.choice(("BTC", "ETH", "UNI")),
        exchange=exchange,
        price="67123.4500" if is_told else "",
        quote="USD" if is_told else "",
    )


def write_usage(logs: list[UsageLog], using: str = "default", *, segment: str = "1-1") -> None:
    write_envelopes([make_envelope(make_records(logs), segment=segment)], using=using)


def ask(kind: Kind = Kind.USAGE, **changes: Any) -> Question:  # Any: fields of a question
    return msgspec.structs.replace(Question(kind, ACCOUNT, START, END), **changes)


def chosen(
    logs: Iterable[UsageLog], *, of_reports: bool = False, account_id: int = ACCOUNT
) -> list[UsageLog]:
    return [
        log for log in logs if log.account_id == account_id and (log.endpoint >= REPORT_USAGE) is of_reports
    ]


def sums(
    logs: Iterable[UsageLog], by: Callable[[UsageLog], Any] = lambda log: ()
) -> dict[Any, tuple[int, ...]]:
    """Add answers up in plain Python, as a report's figures."""
    groups: dict[Any, list[UsageLog]] = defaultdict(list)
    for log in logs:
        groups[by(log)].append(log)
    return {key: figures_of(group) for key, group in groups.items()}


def figures_of(logs: list[UsageLog]) -> tuple[int, ...]:
    classes = Counter(
        "ok" if log.status < 300 else "refused" if log.status < 500 else "failed" for log in logs
    )
    latencies = [log.latency_us for log in logs]
    return (
        len(logs),
        sum(log.month != 0 for log in logs),
        classes["ok"],
        classes["refused"],
        classes["failed"],
        sum(log.assets for log in logs),
        round(sum(latencies) / len(latencies)),
        max(latencies),
    )
