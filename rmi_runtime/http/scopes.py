"""The ASGI scope of a request: what an application is told of its head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import httptools

from rmi_runtime.http.heads import Headers

if TYPE_CHECKING:
    from rmi_runtime.http.server import HttpServer

_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}


def asgi_scope(
    server: HttpServer, method: bytes, target: bytes, version: str, headers: Headers
) -> dict[str, Any]:
    """Return the scope.

    Args:
        server: that the request came to.
        method: as parsed.
        target: the request target as sent.
        version: of HTTP, such as ``1.1``.
        headers: names in lower case, values as sent.
    """
    if target[:1] != b"/":
        target = origin_form(target)
    raw_path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": version,
        "method": method.decode("ascii"),
        "scheme": server.scheme,
        "path": decoded_path(raw_path),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "server": server.address,
        "client": None,
    }


def request_path(target: bytes) -> str:
    """Return the decoded path of a request target in any form."""
    target = target if target[:1] == b"/" else origin_form(target)
    return decoded_path(target.partition(b"?")[0])


def decoded_path(raw_path: bytes) -> str:
    """Return a path without its percent-encoding, except that of slashes.

    An encoded slash is a part of a segment and separates none (RFC 3986, section 2.2).
    """
    path = raw_path.decode("ascii")
    if "%" not in path:
        return path
    return unquote(path.replace("%2F", "%252F").replace("%2f", "%252f"))


def origin_form(target: bytes) -> bytes:
    """Return path and query of a request target in another form, such as a whole URL."""
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return target
    path: bytes = url.path or b"/"
    return path + b"?" + url.query if url.query else path
