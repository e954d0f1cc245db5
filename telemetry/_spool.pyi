from typing import Final, NamedTuple

from typing_extensions import Buffer

LAYOUT_VERSION: Final[int]
HEADER_BYTES: Final[int]
RECORD_BYTES: Final[int]
MIN_SEGMENT_BYTES: Final[int]
MAX_SEGMENT_BYTES: Final[int]
NAME_BYTES: Final[int]
PRICE_BYTES: Final[int]
QUOTE_BYTES: Final[int]
NODE_BYTES: Final[int]

APPENDED: Final[int]
FULL: Final[int]

NO_SOURCE: Final[int]
WS: Final[int]
REST: Final[int]
INDEX: Final[int]
SIMULATED: Final[int]
HTTP: Final[int]
UDP: Final[int]
PRICE: Final[int]
PRICES: Final[int]
USAGE: Final[int]
REPORT_USAGE: Final[int]
REPORT_SUMMARY: Final[int]
REPORT_REPORT_USAGE: Final[int]
REPORT_REPORT_SUMMARY: Final[int]

SOURCES: Final[tuple[str, ...]]
PROTOCOLS: Final[tuple[str, ...]]
ENDPOINTS: Final[tuple[str, ...]]

class SegmentHeader(NamedTuple):
    """What a segment says of itself; *seed* is what its checksums begin with."""

    node: str
    row: int
    created_ns: int
    segment_bytes: int
    capacity: int
    """Records that fit."""
    seed: int

class UsageLog(NamedTuple):
    """One billable answer. What one of several fields means is in _spool.pxd."""

    time_ns: int
    key_id: int
    month: int
    """202611: in which the gate has counted it; 0 when it was not counted."""
    latency_us: int
    status: int
    """As HTTP has it, over UDP too."""
    assets: int = 0
    """How many were asked for."""
    tier: int = 0
    """0 without a price."""
    source: int = 0
    flags: int = 0
    protocol: int = 0
    endpoint: int = 0
    asset: str = ""
    exchange: str = ""
    price: str = ""
    quote: str = ""
    sequence: int = 0
    """Within its segment, from 1; given by the append."""

def crc32c(text: Buffer, crc: int = 0, *, portable: bool = False) -> int:
    """Go on from *crc* with CRC-32C, by this processor's instruction or by the portable tables."""

def make_header(node: str, row: int, created_ns: int, segment_bytes: int) -> bytes:
    """Make the first page of a segment; ValueError for what a segment cannot be."""

def read_header(page: Buffer) -> SegmentHeader:
    """Say what segment the first page (or what is left of it) is of; LayoutError when it is of none."""

def read_counts(page: Buffer, header: SegmentHeader) -> tuple[int | None, int | None]:
    """Give the records in a sealed segment (None: not sealed), and those written so far (None: damaged)."""

def sift(records: Buffer, start: int, seed: int) -> tuple[int, int]:
    """Move the whole records in a writable buffer to its front.

    The first place has the number *start*, counted from 0. Gives how many are whole, and how many places
    there are up to the last of them.
    """

def decode(records: Buffer) -> list[UsageLog]:
    """Take whole records apart."""

class Appender:
    """Appends to published segments, one after another. One thread appends; another one may call the rest.

    Makes no system call: files, mapping and syncing belong to telemetry.spool.
    """

    def append(self, log: UsageLog) -> bool:
        """Append a record; False, and counted, when no segment has room. Texts are cut to their fields."""

    @property
    def wanting(self) -> bool:
        """Whether no segment is prepared for when the current one is full."""

    @property
    def appended(self) -> int: ...
    @property
    def refused(self) -> int:
        """Appends that found no room."""

    def publish(self, memory: Buffer) -> int:
        """Prepare a segment, which this process has made; gives the number by which it will be retired."""

    def condemn(self, number: int) -> None:
        """Have a segment sealed as it is with the next append."""

    def sync(self, number: int) -> None:
        """Make durable what has been appended to a segment in a mapped file; OSError as the disk says.

        Only the pages up to there are written. Of a condemned segment nothing is.
        """

    def take_retired(self) -> list[int]:
        """Name the segments that were sealed since this was last called, the first sealed one first."""

    def release(self, number: int) -> None:
        """Let go of the memory of a retired segment, or after closing of any."""

    def close(self) -> list[int]:
        """Seal the current segment, and name those to be retired; the others have nothing in them.

        After that every append says that there is no room. Closing twice is harmless. Nobody may be
        appending.
        """
