"""What a name server knows, and for how long: plain decisions, with a clock that is handed in.

A name is *registered* for ever (as with Pyro5's own name server) or *announced* under a lease: then
it is dropped when the lease has run out without being renewed. When two living services announce
the same name, the one that came last has it, and the renewals of the earlier one are refused for as
long as the later one lives: otherwise the two would take it from each other for ever.

Everything is bounded: how many names, how long each text, and the time of a look-up by pattern
(RE2 matches in time linear in the length of the name).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import re2
from Pyro5.core import NAMESERVER_NAME, URI
from Pyro5.errors import NamingError

from rmi_runtime import errors

DRAINING = "rmi.draining"
"""The tag of a service that takes nothing new."""

_SUPERSEDED_MAX = 8
_PATTERN_MEMORY_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class NameLimits:
    """Bounds of a name table. Lengths are in characters, leases in seconds."""

    names_max: int = 4096
    name_length_max: int = 200
    uri_length_max: int = 512
    tags_max: int = 64
    tag_length_max: int = 200
    pattern_length_max: int = 200
    lease_s_min: float = 0.2
    lease_s_max: float = 60.0


@dataclass(frozen=True, slots=True)
class Registration:
    """What is known of a name.

    Attributes:
        uri: where it is, as ``PYRO:object@host:port``.
        metadata: its tags.
        lease_s: how long it lives without being renewed; None if for ever.
    """

    uri: str
    metadata: frozenset[str] = frozenset()
    lease_s: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What a look-up tells of a name.

    Attributes:
        uri: where it is.
        metadata: its tags.
    """

    uri: str
    metadata: frozenset[str] = frozenset()

    @property
    def draining(self) -> bool:
        """Whether it finishes what it has and takes nothing new."""
        return DRAINING in self.metadata


@dataclass(slots=True)
class _Name:
    registration: Registration
    expires_at: float = math.inf
    superseded: list[str] = field(default_factory=list)  # uris that held this name before


