from collections.abc import Sequence
from typing import Final, NamedTuple, final

from telemetry._mapped import Mapped

LAYOUT_VERSION: Final[int]
KEY_BYTES: Final[int]
MAX_ROWS: Final[int]
MAX_NETWORKS: Final[int]
MAX_BURST: Final[int]
MAX_EMISSION_NS: Final[int]
MAX_COUNT: Final[int]

ADMITTED: Final[int]
MALFORMED: Final[int]
UNKNOWN: Final[int]
REVOKED: Final[int]
EXPIRED: Final[int]
WRONG_NETWORK: Final[int]
WRONG_SCOPE: Final[int]
QUOTA_EXCEEDED: Final[int]
RATE_LIMITED: Final[int]

PARTNER: Final[int]
SCOPE_PRICES: Final[int]
SCOPE_REPORTS: Final[int]
DEMO: Final[int]

def gate_size(rows: int) -> int:
    """Say how many bytes a gate of so many rows takes."""

def format_gate(buffer: object, rows: int) -> None:
    """Make *buffer*, writable and exactly of that size, an empty gate."""

def check_gate(buffer: object) -> None:
    """Raise LayoutError when *buffer*, which may be read-only, holds something else."""

class GateKey(NamedTuple):
    """A key as the gate holds it. 0 is no limit, and no end."""

    digest: bytes
    key_id: int
    account_id: int = 0
    plan: int = 0
    flags: int = ...
    """PARTNER, SCOPE_PRICES, SCOPE_REPORTS, DEMO; both scopes by default."""
    emission_ns: int = 0
    """Time between two requests of the plan's rate."""
    burst: int = 0
    cap: int = 0
    """Requests per month."""
    expires_s: int = 0
    networks: Sequence[tuple[bytes, int]] = ()
    """16 bytes, IPv4 mapped into IPv6, and the length of the prefix; none is anywhere."""
    revoked: bool = False
    revision: int = 0
    """Of the row in the database."""

class Usage(NamedTuple):
    """What this node has counted for a key in one month."""

    row: int
    key_id: int
    month: int
    """202611; 0 before the first request."""
    counted: int
    last_used_s: int

@final
class Verdict:
    """What the gate says of one request. Immutable."""

    @property
    def code(self) -> int:
        """ADMITTED, or the first thing that is wrong, in the order of the codes."""

    @property
    def row(self) -> int:
        """Of the key; -1 when it is nobody's."""

    @property
    def key_id(self) -> int:
        """0 when it is nobody's; known for every other refusal."""

    @property
    def account_id(self) -> int: ...
    @property
    def plan(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def partner(self) -> bool: ...
    @property
    def limit(self) -> int:
        """Requests at once; 0 for no rate limit, and in refusals for other reasons than a limit."""

    @property
    def emission_ns(self) -> int: ...
    @property
    def remaining(self) -> int:
        """Requests that would be admitted at the same instant after this one."""

    @property
    def reset_ns(self) -> int:
        """Until there would be one more; 0 when the bucket is full."""

    @property
    def cap(self) -> int:
        """Requests per month; 0 for none, and in refusals for other reasons than a limit."""

    @property
    def cap_remaining(self) -> int: ...
    @property
    def cap_reset_ns(self) -> int:
        """Until the next month; 0 while that is unknown."""

    @property
    def month(self) -> int:
        """In which it counts: 202611."""

    @property
    def retry_after_ns(self) -> int:
        """After RATE_LIMITED and QUOTA_EXCEEDED: when it would be admitted, if nobody else asks."""

class Gate(Mapped):
    """The gate as every worker has it: it judges and counts, and never waits for the writer or for anybody.

    The buffer must be writable: counts are in it. Raises LayoutError when it holds something else. Holds
    the buffer until closed; after that every method raises ValueError. For one thread at a time.
    """

    def __init__(self, buffer: object) -> None: ...
    def admit(
        self,
        key: bytes,
        mono_ns: int,
        wall_s: int,
        scope: int = ...,
        address: bytes | None = None,
        *,
        take: bool = True,
    ) -> Verdict:
        """Judge a key's text and, unless *take* is False, take the request from its limits and count it.

        *mono_ns* is CLOCK_MONOTONIC, *wall_s* the time since the epoch, *address* the client's in 16 bytes. A
        refusal takes nothing and counts nothing.
        """

    def admit_digest(
        self,
        digest: bytes,
        mono_ns: int,
        wall_s: int,
        scope: int = ...,
        address: bytes | None = None,
        *,
        take: bool = True,
    ) -> Verdict:
        """Do the same for who knows the SHA-256 of the key's text and not the text."""

    def find(self, digest: bytes) -> int | None:
        """Give the row of a digest, revoked ones too."""

    def key(self, row: int) -> GateKey:
        """Give a row's key; ValueError for a free one."""

    def usage(self, row: int) -> Usage:
        """Give what was counted in the latest month in which the key was used."""

    def total(self, row: int, month: int) -> int:
        """Give what all nodes have counted in a month, as this one knows it; ValueError for a free row."""

    def month(self, mono_ns: int) -> int:
        """Say which month it is: the writer's, or the next one once that has ended; 0 while it is unknown."""

    @property
    def rows(self) -> int: ...
    @property
    def keys(self) -> int:
        """How many rows are taken."""

    @property
    def generation(self) -> int:
        """How many writers there have been."""

    @property
    def writer_pid(self) -> int: ...
    @property
    def heartbeat_mono_ns(self) -> int: ...
