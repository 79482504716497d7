"""From the names of objects to their places: ``PYRONAME:`` and ``PYROMETA:`` to ``PYRO:`` URIs."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from Pyro5 import config
from Pyro5.core import NAMESERVER_NAME, URI
from Pyro5.errors import NamingError, PyroError

from rmi_runtime import errors

Resolve = Callable[[str], Awaitable[str]]
"""Makes a ``PYRO:`` URI of the other two kinds."""

AskNameServer = Callable[[str, str, Sequence[Any], float], Awaitable[Any]]
"""Calls a method of a name server: its URI, the method, its arguments, the seconds to wait."""


def name_server_uri(location: str) -> URI:
    """Return the URI of the name server at a place.

    Args:
        location: ``host:port``, or ``./u:path`` of a Unix domain socket.

    Raises:
        InvalidRequest: it is neither.
    """
    try:
        return URI(f"PYRO:{NAMESERVER_NAME}@{location}")
    except PyroError:
        message = f"the name server {location!r} is not host:port, as in 127.0.0.1:9090"
        raise errors.InvalidRequest(message, field="locations") from None


async def direct_uri(
    uri: URI, resolve: Resolve | None, ask: AskNameServer, timeout_s: float
) -> URI:
    """Return the URI of the object itself.

    Args:
        uri: of any of the three kinds.
        resolve: knows the way; None asks the URI's name server, or Pyro's configured one.
        ask: calls a name server.
        timeout_s: how long a name server may take.

    Returns:
        A ``PYRO:`` URI. If several objects have the wanted tags, one of them picked at random.

    Raises:
        NotFound: the name server knows no such object, or no place of it.
        Unavailable: it cannot be reached.
    """
    if uri.protocol == "PYRO":
        return uri
    if resolve is not None:
        return _place(await resolve(str(uri)), uri)
    name_server = f"PYRO:{NAMESERVER_NAME}@{uri.location or _configured_location()}"
    if uri.protocol == "PYRONAME":
        try:
            found = await ask(name_server, "lookup", (uri.object,), timeout_s)
        except NamingError as error:
            raise errors.NotFound(f"the name server does not know {uri.object}: {error}") from error
        return _place(found, uri)
    tagged = await ask(name_server, "yplookup", (sorted(uri.object), None, False), timeout_s)
    if not isinstance(tagged, Mapping) or not tagged:
        raise errors.NotFound(f"no object is registered with the tags {sorted(uri.object)}")
    places = sorted(map(str, tagged.values()))
    return _place(random.choice(places), uri)  # noqa: S311  (to spread, not to hide)


def _place(found: Any, uri: URI) -> URI:
    """Return what was found for *uri*; what else a name server may hold leads nowhere."""
    try:
        place = URI(found)
    except (PyroError, TypeError, ValueError):
        place = None
    if place is None or place.protocol != "PYRO":
        shown = errors.shown(found if place is None else str(place))
        raise errors.NotFound(
            f"{uri} leads to {shown}, which is no place to connect to: expected a PYRO: URI; "
            "register it anew"
        )
    return place


def _configured_location() -> str:
    host = config.NS_HOST
    return f"[{host}]:{config.NS_PORT}" if ":" in host else f"{host}:{config.NS_PORT}"
