"""One process's way to the cluster: a client, and a new one whenever that has ended.

The client is ended as soon as its last connection breaks: by itself it would try to connect again,
and wait for a member that is frozen for as long as that stays frozen. So there is one place that
connects, this one, and every attempt has a bound. (The client's own way to end with its last
connection, ``ReconnectMode.OFF``, waits for itself when it is shut down, up to 5.7.0.)
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import uuid
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Final

from hazelcast.asyncio import HazelcastClient, Map
from hazelcast.config import IntType
from hazelcast.core import HazelcastJsonValue, MemberInfo
from hazelcast.errors import HazelcastError
from hazelcast.lifecycle import LifecycleState

from rmi_msg.hazelcast import acknowledged
from rmi_msg.hazelcast.others import Others, enough
from rmi_runtime import errors

log = logging.getLogger(__name__)

STEP_S_MAX: Final = 10.0
"""Longest attempt to connect, or to end, in seconds; a member that is busy may need some."""

RETRY_S_MAX: Final = 1.0
"""Longest pause between two attempts to connect, in seconds."""

WAIT_S_MAX: Final = 2.0
"""How long a step waits for a connection before it is refused, in seconds."""

Listener = Callable[[tuple[str, ...]], None]


class Link:
    """A client of the cluster, for as long as the process needs one.

    Args:
        members: ``host:port`` of all members to be expected; those that do not answer are left out.
        cluster: name of the cluster.
        on_members: called with the addresses of the present members whenever they change; with
            none when the connection is lost.
    """

    def __init__(
        self, members: Sequence[str], cluster: str, on_members: Listener = lambda members: None
    ) -> None:
        self._addresses = list(members)
        self._cluster = cluster
        self._on_members = on_members
        self._client: HazelcastClient | None = None
        self._maps: dict[str, Map[Any, Any]] = {}
        self._making: dict[str, asyncio.Task[Map[Any, Any]]] = {}
        self._connected = asyncio.Event()
        self._ended = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._doubted = False
        self._cluster_id: uuid.UUID | None = None
        self._others = Others(members)

    async def __aenter__(self) -> Link:
        # It reports every failed attempt with a traceback; what matters is reported here.
        logging.getLogger("hazelcast").setLevel(logging.CRITICAL)
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._keeper:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        self._others.rest()
        client, self._client = self._client, None
        if client:
            await _apart(client.shutdown())

    @property
    def members(self) -> tuple[str, ...]:
        """Addresses of the present members, the oldest first; none if there is no connection."""
        if self._client is None:
            return ()
        return tuple(_address(member) for member in self._client.cluster_service.get_members())

    async def client(self, wait_s: float = WAIT_S_MAX) -> HazelcastClient:
        """Return the connected client.

        Args:
            wait_s: how long to wait for a connection, in seconds.

        Raises:
            Unavailable: there is none.
        """
        if not self._connected.is_set():
            try:
                async with asyncio.timeout(wait_s):
                    await self._connected.wait()
            except TimeoutError:
                raise errors.Unavailable(
                    f"none of the Hazelcast members {', '.join(self._addresses)} can be reached; "
                    "nothing was written. Start a logger, or look at its member's log"
                ) from None
        assert self._client is not None
        return self._client

    async def map(self, name: str) -> Map[Any, Any]:
        """Return the map *name* of the connected client.

        Raises:
            Unavailable: there is no connection.
        """
        if (found := self._maps.get(name)) is not None and self._connected.is_set():
            return found
        client = await self.client()
        if (making := self._making.get(name)) is None:
            # A member is asked. In a task that no caller's cancellation ends: the client would pass
            # that on to all who ask for the same map.
            making = self._making[name] = asyncio.create_task(client.get_map(name))
            making.add_done_callback(functools.partial(self._made, name))
        return await asyncio.shield(making)

    def _made(self, name: str, making: asyncio.Task[Map[Any, Any]]) -> None:
        if self._making.get(name) is not making:
            return  # for a client that is no more
        del self._making[name]
        if not making.cancelled() and making.exception() is None:
            self._maps[name] = making.result()

    async def put_if_absent(
        self, table: Map[Any, Any], key: object, value: HazelcastJsonValue
    ) -> HazelcastJsonValue | None:
        """Put, if absent; see :mod:`~rmi_msg.hazelcast.acknowledged`.

        Raises:
            NoBackup: it was put in a part of the cluster that may have to give way to another.
        """
        client = await self.client()
        found = await acknowledged.put_if_absent(client, table, key, value)
        if found is None:
            await self._check_part(client)
        return found

    async def replace(
        self,
        table: Map[Any, Any],
        key: object,
        old: HazelcastJsonValue,
        new: HazelcastJsonValue,
    ) -> bool:
        """Compare and set; see :mod:`~rmi_msg.hazelcast.acknowledged`.

        Raises:
            NoBackup: it was set in a part of the cluster that may have to give way to another.
        """
        client = await self.client()
        replaced = await acknowledged.replace(client, table, key, old, new)
        if replaced:
            await self._check_part(client)
        return replaced

    async def _check_part(self, client: HazelcastClient) -> None:
        """See that no other part of the cluster can be going on without the one we know."""
        members = client.cluster_service.get_members()
        if enough(len(members), self._others.expected):
            return
        if living := await self._others.living([_address(member) for member in members]):
            raise acknowledged.NoBackup(
                f"{len(members)} of {self._others.expected} members are together, and "
                f"{', '.join(living)} lives without them: nothing is acknowledged until it has "
                "joined, or is gone"
            )

    def doubt(self, why: BaseException) -> None:
        """Take note that a step failed and is repeated; said once per trouble."""
        if not self._doubted:
            self._doubted = True
            log.warning("the cluster did not answer as it should, trying on: %s", _say(why))

    async def _keep(self) -> None:
        pause_s = 0.1
        while True:
            self._ended.clear()
            client = await self._connect()
            if client is None:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_S_MAX)
                continue
            pause_s = 0.1
            self._client = client
            self._maps, self._making = {}, {}
            self._doubted = False
            self._connected.set()
            self._compare(client._connection_manager._cluster_id)
            self._changed()
            await self._ended.wait()
            self._connected.clear()
            self._client = None
            log.warning("the connection to the cluster is lost, connecting anew")
            self._tell(())
            await _apart(client.shutdown())

    def _compare(self, cluster_id: uuid.UUID | None) -> None:
        """Say so if this is another cluster: nobody else would tell that messages are gone."""
        if self._cluster_id not in (None, cluster_id):
            log.warning(
                "the Hazelcast cluster is another one than before, begun anew: messages that only "
                "the one before held are lost"
            )
        self._cluster_id = cluster_id

    async def _connect(self) -> HazelcastClient | None:
        client = HazelcastClient(**self._configuration())
        heartbeats = client._connection_manager._heartbeat_manager
        heartbeats._invocation_service = _Pings(heartbeats._invocation_service)
        # Not create_and_start(): that leaves a half-started client behind when it is cancelled.
        try:
            why = await _apart(client._start())
        except BaseException:
            await _apart(client.shutdown())
            raise
        if why is None and not self._ended.is_set():
            return client
        log.debug("no connection to the cluster: %s", why or "it was lost again at once")
        await _apart(client.shutdown())
        return None

    def _configuration(self) -> dict[str, Any]:
        """Return the client's settings; ``docs/hazelcast.md`` says why each is as it is."""
        return {
            "cluster_name": self._cluster,
            "cluster_members": self._addresses,
            "cluster_connect_timeout": 0.5,
            "connection_timeout": 2.0,
            "redo_operation": False,
            "fail_on_indeterminate_operation_state": True,
            "operation_backup_timeout": 1.0,
            "invocation_timeout": 5.0,
            "invocation_retry_pause": 0.1,
            "heartbeat_interval": 1.0,
            "heartbeat_timeout": 5.0,
            "default_int_type": IntType.LONG,
            "lifecycle_listeners": [self._on_lifecycle],
            "membership_listeners": [(self._on_member, self._on_member)],
        }

    def _on_lifecycle(self, state: str) -> None:
        if state in (LifecycleState.DISCONNECTED, LifecycleState.SHUTTING_DOWN):
            self._ended.set()

    def _on_member(self, member: MemberInfo) -> None:
        # The client's list is brought up to date just after its listeners were called.
        asyncio.get_running_loop().call_soon(self._changed)

    def _changed(self) -> None:
        if self._connected.is_set() and (members := self.members):
            if enough(len(members), self._others.expected):
                self._others.rest()
            self._tell(members)

    def _tell(self, members: tuple[str, ...]) -> None:
        try:
            self._on_members(members)
        except Exception:  # such as no descriptors left: who is told must not cost the connection
            log.exception("the change of the cluster's members was not dealt with")


