"""Requests that the parser stops at: with methods it does not know, or that are not HTTP at all."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable
from typing import Final

import httptools

from rmi_runtime.errors import InternalError
from rmi_runtime.http.heads import body_too_large, target_too_long
from rmi_runtime.http.limits import HttpLimits
from rmi_runtime.http.problems import HttpProblem, malformed, problem_of

_log = logging.getLogger(__name__)

# RFC 9110, section 5.6.2, and RFC 9112, section 3.
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE: Final = re.compile(rb"^(%b) [!-~]+ HTTP/1\.[01]\r\n" % _TOKEN, re.MULTILINE)
_BEGUN: Final = re.compile(rb"%b( [!-~]*( [HTP/1.0]{0,8}\r?)?)?" % _TOKEN)
_LINES_MAX: Final = 256
_NOT_COUNTED: Final = "Content-Length overflow"  # how llhttp says that it counts no further
_NOT_THE_METHOD: Final = "Invalid method for"  # how llhttp says that it is one of RTSP or ICAP


class StopParsing(Exception):
    """Raised inside a parser callback, so that llhttp goes no further."""


def method_not_allowed(allowed: Iterable[str]) -> HttpProblem:
    """Return the 405.

    Args:
        allowed: methods that are taken instead.
    """
    return HttpProblem(
        405,
        "method_not_allowed",
        "this path does not take this method; the header Allow has those",
        headers={"Allow": ", ".join(allowed)},
    )


def unparsed(error: Exception, methods: Iterable[str], limits: HttpLimits) -> HttpProblem:
    """Return what to tell of what the parser, or who took its place, has raised.

    Args:
        error: it.
        methods: those that some path takes.
        limits: those of the server.
    """
    if isinstance(error, HttpProblem):
        return error
    if isinstance(error, httptools.HttpParserCallbackError):
        _log.error("reading a request failed", exc_info=error)
        return problem_of(InternalError(), method="GET")  # it came to nobody who could do it
    if str(error).startswith(_NOT_THE_METHOD):
        return method_not_allowed(methods)
    if str(error) == _NOT_COUNTED:
        return body_too_large(limits)
    return malformed(f"this is not HTTP/1.1: {error}")


class UnknownMethod:
    """Takes the parser's place where that stops at a method: reads on to the end of the line.

    The parser stops at the first letter that fits no method, which may be before the rest is there,
    and does not say where. If there is a request line with a well-formed method that it does not
    know, that method is what is wrong; anything else is not HTTP.

    Args:
        error: what the parser said.
        methods: those that some path takes.
        size_bytes_max: of a line.
    """

    def __init__(self, error: Exception, methods: Iterable[str], size_bytes_max: int) -> None:
        self._error = error
        self._methods = methods
        self._size_bytes_max = size_bytes_max
        self._read = b""

    def feed_data(self, data: bytes | memoryview) -> None:
        """Take more of what the client sends, beginning with what the parser was given last.

        Raises:
            HttpProblem: 405, 400 or 414, as soon as that is clear. How slowly it may come is the
                caller's to bound.
        """
        self._read += data
        for line in itertools.islice(_LINE.finditer(self._read), _LINES_MAX):
            if not _is_parsed(line[1]):
                raise method_not_allowed(self._methods)
        self._read = self._read[self._read.rfind(b"\n") + 1 :]
        if len(self._read) > self._size_bytes_max:
            raise target_too_long(self._size_bytes_max)
        if _BEGUN.fullmatch(self._read) is None:
            raise malformed(f"this is not HTTP/1.1: {self._error}")


def _is_parsed(method: bytes) -> bool:
    """Return whether the parser knows *method*."""
    try:
        httptools.HttpRequestParser(object()).feed_data(method + b" ")
    except httptools.HttpParserError:
        return False
    return True
