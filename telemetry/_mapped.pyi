from types import TracebackType
from typing import Self

class Mapped:
    """A view of shared memory. It holds its buffer until it is closed."""

    def close(self) -> None:
        """Let go of the buffer. Closing twice is harmless."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
