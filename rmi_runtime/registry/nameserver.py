"""The name server's Pyro object: Pyro5's own methods, and announcing under a lease.

Stock clients use it as they use ``pyro5-ns``: ``Pyro5.api.locate_ns()``, ``pyro5-nsc``, and proxies
of ``PYRONAME:`` and ``PYROMETA:`` URIs. The differences are on purpose:

* only services (who know the cluster key) may change anything;
* patterns are RE2's, which cannot run for long: no look-around, no back-references;
* names, tags and their numbers are bounded (:class:`rmi_runtime.registry.nametable.NameLimits`);
* ``Pyro.NameServer`` itself cannot be registered anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping

from Pyro5.core import URI
from Pyro5.errors import NamingError
from Pyro5.server import expose

from rmi_runtime.context import allow
from rmi_runtime.registry.namestore import NameKeeper
from rmi_runtime.registry.nametable import Registration

OWN_TAGS = frozenset({"class:Pyro5.nameserver.NameServer", "rmi", "rmi.nameserver"})
"""Tags of the name server's own entry; the first one is what stock Pyro5 gives its own."""

Tagged = dict[str, str | tuple[str, set[str]]]
"""URIs by name; with their tags, if those were asked for."""


@expose
class NameServer:
    """Names of remote objects, and where they are.

    Args:
        keeper: holds the names; must have been entered.
    """

    def __init__(self, keeper: NameKeeper) -> None:
        self._keeper = keeper
        self._table = keeper.table

    def count(self) -> int:
        """Return the number of names."""
        return len(self._table)

    def ping(self) -> None:
        """Do nothing, so that a caller knows the name server is there."""

    def lookup(self, name: str, return_metadata: bool = False) -> URI | tuple[URI, set[str]]:
        """Return the URI of *name*; with *return_metadata*, its tags as well.

        Raises:
            NamingError: the name is unknown.
            TypeError: it is no text.
        """
        found = self._table.get(_checked_name(name))
        uri = URI(found.uri)
        return (uri, set(found.metadata)) if return_metadata else uri

    def list(
        self, prefix: str | None = None, regex: str | None = None, return_metadata: bool = False
    ) -> Tagged:
        """Return the URIs (strings) of all names, or of those with a prefix or matching a pattern.

        Raises:
            ValueError: both *prefix* and *regex* are given.
            NamingError: the pattern is not valid.
        """
        return _shown(self._table.entries(prefix, regex), return_metadata)

    def yplookup(
        self,
        meta_all: Collection[str] | None = None,
        meta_any: Collection[str] | None = None,
        return_metadata: bool = True,
    ) -> Tagged:
        """Return the names that have all, or any, of some tags.

        Raises:
            ValueError: both *meta_all* and *meta_any* are given.
            TypeError: the tags are no collection of strings.
        """
        if meta_all and meta_any:
            raise ValueError("you can't use meta_all or meta_any at the same time")
        found = self._table.search(all_of=meta_all or (), any_of=meta_any or ())
        return _shown(found, return_metadata)

    @allow("service")
    async def register(
        self,
        name: str,
        uri: str | URI,
        safe: bool = False,
        metadata: Collection[str] | None = None,
    ) -> None:
        """Register *name* for ever; it is on disk when this returns.

        Raises:
            NamingError: the name is known and *safe* is true, a bound is passed, or the disk
                cannot be written.
            TypeError: an argument is of the wrong type.
        """
        text = str(uri) if isinstance(uri, URI) else uri
        self._table.register(name, text, metadata or (), safe=safe)
        await self._save()

    @allow("service")
    async def set_metadata(self, name: str, metadata: Collection[str] | None) -> None:
        """Replace the tags of *name*; they are on disk when this returns.

        Raises:
            NamingError: the name is unknown, a bound is passed, or the disk cannot be written.
            TypeError: an argument is of the wrong type.
        """
        self._table.set_metadata(_checked_name(name), metadata or ())
        await self._save()

    @allow("service")
    async def remove(
        self, name: str | None = None, prefix: str | None = None, regex: str | None = None
    ) -> int:
        """Forget one name, or all with a prefix or matching a pattern; on disk when this returns.

        Returns:
            How many names were forgotten.

        Raises:
            NamingError: the pattern is not valid, or the disk cannot be written.
            TypeError: the name is no text.
        """
        name = name and _checked_name(name)
        count = self._table.remove(name, prefix=prefix, regex=regex)
        if count:
            await self._save()
        return count

    @allow("service")
    def announce(
        self, name: str, uri: str | URI, lease_s: float, metadata: Collection[str] = ()
    ) -> None:
        """Register *name* for *lease_s* seconds, or renew it; answered before it is on disk.

        Args:
            name: 1 to 200 printable characters.
            uri: where it is.
            lease_s: 0.2 to 60; announce again well before it has passed.
            metadata: tags, in place of those announced before.

        Raises:
            Conflict: a newer service took this name from *uri*, and is alive.
            InvalidRequest: *lease_s* is out of bounds.
            NamingError: another bound is passed.
            TypeError: an argument is of the wrong type.
        """
        text = str(uri) if isinstance(uri, URI) else uri
        self._table.announce(name, text, lease_s, metadata or ())
        self._keeper.save_soon()

    @allow("service")
    def leave(self, name: str, uri: str | URI | None = None) -> bool:
        """Forget *name*, unless it belongs to another URI than *uri* by now.

        Returns:
            Whether it was forgotten.

        Raises:
            TypeError: the name is no text.
        """
        left = self._table.leave(_checked_name(name), None if uri is None else str(uri))
        self._keeper.save_soon()
        return left

    async def _save(self) -> None:
        try:
            await self._keeper.save()
        except sqlite3.Error as error:
            raise NamingError(
                f"done, but a restart of the name server would undo it: its disk says {error}"
            ) from error


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    return name


def _shown(found: Mapping[str, Registration], return_metadata: bool) -> Tagged:
    if return_metadata:
        return {name: (known.uri, set(known.metadata)) for name, known in found.items()}
    return {name: known.uri for name, known in found.items()}
