"""What each member measures of itself, read without an agent or Management Center.

Any client may send the request with which Management Center polls a member, ``MC.ReadMetrics``. A
member collects its metrics once per period (``metrics`` in the member's configuration) and keeps
the last few collections; each has a sequence number.

This is the only module that knows this request and the form of its answer. Neither is documented;
both are versioned (:data:`BLOB_VERSION`), and an unknown version is refused rather than guessed.

Sources: ``hazelcast-client-protocol`` (``MC.yaml``: message type 0x200100, one uuid and one long),
and the encoder in the Python client, ``hazelcast/metrics.py``, of which :func:`decode_metrics` is
the inverse::

    blob:       version u16 | size of dictionary u32 | dictionary | count u32 | metrics
    dictionary: zlib of: count u32, then per word: id u32, shared u8, own u8, own x UTF-16 unit
                (a word begins with the first ``shared`` letters of the word before)
    metrics:    zlib of: per metric: mask u8, fields, tags, kind u8, value (long or double)
                (a field whose bit is set in the mask is that of the metric before)
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from hazelcast.asyncio import HazelcastClient
from hazelcast.internal.asyncio_invocation import Invocation
from hazelcast.protocol.builtin import (
    ByteArrayCodec,
    FixSizedTypesCodec,
    ListLongCodec,
    ListMultiFrameCodec,
)
from hazelcast.protocol.client_message import (
    REQUEST_HEADER_SIZE,
    RESPONSE_HEADER_SIZE,
    OutboundMessage,
    create_initial_buffer,
)
from hazelcast.serialization.bits import LONG_SIZE_IN_BYTES, UUID_SIZE_IN_BYTES

from rmi_runtime import errors

READ_METRICS: Final = 0x200100
BLOB_VERSION: Final = 1

METRICS_SIZE_BYTES_MAX: Final = 32 * 1024 * 1024
"""Most bytes that one unpacked part of a blob may have."""

_NO_WORD: Final = -1
_SEQUENCE_OFFSET: Final = REQUEST_HEADER_SIZE + UUID_SIZE_IN_BYTES


class Metric(NamedTuple):
    """One measured value.

    Attributes:
        prefix: what it is about, such as ``map`` or ``partitions``; may be empty.
        name: such as ``ownedEntryCount``.
        subject: which of several, such as the name of the map; may be empty.
        value: the number.
    """

    prefix: str
    name: str
    subject: str
    value: float


@dataclass(frozen=True, slots=True)
class Collection:
    """What a member had collected when it was asked.

    Attributes:
        next_sequence: number that the member's next collection will have.
        blob: the newest collection, still packed; empty if there is none since the one asked for.
    """

    next_sequence: int
    blob: bytes


async def read_metrics(
    client: HazelcastClient, member: uuid.UUID | None, from_sequence: int = 0
) -> Collection:
    """Ask one member for what it has collected.

    Args:
        client: a connected client.
        member: uuid of the member.
        from_sequence: leave out collections before this one.

    Returns:
        The newest collection.

    Raises:
        hazelcast.errors.HazelcastError: the member did not answer.
    """
    buffer = create_initial_buffer(_SEQUENCE_OFFSET + LONG_SIZE_IN_BYTES, READ_METRICS, True)
    FixSizedTypesCodec.encode_uuid(buffer, REQUEST_HEADER_SIZE, member)
    FixSizedTypesCodec.encode_long(buffer, _SEQUENCE_OFFSET, from_sequence)
    invocation = Invocation(
        OutboundMessage(buffer, True), uuid=member, response_handler=_decode_response
    )
    found: Collection = await client._invocation_service.ainvoke(invocation)
    return found


def _decode_response(message: Any) -> Collection:
    frame = message.next_frame()
    next_sequence = FixSizedTypesCodec.decode_long(frame.buf, RESPONSE_HEADER_SIZE)
    blobs = ListMultiFrameCodec.decode(message, ByteArrayCodec.decode)
    ListLongCodec.decode(message)  # when each was collected, by the member's clock
    return Collection(next_sequence, bytes(blobs[-1]) if blobs else b"")


def decode_metrics(blob: bytes) -> Iterator[Metric]:
    """Unpack a collection.

    Args:
        blob: as :func:`read_metrics` returns it.

    Yields:
        Its metrics, in the member's order.

    Raises:
        InternalError: it is of another version, or damaged.
    """
    try:
        version, size = struct.unpack_from(">HI", blob)
        if version != BLOB_VERSION:
            raise errors.InternalError(
                f"the member packs its metrics in version {version}, and this program reads "
                f"{BLOB_VERSION}: use the pinned version of Hazelcast"
            )
        words = _decode_words(_unpacked(blob[6 : 6 + size]))
        (count,) = struct.unpack_from(">I", blob, 6 + size)
        yield from _decode_values(_unpacked(blob[10 + size :]), count, words)
    except (struct.error, zlib.error, KeyError, IndexError) as error:
        raise errors.InternalError(f"a member's metrics cannot be read: {error!r}") from error


def _unpacked(data: bytes) -> bytes:
    inflate = zlib.decompressobj()
    plain = inflate.decompress(data, METRICS_SIZE_BYTES_MAX)
    if inflate.unconsumed_tail:
        raise errors.InternalError(f"a member's metrics exceed {METRICS_SIZE_BYTES_MAX} bytes")
    return plain


def _decode_words(data: bytes) -> dict[int, str]:
    (count,) = struct.unpack_from(">I", data)
    words = {_NO_WORD: ""}
    offset = 4
    word = ""
    for _ in range(count):
        number, shared, own = struct.unpack_from(">iBB", data, offset)
        end = offset + 6 + 2 * own
        word = word[:shared] + data[offset + 6 : end].decode("utf-16-be")
        words[number] = word
        offset = end
    return words


def _decode_values(data: bytes, count: int, words: dict[int, str]) -> Iterator[Metric]:
    prefix = name = subject = ""
    tag_count = 0
    reader = _Reader(data)
    for _ in range(count):
        mask = reader.byte()
        if not mask & 1:
            prefix = words[reader.number()]
        if not mask & 2:
            name = words[reader.number()]
        if not mask & 4:
            reader.number()  # what the subject is called: "name", "partitionId", ...
        if not mask & 8:
            subject = words[reader.number()]
        if not mask & 16:
            reader.byte()  # unit
        if not mask & 32:
            reader.byte()  # who is not to see it
        if not mask & 64:
            tag_count = reader.byte()
        reader.skip(8 * tag_count)
        is_double = reader.byte()
        yield Metric(prefix, name, subject, reader.double() if is_double else reader.long())


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def skip(self, size_bytes: int) -> None:
        self._offset += size_bytes

    def byte(self) -> int:
        self._offset += 1
        return self._data[self._offset - 1]

    def number(self) -> int:
        return int(self._take(">i", 4))

    def long(self) -> int:
        return int(self._take(">q", 8))

    def double(self) -> float:
        return float(self._take(">d", 8))

    def _take(self, form: str, size_bytes: int) -> float:
        (value,) = struct.unpack_from(form, self._data, self._offset)
        self._offset += size_bytes
        return float(value) if form == ">d" else int(value)
