"""Who asks over HTTP, and what the gate says of it: credentials read, verdicts told in HTTP's words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

from billing._gate import DEMO, SCOPE_PRICES, SCOPE_REPORTS, Verdict
from billing.admission import REFUSALS, Code, pack_address
from billing.guessing import ELSEWHERE, REVOKED
from billing.keys import SHOWN_CHARACTERS
from billing.ratelimit import month_start_s, next_month, policy_field, retry_after_s, state_field
from pricing import metrics
from pricing.exceptions import BadRequest
from pricing.problems import Problem
from pricing.protocol import refuse_secret, render_time
from telemetry._counters import AUTH_FAILURES, QUOTA_EXCEEDED, RATE_LIMITED
from telemetry._spool import HTTP, REPORT_USAGE
from telemetry.recorder import Recorder
from telemetry.usage import Asked

Scope: TypeAlias = Mapping[str, Any]  # Any: ASGI messages are open dictionaries
Header: TypeAlias = tuple[bytes, bytes]

SECOND_NS = 1_000_000_000
_REALM = b'Bearer realm="prices"'
_HOW = "Send it as 'Authorization: Bearer tb_live_…' or as 'X-API-Key: tb_live_…'."
EXPOSED: Header = (b"access-control-expose-headers", b"ratelimit-policy, ratelimit, retry-after")
_COUNTED = {Code.RATE_LIMITED: RATE_LIMITED, Code.QUOTA_EXCEEDED: QUOTA_EXCEEDED}


class Judge(metrics.Gate, Protocol):
    """The gate, as `billing._gate.Gate` is one."""

    def admit(
        self,
        key: bytes,
        /,
        mono_ns: int,
        wall_s: int,
        scope: int,
        address: bytes | None,
        *,
        take: bool,
    ) -> Verdict: ...
    def admit_digest(
        self,
        digest: bytes,
        /,
        mono_ns: int,
        wall_s: int,
        scope: int,
        address: bytes | None,
        *,
        take: bool,
    ) -> Verdict: ...
    def total(self, row: int, month: int) -> int: ...


class Tokens(Protocol):
    """What the demo on the public page asks with, as `billing.demo.DemoTokens` makes them."""

    def make(self, *, host: str, address: str, wall_s: int) -> str: ...
    def is_token(self, text: bytes) -> bool: ...
    def bucket(self, text: bytes, *, host: str, address: str, wall_s: int) -> bytes | None: ...


class Guesses(Protocol):
    """Who tries keys that are none, as `billing.guessing.Guesses` counts them."""

    def refused(self, address: str, prefix: str, mono_ns: int) -> int | None: ...
    def note(self, kind: str, address: str, prefix: str) -> None: ...


class CounterRow(Protocol):
    def add(self, index: int, n: int = 1, /) -> None: ...


class Admitted(NamedTuple):
    verdict: Verdict
    asked: Asked
    """Opened in the recorder: whoever answers closes it."""
    fields: tuple[Header, ...]
    """Go with the answer, whatever it is."""


class Refused(NamedTuple):
    problem: Problem
    fields: tuple[Header, ...] = ()


class Admission:
    """Judge who asks. *trusts_proxy*: the client's address is the last one of X-Forwarded-For."""

    def __init__(
        self,
        gate: Judge,
        counters: CounterRow,
        recorder: Recorder,
        *,
        guesses: Guesses,
        tokens: Tokens,
        trusts_proxy: bool = False,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.gate = gate
        self._counters = counters
        self.recorder = recorder
        self._guesses = guesses
        self._tokens = tokens
        self._trusts_proxy = trusts_proxy
        self._mono_ns = mono_ns
        self._wall_s = wall_s

    def admit(self, scope: Scope, endpoint: int, *, take: bool = True) -> Admitted | Refused:
        """Judge a request, and record a refusal that names a key under *endpoint*. Raises BadRequest.

        With *take* False nothing is taken, and a key whose limits are used up is admitted: it asks for them.
        """
        refuse_secret(scope["query_string"])
        credential = read_credential(scope)
        if credential is None:
            self._counters.add(AUTH_FAILURES)
            return Refused(Problem("unauthorized", f"A key is needed. {_HOW}"), (_challenge(b""),))
        begun_ns = self._mono_ns()
        if not self.gate.month(begun_ns):  # nobody has filled the gate yet: no key is unknown
            return Refused(Problem("keys_unavailable", _NO_KEYS), (_retry_after(1), EXPOSED))
        if not self.recorder.admits():
            return Refused(Problem("usage_unavailable", _NO_ROOM), (_retry_after(1), EXPOSED))
        with self.recorder:
            needed = SCOPE_REPORTS if endpoint >= REPORT_USAGE else SCOPE_PRICES
            verdict = self._judge(scope, credential, needed, take=take)
            is_admitted = verdict.code == Code.ADMITTED or (not take and verdict.code in _COUNTED)
            month = verdict.month if is_admitted and take else 0
            asked = Asked(verdict.key_id, verdict.account_id, month, HTTP, endpoint, begun_ns)
            if is_admitted:
                self.recorder.open(asked)
                return Admitted(verdict, asked, limit_fields(verdict))
            refused = self._refused(
                scope, credential, verdict, "reports" if needed == SCOPE_REPORTS else "prices"
            )
            if verdict.key_id:
                self.recorder.record(asked, refused.problem.status)
            return refused

    def total(self, verdict: Verdict) -> int:
        """Return what all nodes have counted for the key this month."""
        return self.gate.total(verdict.row, verdict.month)

    def demo_token(self, scope: Scope) -> str | None:
        """Make a token for a page of this site; None where no browser says that it is one."""
        host = own_host(scope)
        if not host or not any(name == b"origin" for name, _ in scope["headers"]):
            return None
        return self._tokens.make(host=host, address=self.address(scope), wall_s=int(self._wall_s()))

    def address(self, scope: Scope) -> str:
        """Return the client's address as text; empty where there is none."""
        if self._trusts_proxy:
            forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
            return forwarded.rpartition(b",")[2].strip().decode("latin-1")
        client = scope.get("client")
        return client[0] if client else ""

    def _judge(self, scope: Scope, credential: bytes, needed: int, *, take: bool) -> Verdict:
        address, wall_s = self.address(scope), int(self._wall_s())
        key, ask = credential, self.gate.admit
        if self._tokens.is_token(credential):
            bucket = self._tokens.bucket(credential, host=own_host(scope), address=address, wall_s=wall_s)
            if bucket is not None:
                key, ask = bucket, self.gate.admit_digest
        return ask(key, self._mono_ns(), wall_s, needed, pack_address(address), take=take)

    def _refused(self, scope: Scope, credential: bytes, verdict: Verdict, what: str) -> Refused:
        code, address = Code(verdict.code), self.address(scope)
        self._counters.add(_COUNTED.get(code, AUTH_FAILURES))
        refused = REFUSALS[code]
        if refused.status == 401:
            return self._unknown(code, credential, address)
        if refused.status == 429:
            wait_s = retry_after_s(verdict.retry_after_ns)
            return Refused(_exhausted(verdict), (*limit_fields(verdict), _retry_after(wait_s)))
        if code in _NOTED:
            self._guesses.note(_NOTED[code], address, _shown(credential))
        detail = _DETAILS[refused.problem].format(address=address or "here", what=what)
        return Refused(Problem(refused.problem, detail))

    def _unknown(self, code: Code, credential: bytes, address: str) -> Refused:
        """Refuse what is no key of ours. Only who guesses at keys is slowed down: a token ends by itself."""
        if self._tokens.is_token(credential):
            detail = "This token has expired, or is another page's. Reload the page."
            return Refused(Problem("unauthorized", detail), (_challenge(b"invalid_token"),))
        prefix = _shown(credential) if code is Code.UNKNOWN else ""
        wait_s = self._guesses.refused(address, prefix, self._mono_ns())
        if wait_s is not None:
            detail = f"Too many unknown keys came from your address. Try again in {wait_s} s."
            return Refused(Problem("too_many_attempts", detail), (_retry_after(wait_s), EXPOSED))
        detail = "This key is not known here. Was it copied whole?"
        return Refused(Problem("unauthorized", detail), (_challenge(b"invalid_token"),))


_NO_KEYS = "The keys could not be read yet; please try again in a moment."
_NO_ROOM = "Usage cannot be recorded now, so nothing is answered; please try again in a moment."
_NOTED = {Code.REVOKED: REVOKED, Code.EXPIRED: REVOKED, Code.WRONG_NETWORK: ELSEWHERE}
_DETAILS = {
    "revoked": "This key has been revoked or has expired. Make another one at /account.",
    "wrong_network": "This key must not be used from {address}.",
    "not_in_plan": "This key is not for {what}.",
}


def read_credential(scope: Scope) -> bytes | None:
    """Return the key or token that a request carries, None without one. Raises BadRequest for several."""
    found = [
        value.strip() if name == b"x-api-key" else _bearer(value)
        for name, value in scope["headers"]
        if name in (b"x-api-key", b"authorization")
    ]
    credentials = {text for text in found if text}
    if len(credentials) > 1:
        raise BadRequest(Problem("bad_request", f"There are several keys: one is needed. {_HOW}"))
    return credentials.pop() if credentials else None


def own_host(scope: Scope) -> str:
    """Return the host that a page of this site asks, empty where another site's page asks."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get(b"host", "").lower()
    origin = headers.get(b"origin")
    if origin is not None and origin.lower().partition("://")[2] != host:
        return ""
    return host if headers.get(b"sec-fetch-site", "same-origin") == "same-origin" else ""


def limit_fields(verdict: Verdict) -> tuple[Header, ...]:
    """Write the fields that tell a client of its limits; none for who has none."""
    state = state_field(verdict)
    if not state:
        return ()
    policy = policy_field(verdict)
    return ((b"ratelimit-policy", policy.encode()), (b"ratelimit", state.encode()), EXPOSED)


def _bearer(value: bytes) -> bytes:
    scheme, _, credential = value.strip().partition(b" ")
    return credential.strip() if scheme.lower() == b"bearer" else b""


def _challenge(error: bytes) -> Header:
    """RFC 6750, section 3: no error code for who has sent nothing."""
    return b"www-authenticate", _REALM + (b', error="%s"' % error if error else b"")


def _retry_after(wait_s: int) -> Header:
    return b"retry-after", b"%d" % wait_s


def _shown(credential: bytes) -> str:
    return credential[:SHOWN_CHARACTERS].decode("latin-1")


def _exhausted(verdict: Verdict) -> Problem:
    if verdict.code == Code.RATE_LIMITED:
        wait_ms = -(-verdict.retry_after_ns // 1_000_000)
        detail = f"At most {verdict.limit} requests at once, and {_per_second(verdict):g} a second."
        return Problem("rate_limited", detail, {"retry_after_ms": wait_ms})
    detail = f"The {verdict.cap} requests of this month have been made."
    return Problem("quota_exceeded", detail, {"limit": verdict.cap, "resets_at": _end_of(verdict.month)})


def describe_usage(verdict: Verdict, total: int) -> dict[str, object]:
    """Describe a key's limits, and what it has made use of: None is no limit, or a token of the demo."""
    month = verdict.month
    rate: dict[str, object] = {
        "burst": verdict.limit,
        "per_second": _per_second(verdict),
        "remaining": verdict.remaining,
        "reset_ms": -(-verdict.reset_ns // 1_000_000),
    }
    return {
        "key_id": None if verdict.flags & DEMO else verdict.key_id,
        "partner": verdict.partner,
        "rate": rate if verdict.limit else None,
        "month": {
            "name": f"{month // 100}-{month % 100:02d}",
            "used": total,
            "limit": verdict.cap or None,
            "remaining": verdict.cap_remaining if verdict.cap else None,
            "resets_at": _end_of(month),
        },
    }


def _end_of(month: int) -> str:
    return render_time(month_start_s(next_month(month)) * SECOND_NS)


def _per_second(verdict: Verdict) -> float:
    return round(SECOND_NS / verdict.emission_ns, 3) if verdict.emission_ns else 0
