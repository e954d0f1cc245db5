from billing._gate import Gate, GateKey, Usage

class GateWriter(Gate):
    """The one writer of rows. Making it takes the gate over: what a killed writer left half done is repaired.

    That there is no other is the caller's promise (trinity_site.shared_memory holds the lock).
    """

    def __init__(self, buffer: object, pid: int, mono_ns: int) -> None: ...
    def put(self, key: GateKey) -> int:
        """Add a key, or change what a known one may; gives its row. What it has used stays as it is.

        Nothing changes when the row already has a later revision. Raises GateFull, and ValueError for what
        does not fit.
        """

    def revoke(self, digest: bytes, revision: int) -> bool:
        """Refuse a key from now on, unless its row has a later revision; False when it is not here.

        The row stays, so that the key is known as revoked. A put of a revision from before changes nothing.
        """

    def remove(self, digest: bytes) -> bool:
        """Forget a key. Its row is taken for another only after all that were free before."""

    def set_others(self, row: int, month: int, count: int) -> None:
        """Say what the other nodes have counted in *month*: it counts towards the cap of that month alone."""

    def restore(self, row: int, month: int, count: int) -> None:
        """Raise this node's count in *month* to at least *count*: what was saved before a restart."""

    def changed(self) -> list[Usage]:
        """Give the counts that this writer has not given before, each month of a key by itself."""

    def set_month(self, month: int, ends_mono_ns: int) -> None:
        """Say which month it is (202611), and when by CLOCK_MONOTONIC the next one begins (0: unknown).

        A key that has already counted in a later month stays there.
        """

    def beat(self, mono_ns: int) -> None:
        """Show that the writer lives."""