class _Pings:
    """Sends the client's pings, and keeps their failures.

    The client makes a task of each and never looks at it: one that a frozen member did not answer
    would be reported by asyncio, with a traceback. That a member is silent is told elsewhere.

    Args:
        service: sends the client's requests.
    """

    def __init__(self, service: Any) -> None:
        self._service = service

    async def ainvoke(self, ping: Any) -> None:
        """Send one, and return when it was answered, or never will be."""
        with contextlib.suppress(HazelcastError, OSError):
            await self._service.ainvoke(ping)


async def _apart(step: Coroutine[Any, Any, Any]) -> str | None:
    """Run one of the client's own steps in a task of its own, for a bounded time.

    The client uses TaskGroups. Until Python 3.13 one that fails may leave a cancellation behind,
    which would hit whatever its caller awaits next.

    Returns:
        None if it came to its end; if not, what became of it.
    """
    task = asyncio.create_task(step)
    try:
        await asyncio.wait({task}, timeout=STEP_S_MAX)
    finally:
        task.cancel()
    await asyncio.wait({task}, timeout=STEP_S_MAX)
    if not task.done() or task.cancelled():
        return f"it did not end within {STEP_S_MAX:g} s"
    error = task.exception()
    return None if error is None else _say(error)


def _address(member: MemberInfo) -> str:
    return f"{member.address.host}:{member.address.port}"


def _say(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _say(error.exceptions[0])
    return f"{type(error).__name__}: {error}".partition("\n")[0][:300]
