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
    boot_ns: int
    """When its process opened the spool: the same in all its segments."""
    segment_bytes: int
    capacity: int
    """Records that fit."""
    seed: int

class Tally(NamedTuple):
    """What a process has done since its start: what the words mean is in _spool.pxd.

    A killed process's segments may each have some: the greatest of each word counts.
    """

    entered: int
    left: int
    opened: int
    closed: int
    shed: int

class UsageLog(NamedTuple):
    """One billable answer. What one of several fields means is in _spool.pxd."""

    time_ns: int
    key_id: int
    account_id: int
    """0 for the demo."""
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

def make_header(node: str, row: int, created_ns: int, segment_bytes: int, boot_ns: int) -> bytes:
    """Make the first page of a segment; ValueError for what a segment cannot be."""

def read_header(page: Buffer) -> SegmentHeader:
    """Say what segment the first page (or what is left of it) is of; LayoutError when it is of none."""

def read_counts(page: Buffer, header: SegmentHeader) -> tuple[int | None, int | None]:
    """Give the records in a sealed segment (None: not sealed), and those written so far (None: damaged)."""

def read_tally(page: Buffer) -> Tally:
    """Give what the process had done when it last appended to this segment, or when it was killed."""

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

    def admits(self) -> bool:
        """Say whether an answer may be begun, and make room for its record. Asked before the gate.

        Each answer that is owed has a place of its own.
        """

    def refuse(self) -> None:
        """Count a question that is not answered for want of room."""

    def enter(self) -> None:
        """Begin the bracket around the gate, or around the record of an answer that was owed."""

    def leave(self) -> None: ...
    def open_answer(self) -> None:
        """Note that an answer is owed: the gate has counted it, and it is recorded later."""

    def close_answer(self) -> None:
        """Note that an answer is owed no more: it has been recorded."""

    def promise(self) -> None:
        """Note that an answer is owed which the gate has not counted: it keeps a place, and no evidence."""

    def fulfil(self) -> None:
        """Note that such an answer has been recorded."""

    def append(self, log: UsageLog) -> bool:
        """Append a record, its texts cut to their fields; False, and counted as shed, without room."""

    @property
    def wanting(self) -> bool:
        """Whether no segment is prepared for when the current one is full."""

    @property
    def appended(self) -> int: ...
    @property
    def refused(self) -> int:
        """Questions that were not answered for want of room."""

    @property
    def tally(self) -> Tally: ...
    @property
    def sheds(self) -> bool:
        """Whether answers go on without a record when there is no room."""

    @sheds.setter
    def sheds(self, value: bool) -> None: ...
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
