"""Pyro5's wire protocol, sans I/O: bytes in, messages out, and the other way round.

The format is that of Pyro5 5.17, protocol version 502 (``Pyro5.protocol``): a 40-byte header in
network order, annotation chunks, payload.

====== ===== ==========================================================
offset bytes field
====== ===== ==========================================================
0      4     ``PYRO``
4      2     protocol version, 502
6      1     message type
7      1     serializer id
8      2     flags
10     2     sequence number: a reply carries that of its request
12     4     payload length
16     4     length of all annotation chunks
20     16    correlation id, if flag ``CORRELATION`` is set
36     2     reserved; our patience, see below
38     2     magic number 0x4dc5
====== ===== ==========================================================

An annotation chunk is a 4-letter ASCII id, a 4-byte length, and that many bytes.

Every length is checked against a bound before anything is kept or parsed, and compressed payloads
are inflated no further than that bound.

Two annotations and one header field are ours; stock peers ignore them:

``RMIP``
    In CONNECT: the client asks for pipelining; in CONNECTOK: the server grants it. Its first byte
    is the version, 1; in the grant four more follow: the size in bytes of the largest message that
    the server takes, big-endian. Replies on such a connection may come in any order.
``RMIE``
    In CONNECTFAIL: the code of the error (:mod:`rmi_runtime.errors`) in ASCII.
patience
    The reserved header field of an INVOKE on a connection with pipelining: for how many hundredths
    of a second the caller will wait; 0 does not say.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Mapping
from math import ceil
from typing import Final

from Pyro5.errors import ProtocolError

MSG_CONNECT: Final = 1
MSG_CONNECTOK: Final = 2
MSG_CONNECTFAIL: Final = 3
MSG_INVOKE: Final = 4
MSG_RESULT: Final = 5
MSG_PING: Final = 6

FLAG_EXCEPTION: Final = 1
FLAG_COMPRESSED: Final = 2
FLAG_ONEWAY: Final = 4
FLAG_BATCH: Final = 8
FLAG_STREAM: Final = 16
FLAG_KEEP_SERIALIZED: Final = 32
FLAG_CORRELATION: Final = 64

ANNOTATION_PIPELINING: Final = "RMIP"
ANNOTATION_REFUSAL: Final = "RMIE"
ANNOTATION_STREAM: Final = "STRM"  # stock: the id of an item stream
PIPELINING_VERSION: Final = b"\x01"

PROTOCOL_VERSION: Final = 502
HEADER_SIZE: Final = 40
ANNOTATIONS_MAX: Final = 64
PATIENCE_PER_S: Final = 100
COMPRESS_ABOVE_BYTES: Final = 100  # as stock Pyro5: shorter payloads are not worth it

_MAGIC: Final = 0x4DC5
_TAG: Final = b"PYRO"
_BEGINNING: Final = _TAG + PROTOCOL_VERSION.to_bytes(2, "big")
_NO_MESSAGE: Final = "these bytes are no Pyro message: expected them to begin with PYRO"
_NO_CORRELATION: Final = bytes(16)
_NO_ANNOTATIONS: Final[Mapping[str, bytes]] = {}
_header = struct.Struct("!6sBBHHII16sHH")
_chunk_header = struct.Struct("!4sI")


class WireError(ProtocolError):  # type: ignore[misc]
    """The peer sent bytes that are no Pyro message, or more of them than is allowed."""


class Message:
    """One message as received.

    Attributes:
        type: one of the ``MSG_`` numbers.
        serializer_id: Pyro5's number of the payload's serializer.
        flags: sum of ``FLAG_`` bits; ``FLAG_COMPRESSED`` is gone, the payload is inflated.
        seq: sequence number, 0 to 65535.
        payload: the serialized data.
        annotations: chunk id to bytes.
        correlation_id: 16 bytes, or None.
        patience: hundredths of a second the caller will wait, or 0.
    """

    __slots__ = (
        "annotations",
        "correlation_id",
        "flags",
        "patience",
        "payload",
        "seq",
        "serializer_id",
        "type",
    )

    def __init__(
        self,
        type_: int,
        serializer_id: int,
        flags: int,
        seq: int,
        payload: bytes,
        annotations: Mapping[str, bytes] = _NO_ANNOTATIONS,
        correlation_id: bytes | None = None,
        patience: int = 0,
    ) -> None:
        self.type = type_
        self.serializer_id = serializer_id
        self.flags = flags
        self.seq = seq
        self.payload = payload
        self.annotations = annotations
        self.correlation_id = correlation_id
        self.patience = patience

    def __repr__(self) -> str:
        return (
            f"<Message type={self.type} flags={self.flags} seq={self.seq} "
            f"serializer={self.serializer_id} payload={len(self.payload)} bytes>"
        )


class Parser:
    """Cuts a stream of bytes into messages.

    Args:
        size_bytes_max: bound on payload plus annotations of one message, as sent and as inflated.

    Attributes:
        error: what was wrong with the bytes, once something was; nothing is parsed after that.
        kept: what has come of messages that are not complete, or not cut yet.
        more: True if the last :meth:`feed` stopped at its bound: another one may find messages in
            what is kept.
    """

    def __init__(self, size_bytes_max: int) -> None:
        self.size_bytes_max = size_bytes_max
        self.error: WireError | None = None
        self.more = False
        self.kept = bytearray()
        self._wanted = HEADER_SIZE

    @property
    def partial(self) -> bool:
        """True while the beginning of a message is waiting for its rest."""
        return bool(self.kept) and not self.more

    def feed(self, data: bytes, messages_max: int = sys.maxsize) -> list[Message]:
        """Take bytes from the peer.

        Args:
            data: what has just been received, any number of bytes, or none.
            messages_max: how many messages to cut at most; the rest is kept as bytes.

        Returns:
            The messages that are complete now, in order; often one, possibly none. If bytes that
            cannot be a message follow them, ``error`` is set.
        """
        messages: list[Message] = []
        if self.error is None:
            try:
                self._cut(data, messages, messages_max)
            except WireError as error:
                self.error = error
                self.more = False
                self.kept.clear()
        return messages

    def lone(self, data: bytes) -> Message | None:
        """Take bytes from the peer if they are exactly one message, as those of a stock client are.

        Returns:
            The message; or None, and then the bytes are still to be fed.
        """
        if self.kept or self.error is not None or len(data) < HEADER_SIZE:
            return None
        try:
            whole = self._read(data, 0, len(data))
        except WireError as error:
            self.error = error
            return None
        if whole is None or whole[1] != len(data):
            return None
        return whole[0]

    def _cut(self, data: bytes, messages: list[Message], messages_max: int) -> None:
        if self.kept:
            self.kept += data
            if len(self.kept) < self._wanted:
                self._check_beginning(self.kept)
                return
            data = bytes(self.kept)
            self.kept.clear()
        self._wanted = HEADER_SIZE
        self.more = False
        position, end = 0, len(data)
        while end - position >= HEADER_SIZE:
            if len(messages) >= messages_max:
                self.more = True
                break
            whole = self._read(data, position, end)
            if whole is None:
                break
            message, position = whole
            messages.append(message)
        if position < end:
            self.kept += data[position:] if position else data
            self._check_beginning(self.kept)

    def _check_beginning(self, kept: bytearray) -> None:
        """Refuse at the first wrong byte: who speaks HTTP to us shall not be waited for."""
        if not _TAG.startswith(kept[:4]):
            raise WireError(_NO_MESSAGE)

    def _read(self, data: bytes, start: int, end: int) -> tuple[Message, int] | None:
        """Read one message at *start*; None (and how many bytes are wanted) if it is not whole."""
        (
            beginning,
            type_,
            serializer_id,
            flags,
            seq,
            size,
            notes_size,
            correlation,
            wait,
            magic,
        ) = _header.unpack_from(data, start)
        if beginning != _BEGINNING or magic != _MAGIC:
            if not beginning.startswith(_TAG):
                raise WireError(_NO_MESSAGE)
            raise WireError(
                f"invalid message or protocol version: expected PYRO version {PROTOCOL_VERSION}"
            )
        if not MSG_CONNECT <= type_ <= MSG_PING:
            raise WireError(f"unknown message type {type_}: expected 1 to {MSG_PING}")
        if size + notes_size > self.size_bytes_max:
            raise WireError(
                f"message too large: {size + notes_size} bytes announced, "
                f"at most {self.size_bytes_max} allowed here"
            )
        body = start + HEADER_SIZE
        payload_at = body + notes_size
        stop = payload_at + size
        if stop > end:
            self._wanted = stop - start
            return None
        annotations = _read_annotations(data, body, payload_at) if notes_size else _NO_ANNOTATIONS
        payload = data[payload_at:stop]
        if flags & FLAG_COMPRESSED:
            payload = inflate(payload, self.size_bytes_max)
            flags &= ~FLAG_COMPRESSED
        correlation_id = correlation if flags & FLAG_CORRELATION else None
        return (
            Message(type_, serializer_id, flags, seq, payload, annotations, correlation_id, wait),
            stop,
        )


def _read_annotations(data: bytes, position: int, end: int) -> dict[str, bytes]:
    annotations: dict[str, bytes] = {}
    count = 0
    while position < end:
        if end - position < _chunk_header.size:
            raise WireError("annotation chunk is cut off: expected a 4-letter id and a length")
        name, size = _chunk_header.unpack_from(data, position)
        position += _chunk_header.size
        if size > end - position:
            raise WireError("annotation chunk is longer than the annotations of its message")
        count += 1  # also of those with the same id
        if count > ANNOTATIONS_MAX:
            raise WireError(f"more than {ANNOTATIONS_MAX} annotations in one message")
        if not name.isascii():
            raise WireError("annotation id is not 4 ASCII letters")
        annotations[name.decode("ascii")] = data[position : position + size]
        position += size
    return annotations


def inflate(payload: bytes, size_bytes_max: int) -> bytes:
    """Decompress a zlib payload, but never to more than *size_bytes_max* bytes.

    Raises:
        WireError: the data is no zlib stream, is cut off, or would inflate past the bound.
    """
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(payload, size_bytes_max)
    except zlib.error as error:
        raise WireError(f"compressed payload cannot be inflated: {error}") from error
    if inflater.unconsumed_tail or not inflater.eof:
        raise WireError(
            f"compressed payload is cut off or inflates past {size_bytes_max} bytes: refused"
        )
    return inflated


def encode(
    type_: int,
    serializer_id: int,
    flags: int,
    seq: int,
    payload: bytes,
    annotations: Mapping[str, bytes] | None = None,
    correlation_id: bytes | None = None,
    *,
    compress: bool = False,
    patience: int = 0,
) -> bytes:
    """Return one message as bytes.

    Args:
        type_: one of the ``MSG_`` numbers.
        serializer_id: Pyro5's number of the serializer that made *payload*.
        flags: sum of ``FLAG_`` bits; those for compression and correlation are set here.
        seq: sequence number, 0 to 65535.
        payload: the serialized data.
        annotations: 4-letter ASCII ids to bytes-like values.
        correlation_id: 16 bytes, or None.
        compress: deflate payloads above ``COMPRESS_ABOVE_BYTES``.
        patience: hundredths of a second the caller will wait, or 0; see :func:`patience`.

    Raises:
        WireError: an annotation id is not 4 ASCII letters.
    """
    if compress and len(payload) > COMPRESS_ABOVE_BYTES:
        deflated = zlib.compress(payload, 4)
        if len(deflated) < len(payload):  # noise only grows, perhaps past the peer's bound
            payload, flags = deflated, flags | FLAG_COMPRESSED
    if correlation_id is not None:
        flags |= FLAG_CORRELATION
    notes = _encode_annotations(annotations) if annotations else b""
    header = _header.pack(
        *(_BEGINNING, type_, serializer_id, flags, seq, len(payload), len(notes)),
        *(correlation_id or _NO_CORRELATION, patience, _MAGIC),
    )
    return b"".join((header, notes, payload)) if notes else header + payload


def encode_plain(
    type_: int, serializer_id: int, flags: int, seq: int, payload: bytes, patience: int = 0
) -> bytes:
    """Return one message as bytes: as :func:`encode`, with nothing but the payload, and quicker."""
    return (
        _header.pack(
            _BEGINNING,
            type_,
            serializer_id,
            flags,
            seq,
            len(payload),
            0,
            _NO_CORRELATION,
            patience,
            _MAGIC,
        )
        + payload
    )


def _encode_annotations(annotations: Mapping[str, bytes]) -> bytes:
    chunks: list[bytes] = []
    for name, value in annotations.items():
        if len(name) != 4 or not name.isascii():
            raise WireError(f"annotation id {name!r} is not 4 ASCII letters")
        chunks += (_chunk_header.pack(name.encode("ascii"), len(value)), value)
    return b"".join(chunks)


def grant(message_size_bytes_max: int, in_turn: bool = False) -> bytes:
    """Return what grants pipelining, and tells the largest message, and if calls wait in turn."""
    size = min(message_size_bytes_max, 0xFFFFFFFF).to_bytes(4, "big")
    return PIPELINING_VERSION + size + bytes([in_turn])


def patience(remaining_s: float) -> int:
    """Return the header field for a caller who waits *remaining_s* more seconds."""
    hundredths = remaining_s * PATIENCE_PER_S
    # Not less than that: no server gives up before its caller does. 0 for infinity as well.
    return ceil(max(1, hundredths)) if hundredths <= 0xFFFF else 0
