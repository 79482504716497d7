"""Who is at the other end of a connection: the handshake, server side, and whether it still holds.

The messages themselves are made and read in :mod:`~rmi_runtime.daemon.handshake`.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, cast

from rmi_runtime import errors, wire
from rmi_runtime.context import ANONYMOUS, Identity, Renew
from rmi_runtime.daemon import handshake
from rmi_runtime.daemon.faults import Held, is_fault
from rmi_runtime.sparse_log import sparse_logger

if TYPE_CHECKING:
    from rmi_runtime.daemon.connection import ServerConnection
    from rmi_runtime.daemon.connections import Connections

log = sparse_logger(__name__)

NEW, GREETING, OPEN, CLOSED = range(4)
"""How far a connection is. While it greets, or asks anew who the caller is, requests wait."""


class Greeted(Held):
    """What begins with a handshake: a base class of connections.

    Attributes:
        id: number of the connection in its daemon.
        identity: who is at the other end.
        peer: the other end's address, as the socket gives it.
        pipelining: replies may leave in any order.
        parser: cuts what the other end sends into messages.
        elements_max: bound on the values in one message from this peer.
    """

    in_turn = False  # whether a plain method begins when the one before has ended

    id: int
    peer: object
    parser: wire.Parser
    elements_max: int
    _book: Connections
    _transport: asyncio.Transport

    def __init__(self) -> None:
        super().__init__()
        self.identity: Identity = ANONYMOUS
        self.pipelining = False
        self._state = NEW
        self._greeter: asyncio.Task[None] | None = None
        self._ask_at = math.inf  # when it has to be asked again who the caller is
        self._unknown: Exception | None = None  # why that is not known any more

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Queue one encoded message."""

    @abstractmethod
    def _hang_up(self) -> None:
        """Send what waits, and close."""

    @property
    def _whole(self) -> ServerConnection:
        return cast("ServerConnection", self)

    def _has_to_ask(self) -> bool:
        """Ask who the caller is if that may have changed; return whether its requests must wait."""
        if time.monotonic() < self._ask_at or self.identity.renew is None:
            return False
        self._state = GREETING
        self._greeter = asyncio.ensure_future(self._ask_again(self.identity.renew))
        return True

    def _greet(self, message: wire.Message) -> None:
        self._state = GREETING
        try:
            serializer = self._daemon.serializer(message.serializer_id)
            data = handshake.read_connect(serializer, message, self.elements_max)
            identity = self._daemon.authenticate(data.get("handshake"), self._whole)
        except BaseException as error:
            self._reject(message, error)
            return
        if inspect.isawaitable(identity):
            self._greeter = asyncio.ensure_future(self._greet_later(message, data, identity))
        else:
            self._welcome(message, data, identity)

    async def _greet_later(
        self, message: wire.Message, data: dict[str, Any], identity: Any
    ) -> None:
        try:
            known = await identity
        except BaseException as error:
            self._reject(message, _nobody_knows(error))
            return
        if self._state == GREETING:
            self._welcome(message, data, known)

    def _welcome(self, message: wire.Message, data: dict[str, Any], identity: Identity) -> None:
        try:
            handshake.check_certificate(identity, self._transport)
            size_bytes_max, elements_max = self._daemon.bounds(identity)
            reply = {
                "handshake": self._daemon.greeting(data.get("handshake"), self._whole),
                "meta": handshake.metadata(self._daemon.objects.metadata(data["object"])),
            }
            payload = self._daemon.serializer(message.serializer_id).dumps(reply)
            always = self._daemon.welcome_annotations(self._whole)
            grant = wire.grant(size_bytes_max, self.in_turn)
            welcome = handshake.encode_welcome(message, payload, always, grant)
        except Exception as error:
            self._reject(message, error)
            return
        except BaseException as error:  # of an overridden method; the client is answered
            ended = f"making the answer to the handshake ended with {type(error).__name__}"
            self._reject(message, errors.Unavailable(f"{ended}; nothing was done, try again"))
            return
        self._know(identity, time.monotonic())
        if identity.kind == "client":  # it may have made its faults on another connection
            self.hold_newcomer()
        self.pipelining = handshake.asks_for_pipelining(message)
        self.elements_max = elements_max
        self._state = OPEN
        self.parser.size_bytes_max = size_bytes_max
        self._daemon.greeted(self._whole)
        self.send(welcome)
        if self.parser.more:
            self._go_on_soon()

    def _reject(self, message: wire.Message, error: BaseException) -> None:
        self._book.count_refusal()
        if is_fault(error):
            self.fault()
        said = errors.describe(error)  # it is anybody's, and may not know what to say
        log.info("connection %d from %s rejected: %s", self.id, self.peer, said)
        self.send(handshake.encode_refusal(message, error))
        self._hang_up()

    def _know(self, identity: Identity, asked_at: float) -> None:
        self.identity = identity
        self._unknown = None
        self._ask_at = math.inf if identity.renew is None else asked_at + handshake.KNOWN_S

    async def _ask_again(self, renew: Renew) -> None:
        """Find out whether the caller is still who it was; what has come meanwhile waits."""
        asked_at = time.monotonic()
        try:
            self._know(await renew(), asked_at)
        except BaseException as error:
            self._unknown = _nobody_knows(error)
            why = errors.describe(self._unknown)
            log.info("connection %d from %s is known no longer: %s", self.id, self.peer, why)
            self._ask_at = time.monotonic() + handshake.ASK_AGAIN_S
        if self._state == GREETING:
            self._state = OPEN
            self._go_on_soon()


def _nobody_knows(error: BaseException) -> Exception:
    """Return why it could not be found out who calls; raise again what ends the task that asks."""
    if isinstance(error, Exception):
        return error
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error
    return errors.Unavailable(
        f"who calls could not be found out: asking ended with {type(error).__name__}; nothing was "
        "done, try again"
    )
