"""What can go wrong with plans, accounts, keys and the gate.

BillingError
├── AccountOnOtherPlan   a command named another plan than the account has
├── GateFull             no row, or no place for a key's networks, is left in the gate
├── KeyNotFound          there is no key of that name, or it is another account's
├── KeyRefused           a key cannot be as it was asked for; *errors* names the fields
├── KeyNotLive           a key that was revoked or has expired cannot be changed
├── PlanNotFound         there is no plan of that name
├── PlanRefused          a plan cannot be as it was asked for; *errors* names the fields
└── SharingError         Valkey or Redis did not do what was asked, in time
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class BillingError(Exception):
    """Root of this package's errors."""


class _Refused(BillingError):
    def __init__(self, errors: Mapping[str, Sequence[str]]) -> None:
        super().__init__(errors)
        self.errors = {field: list(messages) for field, messages in errors.items()}

    def __str__(self) -> str:
        return "; ".join(f"{field}: {text}" for field, texts in self.errors.items() for text in texts)


class KeyRefused(_Refused):
    """A key cannot be as it was asked for."""


class PlanRefused(_Refused):
    """A plan cannot be as it was asked for."""


class KeyNotFound(BillingError):
    """*name* is an id or a prefix, never a key's text."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is no such key: {self.name}"


class KeyNotLive(BillingError):
    def __init__(self, key: str, state: str) -> None:
        super().__init__(key, state)
        self.key = key
        self.state = state

    def __str__(self) -> str:
        return f"the key {self.key} is {self.state}"


class PlanNotFound(BillingError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is no plan {self.name!r}"


class AccountOnOtherPlan(BillingError):
    def __init__(self, email: str, plan: str) -> None:
        super().__init__(email, plan)
        self.email = email
        self.plan = plan

    def __str__(self) -> str:
        return f"{self.email} is on the plan {self.plan}"


class GateFull(BillingError):
    """There is no free place: all *capacity* of *what* (rows, network lists) are taken."""

    def __init__(self, what: str, capacity: int) -> None:
        super().__init__(what, capacity)
        self.what = what
        self.capacity = capacity

    def __str__(self) -> str:
        return f"the gate is full: all {self.capacity} {self.what} are taken"


class SharingError(BillingError):
    """Valkey or Redis is away, or too slow. Nodes go on by themselves."""
