"""The tunables of the UDP engine, with their defaults and limits. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    buffer_bytes: int = 32 << 20
    """Asked of the kernel for each direction; what it gave is read back and reported."""
    budget: int = 16
    """Batches of 64 datagrams that the board answers before the event loop has its turn: some 3 ms."""
    refusals_per_s: int = 200
    """To one network (/24 or /64) that has shown no good key, by all workers of the node together."""
    refusal_burst: int = 20
    networks: int = 65_536
    """Buckets for them, per worker, 8 bytes each; a power of two."""
    waiting: int = 1_024
    """Questions that wait for asyncio or the lower tiers, per worker; a quarter of them may be one key's."""
    summary_ms: int = 1_000
    """How old a summary may be that is told again; for as long a database that failed is not asked for it."""
    summary_entries: int = 4_096
    """Summaries that are kept, 2 KB each."""
    summaries_at_once: int = 64
    """Summaries that are read, or wait to be read, at the same time."""
    grace_ms: int = 3_000
    """For those that wait when a worker has to leave: longer than the lower tiers may take."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{field.name} must be a whole number above 0, not {value!r}")
        if self.networks & (self.networks - 1):
            raise ValueError(f"networks must be a power of two, not {self.networks}")

    def share(self, workers: int) -> tuple[int, int]:
        """Return the refusals a second, and at once, that each of so many workers may send to one network."""
        return max(1, self.refusals_per_s // workers), max(1, self.refusal_burst // workers)
