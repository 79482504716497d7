"""Answers of one piece: status, media type and a body that is all there."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

import msgspec

from rmi_runtime.http.problems import PROBLEM_MEDIA_TYPE, HttpProblem, phrase, problem_bytes

JSON_MEDIA_TYPE: Final = "application/json"
NO_HEADERS: Final[Mapping[str, str]] = {}
CLOSE_LINE: Final = b"connection: close\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answer(msgspec.Struct, gc=False):
    """What a request is answered with.

    Attributes:
        body: of it.
        status: of it.
        media_type: of the body.
        headers: more of them, of our own words: nothing that a caller sent.
    """

    body: bytes
    status: int = 200
    media_type: str = JSON_MEDIA_TYPE
    headers: Mapping[str, str] = NO_HEADERS

    def written(self, last_lines: bytes) -> bytes:
        """Return the answer as it goes out.

        Args:
            last_lines: the headers that this answer does not know of, and the line that ends them.
        """
        body = self.body
        if self.headers:
            own = "".join(f"{name.lower()}: {value}\r\n" for name, value in self.headers.items())
            last_lines = own.encode("latin-1") + last_lines
        first_lines = _first_lines(self.status, self.media_type)
        return b"%b%d\r\n%b%b" % (first_lines, len(body), last_lines, body)


def problem_answer(problem: HttpProblem) -> Answer:
    """Return the answer that tells of *problem*."""
    return Answer(problem_bytes(problem), problem.status, PROBLEM_MEDIA_TYPE, problem.headers)


@functools.lru_cache(maxsize=256)
def _first_lines(status: int, media_type: str) -> bytes:
    """Return the head of an answer up to the value of its content length."""
    lines = f"HTTP/1.1 {status} {phrase(status)}\r\ncontent-type: {media_type}\r\ncontent-length: "
    return lines.encode("latin-1")
