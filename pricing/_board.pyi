from typing import Final, NamedTuple, final

from telemetry._mapped import Mapped

LAYOUT_VERSION: Final[int]
PRICE_BYTES: Final[int]
NAME_BYTES: Final[int]
SOURCE_BYTES: Final[int]
MAX_EXCHANGES: Final[int]
MAX_SLOTS: Final[int]
STATUS_BYTES: Final[int]
READ_TRIES: Final[int]

def board_size(slots: int) -> int:
    """Say how many bytes a board of so many slots takes."""

def format_board(buffer: object, slots: int) -> None:
    """Make *buffer*, writable and exactly of that size, an empty board."""

class ExchangeRow(NamedTuple):
    """One exchange as the board knows it.

    *ticks* counts what was written since it came. *last_tick_mono_ns* is when its newest trade took place, as
    CLOCK_MONOTONIC; 0 for none. An old trade that arrives now is as old there as it is.
    """

    name: str
    source: str
    quote: str
    ticks: int
    last_tick_mono_ns: int

@final
class Price:
    """One exchange's latest price of an asset. Immutable."""

    def __init__(
        self,
        asset: str,
        exchange: str,
        source: str,
        quote: str,
        price: str,
        traded_ns: int,
        received_ns: int,
        received_mono_ns: int,
    ) -> None: ...
    @property
    def asset(self) -> str: ...
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
    @property
    def received_mono_ns(self) -> int: ...
    def age_ns(self, mono_ns: int) -> int:
        """Say how long ago the trade was at CLOCK_MONOTONIC *mono_ns*: how late it came plus its time here.

        Never negative, and no step of the wall clock changes it.
        """

class BoardReader(Mapped):
    """The board as readers see it: nothing here waits for the writer, or for anybody.

    Raises LayoutError when the buffer holds something else. Holds the buffer until closed; after that every
    method raises ValueError. For one thread at a time.
    """

    def __init__(self, buffer: object) -> None: ...
    def get(self, asset: str, exchange: str) -> Price | None:
        """Give the latest price of *asset* on *exchange*, however old; None where there is none."""

    def best(self, asset: str, mono_ns: int, ttl_ns: int) -> Price | None:
        """Give the home exchange's price if its age is at most *ttl_ns*, else the freshest of such an age."""

    def all(self, asset: str) -> list[Price]:
        """Give every exchange's price of *asset*, in the order of the exchange rows."""

    def home(self, asset: str) -> str | None:
        """Name the exchange that answers for *asset* by default."""

    def assets(self) -> list[str]:
        """List every asset that ever had a place or a home, in the order in which they came."""

    def exchanges(self) -> list[ExchangeRow]:
        """List the exchanges in the order of their rows."""

    def status(self) -> bytes:
        """Give the last status document; empty before the first."""

    @property
    def generation(self) -> int:
        """How many writers there have been: a change means that another has taken over."""

    @property
    def writer_pid(self) -> int: ...
    @property
    def heartbeat_mono_ns(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def read_counts(self) -> dict[str, int]:
        """What this reader met: *retries* (the writer came between), *spoilt* copies, *exhausted* reads."""
