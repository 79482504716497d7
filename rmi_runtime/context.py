"""Who is calling, and how long they will wait: what a remote method may ask about its call."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from rmi_runtime import errors, wire

Renew = Callable[[], Awaitable["Identity"]]
"""Asks again who a caller is; raises, as an authenticator does, if it may not call any more."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is at the other end of a connection.

    Attributes:
        kind: ``anonymous``, ``client`` (showed a token) or ``service`` (showed the cluster key).
        client: the client's number, if it is one.
        role: the client's role, if it is one: ``teller``, ``customer`` or ``admin``.
        renew: asks again whether this is so; the daemon does every now and then, before it carries
            out a call. None: it is so for as long as the connection lasts.
    """

    kind: str = "anonymous"
    client: int | None = None
    role: str | None = None
    renew: Renew | None = field(default=None, compare=False, repr=False)


ANONYMOUS = Identity()
SERVICE = Identity("service")


class Connection(Protocol):
    """What a remote method may know of the connection it is called through."""

    id: int
    identity: Identity
    peer: object
    correlation_uuid: uuid.UUID

    @property
    def over(self) -> bool:
        """True once the connection has ended; a stock client's calls go on without it."""
        ...

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have *callback* called when the connection ends; the result takes it back."""
        ...


_NO_MESSAGE = wire.Message(wire.MSG_INVOKE, 0, 0, 0, b"")


class Call:
    """One call under way.

    Attributes:
        identity: who calls.
        connection: the connection it came through; None in :func:`call_as`.
        message: the request as received.
        deadline: ``time.monotonic()`` after which nobody waits any more, or None.
        begun: whether the method has begun: until then, what goes wrong is the caller's doing.
        response_annotations: fill this to send annotations back.
    """

    __slots__ = ("begun", "connection", "deadline", "identity", "message", "response_annotations")

    def __init__(
        self,
        identity: Identity,
        connection: Connection | None = None,
        message: wire.Message = _NO_MESSAGE,
        deadline: float | None = None,
    ) -> None:
        self.identity = identity
        self.connection = connection
        self.message = message
        self.deadline = deadline
        self.begun = False
        self.response_annotations: dict[str, bytes] = {}

    @property
    def annotations(self) -> Mapping[str, bytes]:
        """What the client sent along."""
        return self.message.annotations or {}

    @property
    def correlation_id(self) -> bytes | None:
        """16 bytes, or None if the client sent none."""
        return self.message.correlation_id

    def remaining_s(self, default_s: float) -> float:
        """Return how many seconds the caller still waits; *default_s* if it set no deadline."""
        if self.deadline is None:
            return default_s
        return max(0.0, self.deadline - time.monotonic())

    def correlation_uuid(self) -> uuid.UUID | None:
        """Return the correlation id as a UUID, or None if the client sent none."""
        return uuid.UUID(bytes=self.correlation_id) if self.correlation_id else None


current: ContextVar[Call] = ContextVar("rmi_call")


def current_call() -> Call:
    """Return the call that the running code serves.

    Raises:
        LookupError: it serves none; :func:`call_as` makes it seem so.
    """
    try:
        return current.get()
    except LookupError:
        raise LookupError(
            "this runs outside a call, so nobody knows who calls; a test, or a call inside a "
            "process, says it: with call_as(identity)"
        ) from None


@contextlib.contextmanager
def call_as(identity: Identity, *, deadline: float | None = None) -> Iterator[Call]:
    """Run a block as if it were called by *identity*: for tests and for calls inside a process.

    Args:
        identity: who shall seem to call.
        deadline: ``time.monotonic()`` after which nobody waits.

    Yields:
        The call that :func:`current_call` returns in the block.
    """
    call = Call(identity, deadline=deadline)
    token = current.set(call)
    try:
        yield call
    finally:
        current.reset(token)


Exposed = TypeVar("Exposed", bound=Callable[..., Any] | type)


def allow(*words: str) -> Callable[[Exposed], Exposed]:
    """Let only some callers use a remote method, or any method of a class.

    Args:
        words: kinds (``client``, ``service``) and roles (``teller``, …); one that fits is enough.

    Returns:
        A decorator. A method's own words count, not its class's, if both have some.
    """
    if not words:
        raise TypeError("allow() needs at least one kind or role, such as allow('service')")

    def mark(thing: Exposed) -> Exposed:
        thing._rmi_allow = frozenset(words)  # type: ignore[union-attr]
        return thing

    return mark


def check_allowed(words: frozenset[str], identity: Identity, what: str) -> None:
    """Refuse a caller who fits none of *words*.

    Raises:
        errors.Unauthenticated: nobody said who is calling.
        errors.Forbidden: it is known who is calling, and that is not enough.
    """
    if identity.kind in words or identity.role in words:
        return
    needed = " or ".join(sorted(words))
    if identity.kind == ANONYMOUS.kind:
        send = "the cluster key" if words == {SERVICE.kind} else "a token or the cluster key"
        raise errors.Unauthenticated(
            f"{what} needs a caller known as {needed}: send {send} in the connection handshake"
        )
    raise errors.Forbidden(f"{what} is for {needed} only")
