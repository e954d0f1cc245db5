from pricing._board import BoardReader

class BoardWriter(BoardReader):
    """The one writer. Making it takes the board over: what a killed writer left half done is repaired.

    That there is no other is the caller's promise (trinity_site.shared_memory holds the lock).
    """

    def __init__(self, buffer: object, pid: int, mono_ns: int) -> None: ...
    def set_exchange(self, name: str, *, source: str, quote: str) -> None:
        """Add an exchange, or change its labels: prices written under other labels become misses.

        Where all rows are taken, one without a place is used again: its exchange is forgotten and is no home
        any more. Raises BoardFull when every exchange has a place.
        """

    def place(self, asset: str, exchange: str) -> int:
        """Give the slot of *asset* on *exchange*, taken now if need be; the same again for the same pair.

        Raises KeyError for an exchange that was never set, BoardFull where no slot is left.
        """

    def remove(self, asset: str, exchange: str) -> None:
        """Give the place and its price up; nothing happens where there is none."""

    def set_home(self, asset: str, exchange: str | None) -> None:
        """Say which exchange answers for *asset* by default; None for no one."""

    def write(self, slot: int, price: str, traded_ns: int, received_ns: int, received_mono_ns: int) -> None:
        """Store a tick; ValueError for a free slot, or a *price* not of 1 to PRICE_BYTES ASCII characters."""

    def clear(self, slot: int) -> None:
        """Forget the price and keep the place."""

    def beat(self, mono_ns: int) -> None:
        """Show that the writer lives."""

    def write_status(self, document: bytes) -> None:
        """Publish a document of at most STATUS_BYTES; ValueError for a longer one."""
