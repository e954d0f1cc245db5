"""Refusals as RFC 9457 has them, for every interface of the node: one table of codes. Sans-I/O."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """A refusal as RFC 9457 has it; *code* is the stable word that programs look at."""

    code: str
    detail: str
    figures: Mapping[str, object] = {}

    @property
    def status(self) -> int:
        return PROBLEMS[self.code][0]

    @property
    def title(self) -> str:
        return PROBLEMS[self.code][1]


PROBLEMS: dict[str, tuple[int, str]] = {
    "bad_request": (400, "The request cannot be understood"),
    "invalid": (400, "The rows cannot be used"),
    "secret_in_query": (400, "A key must not travel in a query string"),
    "too_many_rows": (400, "The report is longer than it may be in its format"),
    "unauthorized": (401, "Who asks is not known"),
    "forbidden": (403, "This is not allowed"),
    "revoked": (403, "The key is not valid any more"),
    "wrong_network": (403, "The key is not for this network"),
    "not_in_plan": (403, "The key is not for this"),
    "not_found": (404, "There is nothing at this address"),
    "unknown_asset": (404, "The asset is not listed"),
    "unknown_exchange": (404, "The exchange is not listed, or does not list the asset"),
    "unknown_category": (404, "No asset is in this category"),
    "method_not_allowed": (405, "This address does not answer that method"),
    "not_acceptable": (406, "A report cannot be had as any of the accepted types"),
    "request_timeout": (408, "The request did not arrive in time"),
    "too_large": (413, "The body is too large"),
    "url_too_long": (414, "The address is too long"),
    "unsupported_media_type": (415, "The body must be JSON"),
    "rate_limited": (429, "Requests come faster than the plan allows"),
    "quota_exceeded": (429, "The month's requests are used up"),
    "report_quota_exceeded": (429, "The month's reports are used up"),
    "too_many_attempts": (429, "Too many unknown keys were tried"),
    "head_too_large": (431, "The headers are too large, or too many"),
    "stale": (503, "No price is as fresh as asked"),
    "too_few_sources": (503, "Fewer exchanges have a fresh price than asked"),
    "unavailable": (503, "No fresh price is known"),
    "busy": (503, "As many reports are being made as can be at once"),
    "reports_unavailable": (503, "The report cannot be made now"),
    "not_counting": (503, "This process has no counters"),
    "keys_unavailable": (503, "Keys cannot be judged yet"),
    "usage_unavailable": (503, "Usage cannot be recorded now"),
    "too_many_connections": (503, "No further connection is taken"),
    "internal_error": (500, "Something went wrong here"),
}


def render_problem(problem: Problem) -> bytes:
    return msgspec.json.encode(problem_members(problem))


def problem_members(problem: Problem) -> dict[str, object]:
    return {
        "type": f"/docs#{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        **problem.figures,
    }
