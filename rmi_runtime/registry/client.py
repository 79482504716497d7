"""The client's side of name servers: ask any of several, announce to all of them.

Works with our name server (leases) and with a stock ``pyro5-ns`` (none: there a service registers,
registers again if the name server has forgotten it, and removes itself when it ends).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl as tls
from collections.abc import Iterable, Mapping, Sequence
from random import Random, SystemRandom
from types import TracebackType
from typing import Any

from Pyro5.core import URI
from Pyro5.errors import NamingError, PyroError

from rmi_runtime import errors
from rmi_runtime.credentials.tls import of_tls
from rmi_runtime.registry.name_server_proxies import NameServerProxies
from rmi_runtime.registry.nametable import DRAINING, Entry

log = logging.getLogger(__name__)

RETRY_S = 0.25
"""Pause before an announcement is tried again that did not get through."""

FAREWELL_S = 1.0
"""How long leaving the name servers may take."""

_ELSEWHERE = (
    errors.Unavailable,
    errors.NotFound,  # a daemon answers there, but it is no name server's
    errors.Indefinite,
    errors.Draining,
    errors.Overloaded,
)
"""Errors of ours that another name server may not have; of others' errors any may be one's own."""


class NameServers:
    """One or several name servers that are told the same.

    Connections are made when first needed and kept. An async context manager; entering it connects
    nowhere.

    Args:
        locations: ``host:port`` of each; they are asked in this order, the last one that answered
            first.
        handshake: data for their authentication; ``{"cluster_key": …}`` is needed to announce.
        timeout_s: how long one name server may take to answer before the next one is asked.
        ssl: client context for TLS, or None; :class:`Endpoints` found through these use it too.
        rng: chooses among several objects with the same tags.
    """

    def __init__(
        self,
        locations: Sequence[str],
        *,
        handshake: object = "hello",
        timeout_s: float = 2.0,
        ssl: tls.SSLContext | None = None,
        rng: Random | None = None,
    ) -> None:
        if not locations or isinstance(locations, str):
            raise errors.InvalidRequest(
                "locations must be a sequence of at least one 'host:port'", field="locations"
            )
        self.locations = tuple(locations)
        self._handshake = handshake
        self._timeout_s = timeout_s
        self.ssl = ssl
        self._rng = rng or SystemRandom()
        self._proxies = NameServerProxies(
            self.locations, handshake=handshake, timeout_s=timeout_s, ssl=ssl
        )
        self._last_good = self.locations[0]
        self._trouble = ""

    async def __aenter__(self) -> NameServers:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def lookup(self, name: str) -> str:
        """Return the URI of *name*: the first that a name server tells.

        Raises:
            NotFound: no name server that answers knows it.
            Unavailable: no name server answers.
        """
        answered = False
        for location in self._order():
            try:
                found = URI(str(await self._proxies.ask(location, "lookup", [name], {})))
                self._last_good = location
                return str(found)
            except NamingError:
                answered = True
            except Exception as error:
                self._pass_over(location, error)
        if not answered:
            raise self._nobody()
        raise errors.NotFound(f"no object is registered as {name!r}; is it running?", name=name)

    async def find(self, name: str) -> str | None:
        """Return the URI of *name*, None if no name server that answers knows it.

        As :meth:`lookup`, but that nobody has the name is no error, here or in their figures.

        Raises:
            Unavailable: no name server answers.
        """
        answered = False
        for location in self._order():
            try:
                found = await self._listed_at(location, "list", prefix=name)
                answered = True
                if (entry := found.get(name)) is not None:
                    return entry.uri
            except Exception as error:
                self._pass_over(location, error)
        if not answered:
            raise self._nobody()
        return None

    async def list(self, prefix: str = "") -> dict[str, Entry]:
        """Return what a name server knows, by name.

        Args:
            prefix: only names that start with this.

        Raises:
            Unavailable: no name server answers.
        """
        return await self._listed("list", prefix=prefix or None)

    async def resolve(self, uri: str) -> str:
        """Make a ``PYRO:`` URI of any other; fit for ``Proxy(resolve=...)``.

        A location in *uri* is asked instead of these name servers. Of several objects with all the
        tags one is chosen at random; draining ones only if there is no other.

        Raises:
            InvalidRequest: *uri* is no URI.
            NotFound: nothing has that name, or all those tags.
            Unavailable: no name server answers.
        """
        try:
            parsed = URI(uri)
        except PyroError as error:
            raise errors.InvalidRequest(f"{uri!r}: {error}", field="uri") from None
        if parsed.protocol == "PYRO":
            return uri
        if parsed.location:
            async with NameServers(
                [parsed.location],
                handshake=self._handshake,
                timeout_s=self._timeout_s,
                ssl=self.ssl,
                rng=self._rng,
            ) as there:
                parsed.host = parsed.port = parsed.sockname = None
                return await there.resolve(str(parsed))
        if parsed.protocol == "PYRONAME":
            return await self.lookup(parsed.object)
        return await self._choose(sorted(parsed.object))

    async def call_at(self, location: str, method: str, *args: Any) -> Any:
        """Call a method of the name server at one of the locations.

        Raises:
            Unavailable: it cannot be reached.
            Exception: what the method raises.
        """
        return await self._proxies.call(location, method, args, {})

    async def aclose(self) -> None:
        """Close the connections."""
        await self._proxies.aclose()

    async def _choose(self, tags: Sequence[str]) -> str:
        entries = await self._listed("yplookup", meta_all=tags)
        uris = [entry.uri for entry in entries.values() if not entry.draining]
        uris = uris or [entry.uri for entry in entries.values()]
        if not uris:
            raise errors.NotFound(f"no object is registered with the tags {', '.join(tags)}")
        return self._rng.choice(sorted(uris))

    def _order(self) -> Sequence[str]:
        return sorted(self.locations, key=lambda location: location != self._last_good)

    async def _listed_at(self, location: str, method: str, **kwargs: Any) -> dict[str, Entry]:
        kwargs["return_metadata"] = True
        found = _entries(await self._proxies.ask(location, method, [], kwargs))
        self._last_good = location
        return found

    async def _listed(self, method: str, **kwargs: Any) -> dict[str, Entry]:
        """Return what the first name server lists that answers with something sensible."""
        for location in self._order():
            try:
                return await self._listed_at(location, method, **kwargs)
            except Exception as error:
                self._pass_over(location, error)
        raise self._nobody()

    def _pass_over(self, location: str, error: Exception) -> None:
        if (ours := isinstance(error, errors.RmiError)) and not isinstance(error, _ELSEWHERE):
            raise error
        log.debug("name server %s does not answer: %r", location, error)
        what = str(error) if ours else f"{location} raises {error!r}"
        self._trouble = "" if ours and not of_tls(error) else f"; {what}"

    def _nobody(self) -> errors.Unavailable:
        return errors.Unavailable(
            f"no name server answers at {', '.join(self.locations)}: start one with "
            f"'rmi nameserver', or say where it is (RMI_NS, --ns){self._trouble}"
        )


class Announcer:
    """Keeps a name known at all name servers for as long as it is entered.

    Each name server is told by a task of its own, for ever: whether it is down, comes back, or has
    forgotten everything makes no difference to the others or to the service. An async context
    manager; entering does not wait for any of them.

    Args:
        name_servers: whom to tell; their handshake must hold the cluster key.
        name: the Pyro name.
        uri: where the object is.
        metadata: its tags.
        lease_s: how long a name server keeps the name without hearing of it again; it is renewed
            three times in that time.

    Attributes:
        announced: set once any name server knows the name.
    """

    def __init__(
        self,
        name_servers: NameServers,
        name: str,
        uri: str | URI,
        *,
        metadata: Iterable[str] = (),
        lease_s: float = 2.0,
    ) -> None:
        self.name = name
        self.uri = str(uri)
        self.announced = asyncio.Event()
        self.name_servers = name_servers
        self._metadata = frozenset(metadata)
        self.lease_s = lease_s
        self._tellers = [_Teller(self, location) for location in name_servers.locations]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def tags(self) -> list[str]:
        """The tags that are announced now, sorted."""
        return sorted(self._metadata)

    async def __aenter__(self) -> Announcer:
        self._tasks = [asyncio.create_task(teller.run()) for teller in self._tellers]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._all_in_time(*(teller.leave() for teller in self._tellers))

    async def drain(self) -> None:
        """Tell all name servers that this service takes nothing new; waits a second at most."""
        self._metadata |= {DRAINING}
        await self._all_in_time(*(teller.tell_again() for teller in self._tellers))

    async def _all_in_time(self, *farewells: Any) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await asyncio.gather(*farewells)


class _Teller:
    """Tells one name server, again and again."""

    def __init__(self, announcer: Announcer, location: str) -> None:
        self._announcer = announcer
        self._location = location
        self._leases = True  # False: a stock name server, which has none
        self._known = False  # whether the name server has the present tags
        self._registered = False  # at a stock name server: it has had the name from us
        self._again = asyncio.Event()
        self._told = asyncio.Event()
        self._trouble = ""

    async def run(self) -> None:
        lease_s = self._announcer.lease_s
        while True:
            pause_s = lease_s / 3 if await self._try_to_tell() else min(RETRY_S, lease_s / 3)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._again.wait()

    async def tell_again(self) -> None:
        """Have the tags told anew at once, and return when that is done."""
        self._known = False
        self._told.clear()
        self._again.set()
        await self._told.wait()

    async def leave(self) -> None:
        """Take the name back, unless somebody else has it by now."""
        name, uri = self._announcer.name, self._announcer.uri
        # Nobody is left to be told of a failure, and the lease runs out by itself.
        with contextlib.suppress(Exception):
            if self._leases:
                try:
                    await self._call("leave", name, uri)
                except AttributeError:
                    self._leases = False
            if not self._leases and await self._registered_uri() == uri:
                await self._call("remove", name)

    async def _try_to_tell(self) -> bool:
        self._again.clear()
        try:
            await self._tell()
        except Exception as error:  # whatever a name server may raise: it will be told again
            self._say(f"{type(error).__name__}: {error}")
            return False
        self._say("")
        if not self._again.is_set():
            self._told.set()
        self._announcer.announced.set()
        return True

    async def _tell(self) -> None:
        announcer = self._announcer
        if not self._leases:
            known_uri = await self._registered_uri()
            if known_uri == announcer.uri and self._known:
                return
            if known_uri not in (None, announcer.uri) and self._registered:
                raise errors.Conflict(f"{announcer.name} was taken over by {known_uri}")
        name, uri, tags = announcer.name, announcer.uri, announcer.tags
        try:
            await self._call("announce", name, uri, announcer.lease_s, tags)
            self._leases = True
        except AttributeError:
            self._leases = False
            await self._call("register", name, uri, False, tags)
            self._registered = True
        self._known = tags == announcer.tags  # they may be others since

    async def _registered_uri(self) -> str | None:
        try:
            return str(await self._call("lookup", self._announcer.name))
        except NamingError:
            return None

    async def _call(self, method: str, *args: Any) -> Any:
        return await self._announcer.name_servers.call_at(self._location, method, *args)

    def _say(self, trouble: str) -> None:
        """Log a change for the worse or the better, once."""
        if trouble and not self._trouble:
            log.warning(
                "%s is not announced at the name server %s (%s); trying on",
                self._announcer.name,
                self._location,
                trouble,
            )
        elif self._trouble and not trouble:
            log.info("%s is announced at %s again", self._announcer.name, self._location)
        self._trouble = trouble


def _entries(found: Any) -> dict[str, Entry]:
    if not isinstance(found, Mapping):
        raise errors.Unavailable(f"a name server answered with {type(found).__name__}, not a list")
    try:
        return {str(name): Entry(str(uri), frozenset(tags)) for name, (uri, tags) in found.items()}
    except (TypeError, ValueError) as error:
        raise errors.Unavailable(f"what a name server listed makes no sense: {error}") from error
