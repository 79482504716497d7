"""What is refused before any body is read: decisions about a request's head, without a socket."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Final

from rmi_runtime.http.limits import HttpLimits
from rmi_runtime.http.problems import HttpProblem, malformed

Headers = list[tuple[bytes, bytes]]
HeadersByName = Mapping[bytes, bytes]

# Two of these would mean two things to two readers.
_SINGLE: Final = frozenset(
    {
        *(b"host", b"content-length", b"transfer-encoding", b"content-type", b"expect"),
        *(b"authorization", b"idempotency-key", b"content-encoding"),
    }
)

_HOST: Final = re.compile(
    rb"(\[[0-9A-Fa-f:.]{2,45}\]|([A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(:[0-9]{0,5})?"
)
_HOST_SIZE_BYTES_MAX: Final = 300


def head_problem(
    version: str,
    target: bytes,
    headers: Headers,
    by_name: HeadersByName,
    size_bytes: int,
    limits: HttpLimits,
) -> HttpProblem | None:
    """Return why a request is refused for its head alone, or None.

    Args:
        version: of HTTP, such as ``1.1``.
        target: the request target as sent.
        headers: names in lower case, values as sent.
        by_name: the same; of equal names one.
        size_bytes: upper bound of the head's size; more may have come with it.
        limits: the bounds.
    """
    return (
        _size_problem(target, headers, size_bytes, limits)
        or _form_problem(version, target, headers, by_name)
        or _body_problem(version, by_name, limits)
    )


def incomplete_head_problem(
    target: bytes, size_bytes: int, limits: HttpLimits
) -> HttpProblem | None:
    """Return why the beginning of a head is refused, whatever else would come, or None.

    Args:
        target: as far as it is there.
        size_bytes: of what is there.
        limits: the bounds.
    """
    if len(target) > limits.target_size_bytes_max:
        return target_too_long(limits.target_size_bytes_max)
    return head_too_large(limits) if size_bytes > limits.head_size_bytes_max else None


def incomplete_body_problem(
    size_bytes: int,
    framing_size_bytes: int,
    body_size_bytes: int,
    bodies_size_bytes: int,
    limits: HttpLimits,
) -> HttpProblem | None:
    """Return why the beginning of a body is refused, whatever else would come, or None.

    Args:
        size_bytes: of what is there, as it was sent.
        framing_size_bytes: of what came behind the last byte of the body itself.
        body_size_bytes: of what that is without its framing.
        bodies_size_bytes: of all bodies that are here.
        limits: the bounds.
    """
    if framing_size_bytes > limits.head_size_bytes_max:
        return framing_too_large(limits)  # the parser joins a trailer's pieces one by one
    if size_bytes > 8 * limits.body_size_bytes_max + limits.head_size_bytes_max:
        return body_too_large(limits)  # mostly framing of chunks
    return bodies_problem(body_size_bytes, bodies_size_bytes, limits)


def bodies_problem(
    size_bytes: int, bodies_size_bytes: int, limits: HttpLimits
) -> HttpProblem | None:
    """Return why there is no room for a body beside all others, or None.

    Args:
        size_bytes: of it, as far as it is known.
        bodies_size_bytes: of all, with it.
        limits: the bounds.
    """
    if size_bytes <= limits.small_body_size_bytes:
        return None
    return bodies_too_large() if bodies_size_bytes > limits.bodies_size_bytes_max else None


def _size_problem(
    target: bytes, headers: Headers, size_bytes: int, limits: HttpLimits
) -> HttpProblem | None:
    if len(target) > limits.target_size_bytes_max:
        return target_too_long(limits.target_size_bytes_max)
    if len(headers) > limits.headers_max:
        return head_too_large(limits)
    if size_bytes > limits.head_size_bytes_max:
        exact = len(target) + sum(len(name) + len(value) + 4 for name, value in headers)
        if exact > limits.head_size_bytes_max:
            return head_too_large(limits)
    return None


def _form_problem(
    version: str, target: bytes, headers: Headers, by_name: HeadersByName
) -> HttpProblem | None:
    if not target.isascii():
        return malformed("the request target has bytes beyond ASCII; percent-encode them")
    if version not in ("1.1", "1.0"):
        return malformed("only HTTP/1.1 and HTTP/1.0 are spoken here")
    if len(by_name) != len(headers):
        names = [name for name, _ in headers]
        for name in _SINGLE:
            if names.count(name) > 1:
                return malformed(f"the header {name.decode()} is given twice")
    host = by_name.get(b"host")
    if host is None:
        return malformed("the header Host is missing") if version == "1.1" else None
    if not _is_host(host):
        return malformed("the header Host must be a name or an address, and may have a port")
    return None


@functools.lru_cache(maxsize=64)
def _is_host(value: bytes) -> bool:
    """Return whether a Host header is well-formed (RFC 9110, section 7.2; RFC 3986, 3.2.2)."""
    return len(value) <= _HOST_SIZE_BYTES_MAX and _HOST.fullmatch(value) is not None


def _body_problem(version: str, headers: HeadersByName, limits: HttpLimits) -> HttpProblem | None:
    coding = headers.get(b"transfer-encoding")
    if coding is not None and (coding.lower() != b"chunked" or version == "1.0"):
        return malformed("of the transfer codings only chunked is known, and only in HTTP/1.1")
    if announced_bytes(headers) > limits.body_size_bytes_max:
        return body_too_large(limits)
    if b"expect" in headers and version == "1.1" and headers[b"expect"].lower() != b"100-continue":
        return HttpProblem(417, "expectation_failed", "only 100-continue can be expected")
    return None


def announced_bytes(headers: HeadersByName) -> int:
    """Return the announced length of a body, which the parser has seen to be digits; else 0."""
    digits = headers.get(b"content-length", b"").lstrip(b"0")  # int() has a bound on zeros too
    return int(digits or b"0")


def expects_continue(version: str, headers: HeadersByName) -> bool:
    """Say whether a client waits for a word before it sends a body; HTTP/1.0 cannot say so."""
    if b"expect" not in headers or version != "1.1":
        return False
    return announced_bytes(headers) > 0 or b"transfer-encoding" in headers


def head_without_offer(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """Return a request's head as it would be if the client had not offered to upgrade.

    Args:
        method: as parsed.
        target: as sent.
        version: of HTTP, such as ``1.1``.
        headers: names in lower case, values as sent.
    """
    lines = [b"%b: %b\r\n" % header for header in headers if header[0] != b"upgrade"]
    first = b"%b %b HTTP/%b\r\n" % (method, target, version.encode())
    return b"%b%b\r\n" % (first, b"".join(lines))


def target_too_long(size_bytes_max: int) -> HttpProblem:
    """Return the 414."""
    return HttpProblem(
        414, "target_too_long", f"the request target may have at most {size_bytes_max} bytes"
    )


def head_too_large(limits: HttpLimits) -> HttpProblem:
    """Return the 431."""
    return HttpProblem(
        431,
        "head_too_large",
        f"at most {limits.headers_max} headers, and {limits.head_size_bytes_max} bytes of them, "
        "are taken",
    )


def body_too_large(limits: HttpLimits) -> HttpProblem:
    """Return the 413."""
    return HttpProblem(
        413, "body_too_large", f"the body may have at most {limits.body_size_bytes_max} bytes"
    )


def framing_too_large(limits: HttpLimits) -> HttpProblem:
    """Return the 413 of what is sent with a chunked body and is none."""
    return HttpProblem(
        413,
        "body_too_large",
        f"at most {limits.head_size_bytes_max} bytes of trailers are taken, and so many of "
        "extensions between two chunks of a body",
    )


def bodies_too_large() -> HttpProblem:
    """Return the 503 of all bodies together."""
    return busy("too many large bodies are being received or worked on")


def busy(what: str) -> HttpProblem:
    """Return the 503 of a bound that others have filled."""
    return HttpProblem(
        503,
        "overloaded",
        f"{what}; try again later",
        headers={"Retry-After": "1"},
        definite=True,
    )


def slow(part: str, wait_s: float) -> HttpProblem:
    """Return the 408."""
    return HttpProblem(408, "request_timeout", f"the {part} did not come within {wait_s:g} s")
