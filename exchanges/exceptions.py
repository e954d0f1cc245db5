"""What can go wrong between this node and an exchange.

ExchangeError
├── AddressRefused    the address an administrator entered must not be connected to
├── FeedNotFound      there is no exchange of that name
└── SpecError         (exchanges.feed.spec) a feed row that cannot be used
"""

from __future__ import annotations


class ExchangeError(Exception):
    """Root of this package's errors."""


class AddressRefused(ExchangeError):
    """An admin-entered address that must not be connected to; *address* is empty when it was not resolved."""

    def __init__(self, target: str, reason: str, *, address: str = "") -> None:
        super().__init__(target, reason, address)
        self.target = target
        self.reason = reason
        self.address = address

    def __str__(self) -> str:
        where = f" ({self.address})" if self.address else ""
        return f"refused to connect to {self.target}{where}: {self.reason}"


class FeedNotFound(ExchangeError):
    """There is no row for the exchange *name*."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is no exchange {self.name!r}"
