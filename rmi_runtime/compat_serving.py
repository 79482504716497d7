"""What is below :class:`rmi_runtime.compat.Daemon`: the asyncio daemon, with stock's hooks."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from Pyro5.client import Proxy
from Pyro5.core import URI
from Pyro5.errors import PyroError

from rmi_runtime.connection import ServerConnection
from rmi_runtime.context import ANONYMOUS, Identity
from rmi_runtime.daemon import Daemon
from rmi_runtime.serializers import MakeProxy, Serializer, make_serializers

log = logging.getLogger(__name__)


class Facade(Protocol):
    """What programs override."""

    def overrides(self, method: str) -> bool: ...

    def validateHandshake(self, conn: Any, data: object) -> object: ...

    def clientDisconnect(self, conn: Any) -> None: ...

    def annotations(self) -> dict[str, bytes]: ...

    def uriFor(self, objectOrId: Any, nat: bool = True) -> URI: ...


def _stock_proxy(serializer: str) -> MakeProxy:
    """Return what makes Pyro5's own proxies of the serialized ones that come in."""

    def make(state: Any) -> Any:
        if not isinstance(state, (list, tuple)) or len(state) != 6 or not isinstance(state[0], str):
            raise PyroError("a serialized proxy makes no sense: expected six values, a URI first")
        proxy = Proxy.__new__(Proxy)
        proxy.__setstate__(state)
        proxy._pyroSerializer = proxy._pyroSerializer or serializer  # which its owner understands
        return proxy

    return make


_SERIALIZERS: Final[Mapping[int, Serializer]] = {
    serializer.serializer_id: serializer for serializer in make_serializers(_stock_proxy).values()
}


class Connection(ServerConnection):
    """A connection with the methods of Pyro5's ``SocketConnection`` that programs use."""

    def getpeercert(self) -> Any:
        """Return the client's certificate as a dictionary, or None."""
        return self._transport.get_extra_info("peercert")

    def family(self) -> str:
        """Return ``IPv4``, ``IPv6`` or ``Unix``."""
        families = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6", socket.AF_UNIX: "Unix"}
        return families.get(self.sock.family, "???")

    def fileno(self) -> int:
        """Return the file descriptor of the socket."""
        number: int = self.sock.fileno()
        return number


class Serving(Daemon):
    """The asyncio daemon, asking the one that looks like stock what it may override.

    Args:
        facade: the one that looks like stock.
        host: as :class:`rmi_runtime.Daemon`.
        port: as :class:`rmi_runtime.Daemon`.
        options: as :class:`rmi_runtime.Daemon`.
    """

    def __init__(self, facade: Facade, host: str, port: int, **options: Any) -> None:
        super().__init__(host, port, **options)
        self._facade = facade
        self._greetings: dict[ServerConnection, object] = {}

    def _new_connection(self) -> ServerConnection:
        self._connection_count += 1
        return Connection(self, self._connection_count)

    def authenticate(
        self, handshake: object, connection: ServerConnection
    ) -> Identity | Awaitable[Identity]:
        """Ask ``validateHandshake``, if it is overridden."""
        if not self._facade.overrides("validateHandshake"):
            return ANONYMOUS
        return self._ask(handshake, connection)

    async def _ask(self, handshake: object, connection: ServerConnection) -> Identity:
        validate = self._facade.validateHandshake
        self._greetings[connection] = await self.apart(validate, connection, handshake)
        return ANONYMOUS

    async def apart(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call what may block where it may."""
        if self.executor is None:
            return function(*args)
        return await self.loop.run_in_executor(self.executor, function, *args)

    def greeting(self, handshake: object, connection: ServerConnection) -> object:
        """Return what ``validateHandshake`` returned."""
        return self._greetings.pop(connection, "hello")

    def annotations(self) -> dict[str, bytes]:
        """Ask the facade."""
        return self._facade.annotations()

    def dismiss(self, connection: ServerConnection) -> None:
        """Tell ``clientDisconnect``, if it is overridden."""
        super().dismiss(connection)
        self._greetings.pop(connection, None)
        if not self._facade.overrides("clientDisconnect"):
            return
        try:
            if self.executor is not None and not self._closed:
                self.executor.submit(self._tell, connection)
            else:
                self._tell(connection)
        except RuntimeError:  # the interpreter ends, and takes no more work
            log.info("the end of connection %d is told nobody", connection.id)

    def _tell(self, connection: ServerConnection) -> None:
        try:
            self._facade.clientDisconnect(connection)
        except Exception:
            log.exception("clientDisconnect failed")

    def serializer(self, serializer_id: int) -> Serializer:
        """Return the serializer with this number, one that makes blocking proxies."""
        return _SERIALIZERS.get(serializer_id) or super().serializer(serializer_id)

    def uri_for(self, obj_or_name: Any) -> URI:
        """Return the URI at which clients reach an object."""
        return self._facade.uriFor(obj_or_name)
