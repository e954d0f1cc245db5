"""What the stress client measured, and how it is told: rows of a table, a JSON document, a page. Sans-I/O."""

from __future__ import annotations

import html
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from udp_engine.plots import Curve, plot


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level. sent = answered + refused + lost."""

    sockets: int
    window: int
    rate: float
    """Requests that were due each second; 0 where every socket was kept full."""
    seconds: float
    """For how long requests were sent."""
    sent: int
    answered: int
    errors: Mapping[str, int] = field(default_factory=dict)
    """Refusals by code or status, and broken connections."""
    lost: int
    unsent: int = 0
    unexpected: int = 0
    reconnects: int = 0
    per_second: float
    p50_us: float
    p99_us: float
    p999_us: float
    longest_us: float

    @property
    def concurrent(self) -> int:
        return self.sockets * self.window

    @property
    def refused(self) -> int:
        return sum(self.errors.values())

    @property
    def success(self) -> float:
        """The share of good answers among all requests that were made or should have been."""
        wanted = self.sent + self.unsent
        return self.answered / wanted if wanted else 0.0

    @property
    def is_clean(self) -> bool:
        return self.sent > 0 and self.answered == self.sent + self.unsent


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of the stress client, from its first level to its last."""

    protocol: str
    target: str
    command: str
    machine: str
    started: str
    levels: Sequence[Level]
    interrupted: bool = False
    notes: Sequence[str] = ()

    @property
    def is_clean(self) -> bool:
        return bool(self.levels) and all(level.is_clean for level in self.levels)


HEADINGS = (
    "concurrent",
    "sent",
    "answered",
    "refused",
    "lost",
    "success",
    "per second",
    "p50",
    "p99",
    "p99.9",
    "max",
)


def row(level: Level) -> tuple[str, ...]:
    """Return the cells of a level, in the order of HEADINGS."""
    counts = (level.concurrent, level.sent, level.answered, level.refused, level.lost + level.unsent)
    times = (level.p50_us, level.p99_us, level.p999_us, level.longest_us)
    return (
        *(f"{count:,}" for count in counts),
        percent(level.success),
        f"{level.per_second:,.0f}",
        *(duration(us) for us in times),
    )


def percent(share: float) -> str:
    """Write a share; only one that is whole is written as 100 %."""
    if share >= 1.0:
        return "100 %"
    return f"{min(share * 100, 99.9999):.4f} %"


def duration(us: float) -> str:
    """Write a time with three digits."""
    for limit, divisor, unit in ((1_000, 1, "µs"), (1_000_000, 1_000, "ms")):
        if us < limit:
            return f"{us / divisor:.3g} {unit}"
    return f"{us / 1_000_000:.3g} s"


def remarks(run: Run) -> list[str]:
    """Say in words what the table has no column for."""
    said = list(run.notes)
    for level in run.levels:
        codes = ", ".join(f"{count:,} {code}" for code, count in sorted(level.errors.items()))
        others = (
            (level.refused, f"refused: {codes}"),
            (level.unsent, f"{level.unsent:,} requests were due and found no free socket"),
            (level.unexpected, f"{level.unexpected:,} replies answered nothing (late, double or garbage)"),
            (level.reconnects, f"{level.reconnects:,} sockets were replaced"),
        )
        said += [f"{level.concurrent:,} concurrent: {text}." for count, text in others if count]
    return [*said, "Interrupted: the last level is shorter."] if run.interrupted else said


def document(run: Run) -> dict[str, object]:
    """Return the run as JSON has it."""
    levels = [
        asdict(level) | {"concurrent": level.concurrent, "refused": level.refused, "success": level.success}
        for level in run.levels
    ]
    return asdict(run) | {"levels": levels, "clean": run.is_clean}


def page(run: Run, template: str) -> str:
    """Fill *template*. The page needs nothing but itself: no script, no font, no picture from elsewhere."""
    best = max(run.levels, key=lambda level: level.per_second, default=None)
    sent = sum(level.sent for level in run.levels)
    answered = sum(level.answered for level in run.levels)
    wanted = sent + sum(level.unsent for level in run.levels)
    facts = {
        "protocol": run.protocol.upper(),
        "target": run.target,
        "machine": run.machine,
        "started": run.started,
        "command": run.command,
        "verdict": "Every request was answered" if run.is_clean else "Not every request was answered",
        "success": percent(answered / wanted if wanted else 0.0),
        "best": f"{best.per_second:,.0f}" if best else "–",
        "sent": f"{sent:,}",
        "missing": f"{wanted - answered:,}",
        "tail": duration(best.p99_us) if best else "–",
        "most": f"{max((level.concurrent for level in run.levels), default=0):,}",
    }
    parts = {
        "kind": "good" if run.is_clean else "bad",
        "headings": "".join(f"<th scope=col>{heading}</th>" for heading in HEADINGS),
        "rows": "\n".join(_table_row(level) for level in run.levels),
        "remarks": "".join(f"<li>{html.escape(text)}</li>" for text in remarks(run)),
        **_plots(run.levels),
    }
    escaped = {name: html.escape(text) for name, text in facts.items()}
    return string.Template(template).substitute(escaped | parts)


def _table_row(level: Level) -> str:
    first, *cells = row(level)
    kind = "" if level.is_clean else " class=bad"
    return f"<tr{kind}><th scope=row>{first}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _plots(levels: Sequence[Level]) -> dict[str, str]:
    across = [level.concurrent for level in levels]
    times = (("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p999_us"))
    return {
        "throughput": plot(
            "Requests per second",
            across,
            [Curve("answered per second", [level.per_second for level in levels])],
            label=lambda value: f"{value:,.0f}",
        ),
        "latency": plot(
            "Time to answer",
            across,
            [Curve(name, [getattr(level, member) for level in levels]) for name, member in times],
            label=duration,
            logarithmic=True,
        ),
        "outcome": plot(
            "Success",
            across,
            [Curve("success", [level.success * 100 for level in levels])],
            label=lambda value: f"{value:.4g} %",
            marks=[f"{level.sent + level.unsent - level.answered:,} missing" for level in levels],
            top=100.0,
            height=170,
        ),
    }
