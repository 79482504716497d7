"""Errors as HTTP answers: ``application/problem+json`` (RFC 9457).

A problem's ``type`` is ``about:blank``, so its ``title`` is the status' own phrase; what a program
should look at is ``code``, which never changes. Each error of ours knows its status and code
(:mod:`rmi_runtime.errors`); what only HTTP knows (a media type, a method) is an
:class:`HttpProblem`. Whatever fails inside is answered in words of its own: the error's go to the
log.
"""

from __future__ import annotations

import http
import logging
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from rmi_runtime import errors

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_log = logging.getLogger(__name__)

RETRY_AFTER_S: Final = 1
"""What a 503 tells the caller to wait, if the error does not say."""

_MEMBERS: Final = frozenset({"type", "title", "status", "detail", "code"})

# What a caller is told about failures inside. Addresses and causes are for the log only.
_INSIDE: Final[Mapping[str, str]] = {
    "overloaded": "the system has more work than it can queue; try again later",
    "draining": "the service is stopping; try again, and another one will answer",
    "unavailable": "no service could be reached in time; nothing was done; try again",
    "store_full": "there is no room to keep more; nothing was done; try again when there is",
    "store_gone": "what this is kept in is gone or damaged: put a good copy back; nothing was done",
    "deadline_passed": "the system was too busy to begin in time; nothing was done; try again",
}
_MAY_HAVE_HAPPENED: Final = (
    "it is not known whether this was done; asked again with the same Idempotency-Key, "
    "it is done once"
)
_ONLY_READ: Final = "this could not be read; nothing was changed by it; try again later"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CHALLENGE: Final = 'Bearer realm="rmi"'
"""Value of ``WWW-Authenticate``: how to say who one is (RFC 6750)."""


class HttpProblem(Exception):
    """What is wrong with a request as far as HTTP is concerned. Nothing was done.

    Args:
        status: the HTTP status, 4xx or 5xx.
        code: stable, machine-readable name.
        detail: what was wrong, what was expected, and what to do.
        headers: to be sent along, such as ``Allow``.
        fields: facts for programs; they become members of the document.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers: Mapping[str, str] = headers or {}
        self.fields = fields


def malformed(detail: str, **fields: Any) -> HttpProblem:
    """Return a 400: the request cannot be read, or has parts nobody knows."""
    return HttpProblem(400, "malformed", detail, **fields)


def invalid(field: str, what: str) -> HttpProblem:
    """Return a 422: *field* is missing, of the wrong type or out of range; *what* says how."""
    return HttpProblem(422, "invalid", f"{field}: {what}" if field else what, field=field)


def nothing_there() -> HttpProblem:
    """Return the 404 of a path that nobody serves."""
    return HttpProblem(404, "not_found", "there is nothing under this path; see /openapi.json")


def phrase(status: int) -> str:
    """Return the phrase that belongs to *status*, such as ``Forbidden``."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def problem_of(error: errors.RmiError, *, method: str = "POST", **extra: Any) -> HttpProblem:
    """Return *error* as a problem.

    Args:
        error: any of our tree; left as it is, for many waiters may share it.
        method: of the request. One that only reads changes nothing, however it fails.
        extra: more fields for programs, such as the request id to ask again with.

    Returns:
        A problem with the error's status, code and fields. From 500 on it says ``definite`` (False:
        something may have been changed) and nothing about the inside; 401 and 503 carry their
        headers.
    """
    status = error.http_status
    code = error.code
    if status < 500:
        headers = {"WWW-Authenticate": CHALLENGE} if status == 401 else None
        fields = {k: v for k, v in error.fields.items() if k not in _MEMBERS} | extra
        return HttpProblem(status, code, error.message or phrase(status), headers=headers, **fields)
    if not error.definite and error.code != "internal":
        status = 503
    headers = {"Retry-After": str(_retry_after_s(error))} if status == 503 else None
    definite, default = error.definite, "try again later"
    if not definite:
        definite = method in _SAFE_METHODS
        default = _ONLY_READ if definite else _MAY_HAVE_HAPPENED
    detail = _INSIDE.get(code, default)
    return HttpProblem(status, code, detail, headers=headers, **extra, definite=definite)


def problem_for(error: BaseException, method: str, path: str) -> HttpProblem:
    """Return what to tell of anything that a responder raised.

    Args:
        error: what it raised. Those of our tree were logged by whoever raised them, and an outage
            must not drown the log; any other is logged here, and answered in words of its own.
        method, path: of the request; the path is for the log.
    """
    if isinstance(error, HttpProblem):
        return error
    if isinstance(error, errors.RmiError):
        return problem_of(error, method=method)
    _log.error("%s %s failed", method, path, exc_info=error)
    return problem_of(errors.InternalError(), method=method)


def problem_bytes(problem: HttpProblem) -> bytes:
    """Return the JSON document of *problem*."""
    document = {
        "type": "about:blank",
        "title": phrase(problem.status),
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        **problem.fields,
    }
    try:
        return msgspec.json.encode(document)
    except (TypeError, ValueError, UnicodeError):
        # A field that JSON cannot carry must not cost the caller the rest of the answer.
        return msgspec.json.encode({name: document[name] for name in sorted(_MEMBERS)})


def _retry_after_s(error: errors.RmiError) -> int:
    given = error.fields.get("retry_after_s")
    if isinstance(given, (int, float)) and 0 <= given <= 3600:
        return max(1, math.ceil(given))
    return RETRY_AFTER_S
