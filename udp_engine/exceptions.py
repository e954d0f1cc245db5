"""What can go wrong with prices over UDP, as a client sees it.

UdpError
├── Refused            the server says no: *code*, and what it tells with it
│   ├── BadRequest  Unauthorized  Revoked  QuotaExceeded     asking again changes nothing
│   ├── UnknownAsset
│   ├── Stale          *age_ms* of the newest price known
│   ├── RateLimited    *retry_ms* until one more request is taken
│   └── Unavailable    *age_ms*, where one is known
├── NoAnswer           none came within the time and the attempts
├── BadReply           what came is no reply of this protocol
├── RequestTooLarge    it would not fit into a datagram
└── ClientClosed       the client was closed before the answer came
"""

from __future__ import annotations


class UdpError(Exception):
    """The root of what this package raises."""


class Refused(UdpError):
    """The server refuses. A code that this version does not know is this class itself."""

    def __init__(self, code: str, *, age_ms: int | None = None, retry_ms: int | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.age_ms = age_ms
        self.retry_ms = retry_ms

    def __str__(self) -> str:
        figures = (("age_ms", self.age_ms), ("retry_ms", self.retry_ms))
        told = [f"{name} {value}" for name, value in figures if value is not None]
        return f"{self.code} ({', '.join(told)})" if told else self.code


class BadRequest(Refused):
    """A field is not as it must be."""


class Unauthorized(Refused):
    """The key is missing, not known, not for this network or not for prices."""


class Revoked(Refused):
    """The key has been revoked or has expired."""


class UnknownAsset(Refused):
    """The asset is not listed, or not on that exchange."""


class Stale(Refused):
    """No price is as fresh as asked."""


class RateLimited(Refused):
    """Requests come faster than the plan allows."""


class QuotaExceeded(Refused):
    """The month's requests are used up."""


class Unavailable(Refused):
    """No fresh price is known, or keys cannot be judged yet."""


REFUSALS: dict[str, type[Refused]] = {
    "bad_request": BadRequest,
    "unauthorized": Unauthorized,
    "revoked": Revoked,
    "unknown_asset": UnknownAsset,
    "stale": Stale,
    "rate_limited": RateLimited,
    "quota_exceeded": QuotaExceeded,
    "unavailable": Unavailable,
}


class NoAnswer(UdpError):
    """Nothing came back: lost on the way, or dropped there, as what is malformed or too short is."""

    def __init__(self, attempts: int, waited_s: float) -> None:
        super().__init__(attempts, waited_s)
        self.attempts = attempts
        self.waited_s = waited_s

    def __str__(self) -> str:
        return f"no answer to {self.attempts} datagrams within {self.waited_s:.3f} s"


class BadReply(UdpError):
    """What came is no reply of this protocol."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data

    def __str__(self) -> str:
        return f"no reply of this protocol: {self.data[:80]!r}"


class RequestTooLarge(UdpError):
    """The request has *size* bytes, and a datagram has room for *limit*."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"the request has {self.size} bytes; a datagram has room for {self.limit}"


class ClientClosed(UdpError):
    """The client was closed before the answer came."""
