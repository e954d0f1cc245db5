"""The two ways from a node's shipper to its database: written at once from here, or through a queue.

To have been taken promises nothing: only the ledger says what has arrived, and what has not is sent again. So
neither way needs to be exact. A queue may lose messages, double them and change their order; a send that
timed out may have been taken all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from telemetry.documents import encode
from telemetry.envelope import Envelope, pack
from telemetry.exceptions import CarrierError

MESSAGE_BYTES = 256 * 1024
"""Of a message at most, as the queue counts it: every SQS region takes that much."""
OVERHEAD_BYTES = 4 * 1024
"""Headers of the message, and the envelope without its payload."""
WRITE_S = 30.0


class Carrier(Protocol):
    @property
    def payload_bytes(self) -> int | None:
        """Of one envelope's payload at most."""

    @property
    def at_once(self) -> bool:
        """Whether what was taken is in the ledger already."""

    async def carry(self, envelopes: Sequence[Envelope]) -> int:
        """Hand envelopes over in their order, and say how many were taken; CarrierError when none was."""

    async def aclose(self) -> None: ...


class Direct:
    """Writes to the database from this process, all envelopes of a call in one transaction.

    Where one of them cannot be written, *take* is given each by itself: it sees to what nobody can write.
    """

    payload_bytes = None
    at_once = True

    def __init__(
        self,
        write: Callable[[Sequence[Envelope]], Awaitable[object]],
        take: Callable[[bytes], Awaitable[object]],
        is_outage: Callable[[Exception], bool],
    ) -> None:
        self._write, self._take, self._is_outage = write, take, is_outage

    async def carry(self, envelopes: Sequence[Envelope]) -> int:
        try:
            async with asyncio.timeout(WRITE_S):
                await self._carry(envelopes)
        except TimeoutError as error:
            raise CarrierError("the database has not answered in time") from error
        except Exception as error:
            raise CarrierError(str(error) or type(error).__name__) from error
        return len(envelopes)

    async def aclose(self) -> None:
        pass

    async def _carry(self, envelopes: Sequence[Envelope]) -> None:
        try:
            await self._write(envelopes)
        except Exception as error:
            if self._is_outage(error):
                raise
            for envelope in envelopes:
                await self._take(encode(pack(envelope)))


class Queued:
    """Publishes to a queue, a message for each envelope. *publish* may block: it has a thread of its own."""

    payload_bytes = (MESSAGE_BYTES - OVERHEAD_BYTES) * 3 // 4  # in base64 inside the message
    at_once = False

    def __init__(self, publish: Callable[[bytes], None], *, timeout_s: float) -> None:
        """*publish* is to give up by itself after *timeout_s*, too: nothing ends a thread from outside."""
        self._publish = publish
        self._timeout_s = timeout_s
        self._thread = ThreadPoolExecutor(1, "carrier")

    async def carry(self, envelopes: Sequence[Envelope]) -> int:
        loop = asyncio.get_running_loop()
        for taken, envelope in enumerate(envelopes):
            try:
                async with asyncio.timeout(self._timeout_s):
                    document = encode(pack(envelope))
                    await loop.run_in_executor(self._thread, self._publish, document)
            except Exception as error:
                if taken:
                    return taken
                raise CarrierError(str(error) or type(error).__name__) from error
        return len(envelopes)

    async def aclose(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
