"""The two writing steps, with a look at who acknowledged them.

The client waits for as many backups as the owner says it has told. That number is not the client's
to see, and a member that was frozen and comes back alone, not knowing yet that the others went on
without it, says none: it would acknowledge a write that is thrown away a moment later. So a change
counts only if at least one backup has it, as long as the client knows of a second member.

The steps are those of the client's own ``Map``, built from the same codecs, since the number is in
the answer's header. This module is the only one that knows the requests.

Each call is one attempt. The client would repeat by itself what a member refused, and count the
acknowledgements of its first attempt for the second: here every repetition is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hazelcast.asyncio import HazelcastClient, Map
from hazelcast.core import HazelcastJsonValue
from hazelcast.errors import HazelcastError
from hazelcast.internal.asyncio_invocation import Invocation
from hazelcast.protocol.codec import map_put_if_absent_codec, map_replace_if_same_codec

_THREAD: Final = 1
"""Matters only to locks on keys, which nobody uses here."""

_TTL_MS: Final = -1
"""As the map is configured: for ever."""

_LONG_AGO_S: Final = 1.0
"""Until when the client may repeat an attempt, in seconds since 1970."""


class NoBackup(HazelcastError):
    """A member made the change, and told nobody of it although there are others."""


async def put_if_absent(
    client: HazelcastClient, table: Map[Any, Any], key: object, value: HazelcastJsonValue
) -> HazelcastJsonValue | None:
    """Put *value* unless *key* has one; return the one it has.

    Raises:
        NoBackup: it was put where no other member knows of it.
        HazelcastError: nobody can say.
    """

    def answer(message: Any) -> HazelcastJsonValue | None:
        existing: HazelcastJsonValue | None = table._to_object(
            map_put_if_absent_codec.decode_response(message)
        )
        if existing is None:
            _check_backups(client, message)
        return existing

    key_data = table._to_data(key)
    request = map_put_if_absent_codec.encode_request(
        table.name, key_data, table._to_data(value), _THREAD, _TTL_MS
    )
    found: HazelcastJsonValue | None = await _once(table, request, key_data, answer)
    return found


async def replace(
    client: HazelcastClient,
    table: Map[Any, Any],
    key: object,
    old: HazelcastJsonValue,
    new: HazelcastJsonValue,
) -> bool:
    """Replace *old* by *new*, if *key* has it; return whether it had.

    Raises:
        NoBackup: it was replaced where no other member knows of it.
        HazelcastError: nobody can say.
    """

    def answer(message: Any) -> bool:
        replaced = bool(map_replace_if_same_codec.decode_response(message))
        if replaced:
            _check_backups(client, message)
        return replaced

    key_data = table._to_data(key)
    request = map_replace_if_same_codec.encode_request(
        table.name, key_data, table._to_data(old), table._to_data(new), _THREAD
    )
    return bool(await _once(table, request, key_data, answer))


async def _once(
    table: Map[Any, Any], request: Any, key_data: Any, answer: Callable[[Any], Any]
) -> Any:
    """Send *request* to the owner of a key, once."""
    partition = table._partition_service.get_partition_id(key_data)
    invocation = Invocation(
        request, partition_id=partition, response_handler=answer, timeout=_LONG_AGO_S
    )
    return await table._invocation_service.ainvoke(invocation)


def _check_backups(client: HazelcastClient, message: Any) -> None:
    members = len(client.cluster_service.get_members())
    if members > 1 and message.get_number_of_backup_acks() < 1:
        raise NoBackup(f"a write has no backup although there are {members} members")
