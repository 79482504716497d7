"""How the services are: asked of their own daemons, within bounds, and not oftener than needed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from ssl import SSLContext
from typing import Any, Final

from Pyro5.core import DAEMON_NAME
from Pyro5.errors import PyroError

from rmi_runtime import TROUBLE, URI, Endpoints, EndpointView, NameServers, Proxy, errors
from rmi_runtime.credentials.tls import of_tls

log = logging.getLogger(__name__)

ASK_TIMEOUT_S: Final = 1.0
"""How long one service may take to answer before it counts as unreachable."""

FRESH_S: Final = 1.0
"""How old an answer may be that is given again."""

LOOK_S: Final = 0.5
"""How long to wait for a look at the name servers, in seconds."""

TROUBLED: Final = "its store cannot be used; 'rmi status' says why"
"""What strangers are told of a service's trouble, whose own words name files of its machine."""

SERVICES_MAX: Final = 512
"""Most services in the table."""

Row = dict[str, Any]
_Known = dict[str, tuple[str, bool]]  # name -> URI, draining

_FAILURES = (errors.RmiError, PyroError, OSError, AttributeError, TimeoutError)


class Census:
    """The table of all services that the name servers know.

    Whoever asks while an answer is under way shares it. Within :data:`FRESH_S` the name servers are
    asked who is there, and the services themselves only if that is no longer as it was: a system
    that has just come up is shown whole, also if somebody looked half a second ago.

    Args:
        name_servers: whom to ask for the services (those with the tag ``rmi``).
        handshake: shown to the services.
        clock: returns seconds, monotonic.
    """

    def __init__(
        self,
        name_servers: NameServers,
        handshake: object,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name_servers = name_servers
        self._handshake = handshake
        self._clock = clock
        self._listed: _Known = {}  # by the name servers
        self._looking: asyncio.Task[None] | None = None
        self._known: _Known = {}  # those that were asked last
        self._asked: asyncio.Task[list[Row]] | None = None
        self._rows: list[Row] = []
        self._rows_s = -math.inf  # when the services told them

    async def rows(self) -> list[Row]:
        """Return one row per service, by name.

        Returns:
            Each with ``name``, ``uri``, ``address``, ``state`` (``ready``, ``draining`` or
            ``unreachable``) and, if it answers, the numbers of its daemon's ``stats()``. If no name
            server answers within :data:`LOOK_S`, the services known before.
        """
        asked = self._asked
        if asked is None or asked.done():
            asked = self._asked = asyncio.create_task(self._ask_all())
        return await asyncio.shield(asked)

    async def _ask_all(self) -> list[Row]:
        known = await self._look()
        if known != self._known or self._clock() - self._rows_s > FRESH_S:
            self._known = known
            asks = (self._row(name, uri, leaves) for name, (uri, leaves) in known.items())
            self._rows = await asyncio.gather(*asks)
            self._rows_s = self._clock()
        return self._rows

    async def _look(self) -> _Known:
        """Return the services that the name servers know; those known before if that takes long."""
        looking = self._looking
        if looking is None or looking.done():
            looking = self._looking = asyncio.create_task(self._list())
        # It goes on meanwhile: it may come from one that stands still to another that answers.
        done, _ = await asyncio.wait([looking], timeout=LOOK_S)
        for each in done:
            each.result()
        return self._listed

    async def _list(self) -> None:
        try:
            entries = await self._name_servers.list()
        except errors.RmiError:
            return  # the services may well be there without it
        # Names of others do not count: a name server of a laboratory may have hundreds of them.
        ours = sorted(name for name, entry in entries.items() if "rmi" in entry.metadata)
        self._listed = {
            name: (entries[name].uri, entries[name].draining) for name in ours[:SERVICES_MAX]
        }

    async def _row(self, name: str, uri: str, leaves: bool) -> Row:
        row: Row = {"name": name, "uri": uri, "address": str(URI(uri).location)}
        try:
            stats = await ask_daemon(uri, self._handshake, self._name_servers.ssl)
        except NoAnswer:
            return {**row, "state": "unreachable"}
        row |= {stat: value for stat, value in stats.items() if stat not in ("location", "objects")}
        if TROUBLE in row:
            row[TROUBLE] = TROUBLED
        row["state"] = "draining" if leaves else str(stats.get("state", "ready"))
        return row


class NoAnswer(Exception):
    """A daemon does not answer; the words are what TLS says, if it is that that fails."""


async def ask_daemon(uri: str, handshake: object, ssl: SSLContext | None) -> Mapping[str, Any]:
    """Return the ``stats()`` of the daemon at the place of *uri*.

    Raises:
        NoAnswer: it gives none.
    """
    try:
        place = f"PYRO:{DAEMON_NAME}@{URI(uri).location}"
        async with Proxy(place, handshake=handshake, timeout_s=ASK_TIMEOUT_S, ssl=ssl) as daemon:
            stats: Mapping[str, Any] = await daemon._call("stats")
            return stats
    except _FAILURES as error:
        raise NoAnswer(str(error) if of_tls(error) else "") from error


class Readiness:
    """Whether the gateway can do its work: all that it needs, near or far, answers.

    Args:
        needed: what is needed, by the word for it, and where it may be found.
        handshake: shown to the services.
        ssl: client context for TLS, or None.
        clock: returns seconds, monotonic.
    """

    def __init__(
        self,
        needed: Mapping[str, Endpoints],
        handshake: object,
        ssl: SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._needed = needed
        self._handshake = handshake
        self._ssl = ssl
        self._clock = clock
        self._asked: asyncio.Task[list[str]] | None = None
        self._asked_s = 0.0
        self._no_tls = False  # whether that was the trouble last

    async def reasons(self) -> Sequence[str]:
        """Return why the gateway is not ready; nothing if it is. Remembered for a short while."""
        asked = self._asked
        if asked is None or (asked.done() and self._clock() - self._asked_s > FRESH_S):
            asked = self._asked = asyncio.create_task(self._ask_all())
        return await asyncio.shield(asked)

    async def _ask_all(self) -> list[str]:
        no_tls: list[str] = []
        missing = await asyncio.gather(
            *(self._reason(what, endpoints, no_tls) for what, endpoints in self._needed.items())
        )
        self._asked_s = self._clock()
        # Connections that are open go on, so that nobody else may have noticed yet.
        if no_tls and not self._no_tls:
            log.warning("not ready, as there is no TLS with services: %s", no_tls[0])
        self._no_tls = bool(no_tls)
        return [reason for reason in missing if reason]

    async def _reason(self, what: str, endpoints: Endpoints, no_tls: list[str]) -> str:
        if not (views := _takers(endpoints)):
            with contextlib.suppress(errors.Unavailable):
                await endpoints.ready(LOOK_S)  # it may have come since the last look
            if not (views := _takers(endpoints)):
                return f"no {what} is announced"
        asks = [
            asyncio.ensure_future(ask_daemon(view.uri, self._handshake, self._ssl))
            for view in views
        ]
        why, troubled = "", False
        try:
            for answered in asyncio.as_completed(asks):
                try:
                    trouble = (await answered).get(TROUBLE)
                except NoAnswer as error:
                    why = why or str(error)
                else:
                    if trouble is None:
                        return ""
                    troubled = True
        finally:
            for ask in asks:
                ask.cancel()
            await asyncio.gather(*asks, return_exceptions=True)
        if troubled:
            return f"no {what} of {len(views)} announced can do its work: {TROUBLED}"
        if not why:
            return f"no {what} of {len(views)} announced answers"
        no_tls.append(why)
        return f"no {what} of {len(views)} announced answers: {why}"


def _takers(endpoints: Endpoints) -> list[EndpointView]:
    return [view for view in endpoints.view() if not view.draining][:SERVICES_MAX]