class NameTable:
    """Names, their URIs and tags.

    Args:
        clock: monotonic, in seconds.
        limits: bounds.

    Every method first drops what has expired, so nothing dead is ever returned.
    """

    def __init__(self, clock: Callable[[], float], limits: NameLimits | None = None) -> None:
        self._clock = clock
        self._limits = limits or NameLimits()
        self._names: dict[str, _Name] = {}
        self._earliest = math.inf  # nothing expires before this
        self._changed: set[str] = set()

    def __len__(self) -> int:
        self.sweep()
        return len(self._names)

    @property
    def changed(self) -> bool:
        """Whether :meth:`take_changes` has something to tell."""
        return bool(self._changed)

    def get(self, name: str) -> Registration:
        """Return what is known of *name*.

        Raises:
            NamingError: the name is unknown.
        """
        self.sweep()
        found = self._names.get(name)
        if found is None:
            raise NamingError(f"unknown name: {_shown(name)}")
        return found.registration

    def register(
        self, name: str, uri: str, metadata: Iterable[str] = (), *, safe: bool = False
    ) -> None:
        """Register *name* for ever, in place of what had that name before.

        Args:
            name: 1 to 200 printable characters.
            uri: a Pyro URI.
            metadata: tags.
            safe: refuse if the name is known already.

        Raises:
            NamingError: the name is known and *safe* is true, or a bound is passed.
            TypeError: an argument is of the wrong type.
        """
        registration = self._checked(name, uri, metadata, None)
        if safe and name in self._names:
            raise NamingError(f"name already registered: {name}")
        self._names[name] = _Name(registration)
        self._changed.add(name)

    def announce(self, name: str, uri: str, lease_s: float, metadata: Iterable[str] = ()) -> None:
        """Register *name* for *lease_s* seconds, or renew it.

        Args:
            name: 1 to 200 printable characters.
            uri: a Pyro URI.
            lease_s: life of the name if it is not announced again.
            metadata: tags, in place of those announced before.

        Raises:
            Conflict: another service took this name from *uri* and is alive.
            InvalidRequest: *lease_s* is out of bounds.
            NamingError: another bound is passed.
            TypeError: an argument is of the wrong type.
        """
        registration = self._checked(name, uri, metadata, self._checked_lease_s(lease_s))
        known = self._names.get(name)
        if known is None:
            known = self._names[name] = _Name(registration)
            self._changed.add(name)
        elif known.registration != registration:
            if uri != known.registration.uri:
                self._supersede(name, known, uri)
            known.registration = registration
            self._changed.add(name)
        known.expires_at = self._clock() + lease_s
        self._earliest = min(self._earliest, known.expires_at)

    def leave(self, name: str, uri: str | None = None) -> bool:
        """Forget *name*, unless it belongs to another URI than *uri* by now.

        Returns:
            Whether the name was known and is forgotten.
        """
        self.sweep()
        known = self._names.get(name)
        if known is None or (uri is not None and known.registration.uri != uri):
            return False
        return self._forget([name]) == 1

    def set_metadata(self, name: str, metadata: Iterable[str]) -> None:
        """Replace the tags of *name*.

        Raises:
            NamingError: the name is unknown, or a bound is passed.
            TypeError: *metadata* is not a collection of strings.
        """
        known = self.get(name)
        self._refuse_own(name)
        tags = self._checked_tags(metadata)
        self._names[name].registration = Registration(known.uri, tags, known.lease_s)
        self._changed.add(name)

    def remove(
        self, name: str | None = None, *, prefix: str | None = None, regex: str | None = None
    ) -> int:
        """Forget one name, or all that match; never the name server's own.

        Returns:
            How many names were forgotten.

        Raises:
            NamingError: the pattern is not valid.
        """
        self.sweep()
        if name and name != NAMESERVER_NAME:
            return self._forget([name])
        return self._forget(list(self.entries(prefix, regex))) if prefix or regex else 0

    def entries(
        self, prefix: str | None = None, regex: str | None = None
    ) -> dict[str, Registration]:
        """Return what is registered, by name.

        Args:
            prefix: only names that start with this.
            regex: only names that match this from their start (RE2 syntax).

        Raises:
            ValueError: both are given.
            TypeError: the prefix is no string.
            NamingError: the pattern is not valid.
        """
        if prefix and regex:
            raise ValueError("you can only filter on one thing at a time")
        if prefix and not isinstance(prefix, str):
            raise TypeError(f"prefix must be a str, not {type(prefix).__name__}")
        self.sweep()
        names: Iterable[str] = self._names
        if prefix:
            names = [name for name in names if name.startswith(prefix)]
        elif regex:
            names = self._matching(regex)
        return {name: self._names[name].registration for name in names}

    def search(
        self, *, all_of: Collection[str] = (), any_of: Collection[str] = ()
    ) -> dict[str, Registration]:
        """Return what has all, or any, of some tags; nothing if none are given.

        Raises:
            NamingError: a bound is passed.
            TypeError: not a collection of strings.
        """
        self.sweep()
        if all_of:
            wanted = self._checked_tags(all_of)
            return {n: r for n, r in self._registrations() if wanted <= r.metadata}
        if any_of:
            wanted = self._checked_tags(any_of)
            return {n: r for n, r in self._registrations() if wanted & r.metadata}
        return {}

    def pin(self, uri: str, metadata: Iterable[str]) -> None:
        """Enter the name server's own name, which no caller can change or remove."""
        self._names[NAMESERVER_NAME] = _Name(Registration(uri, frozenset(metadata)))

    def sweep(self) -> int:
        """Drop what has expired, and return how many names that were."""
        now = self._clock()
        if now < self._earliest:
            return 0
        dead = [name for name, known in self._names.items() if known.expires_at <= now]
        count = self._forget(dead)
        self._earliest = min((known.expires_at for known in self._names.values()), default=math.inf)
        return count

    def restore(self, stored: Mapping[str, Registration]) -> None:
        """Take over what was known before a restart: every lease begins anew, in full."""
        now = self._clock()
        for name, registration in stored.items():
            lease_s = registration.lease_s
            expires_at = math.inf if lease_s is None else now + lease_s
            self._names[name] = _Name(registration, expires_at)
            self._earliest = min(self._earliest, expires_at)

    def take_changes(self) -> dict[str, Registration | None]:
        """Return what changed since the last time, by name; None stands for forgotten names.

        A renewal that changes nothing but the time is no change.
        """
        self.sweep()
        changed, self._changed = self._changed, set()
        return {
            name: known.registration if (known := self._names.get(name)) else None
            for name in changed
        }

    def _registrations(self) -> Iterator[tuple[str, Registration]]:
        return ((name, known.registration) for name, known in self._names.items())

    def _forget(self, names: Iterable[str]) -> int:
        count = 0
        for name in names:
            if name != NAMESERVER_NAME and self._names.pop(name, None) is not None:
                self._changed.add(name)
                count += 1
        return count

    def _supersede(self, name: str, known: _Name, uri: str) -> None:
        if uri in known.superseded:
            raise errors.Conflict(
                f"{name} was taken over by {known.registration.uri}, which is alive; stop one of "
                "the two services or give one of them another name",
                uri=known.registration.uri,
            )
        known.superseded = [*known.superseded, known.registration.uri][-_SUPERSEDED_MAX:]

    def _refuse_own(self, name: str) -> None:
        if name == NAMESERVER_NAME:
            raise NamingError(f"{NAMESERVER_NAME} is the name server's own name: choose another")

    def _checked(
        self, name: str, uri: str, metadata: Iterable[str], lease_s: float | None
    ) -> Registration:
        self.sweep()
        limits = self._limits
        if not isinstance(name, str):
            raise TypeError("name must be a str")
        if not isinstance(uri, str):
            raise TypeError("only URIs or strings can be registered")
        if not 1 <= len(name) <= limits.name_length_max or not name.isprintable():
            raise NamingError(f"a name has 1 to {limits.name_length_max} printable characters")
        if len(uri) > limits.uri_length_max or not uri.isprintable():
            raise NamingError(f"a URI has at most {limits.uri_length_max} printable characters")
        URI(uri)
        self._refuse_own(name)
        tags = self._checked_tags(metadata)
        if name not in self._names and len(self._names) >= limits.names_max:
            raise NamingError(f"this name server is full: it holds {limits.names_max} names")
        return Registration(uri, tags, lease_s)

    def _checked_tags(self, metadata: Iterable[str]) -> frozenset[str]:
        limits = self._limits
        if isinstance(metadata, str):
            raise TypeError("metadata should not be a str, but another iterable (set, list, etc)")
        given = tuple(metadata) if isinstance(metadata, Iterable) else (metadata,)
        if not all(isinstance(tag, str) for tag in given):
            raise TypeError("metadata must be a collection of strings")
        tags = frozenset(given)
        longest = limits.tag_length_max
        if len(tags) > limits.tags_max or not all(
            tag.isprintable() and len(tag) <= longest for tag in tags
        ):
            raise NamingError(
                f"metadata has at most {limits.tags_max} tags of {longest} printable characters"
            )
        return tags

    def _checked_lease_s(self, lease_s: float) -> float:
        low, high = self._limits.lease_s_min, self._limits.lease_s_max
        if isinstance(lease_s, bool) or not isinstance(lease_s, (int, float)):
            raise TypeError("lease_s must be a number of seconds")
        if not low <= lease_s <= high:
            raise errors.InvalidRequest(
                f"a lease lasts from {low} to {high} seconds, not {errors.shown(lease_s)}",
                field="lease_s",
            )
        return float(lease_s)

    def _matching(self, pattern: str) -> list[str]:
        limit = self._limits.pattern_length_max
        if not isinstance(pattern, str) or len(pattern) > limit:
            raise NamingError(f"invalid regex: a pattern is a string of at most {limit} characters")
        options = re2.Options()
        options.max_mem = _PATTERN_MEMORY_BYTES_MAX
        options.log_errors = False
        try:
            match = re2.compile(pattern, options).match
        except (re2.error, UnicodeError) as error:
            reason = error.args[0] if error.args else error
            text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
            raise NamingError(
                f"invalid regex: {text} (this name server understands RE2 syntax: no look-around, "
                "no back-references)"
            ) from None
        return [name for name in self._names if match(name)]


def _shown(name: object) -> str:
    text = str(name)
    return text if len(text) <= 200 else text[:200] + "…"
