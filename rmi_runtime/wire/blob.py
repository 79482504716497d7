"""Arguments that stay serialized on their way: Pyro5's ``SerializedBlob``, without ``marshal``.

A blob's message carries the flag ``KEEP_SERIALIZED``, the call as its payload, and in the
annotation ``BLBI`` the tuple (info, object id, method) in Python's marshal format, so that whoever
passes the blob on need not read the payload.

Only a small part of that format is read and written here: None, booleans, integers, floats,
strings, bytes, tuples and lists, each bounded. It is that of CPython's ``Python/marshal.c``: one
byte for the type, its highest bit meaning "number this object, it may be referred to", then the
value, lengths and 32-bit integers in little-endian order.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from Pyro5.client import SerializedBlob as StockBlob
from Pyro5.errors import SerializeError

from rmi_runtime import wire
from rmi_runtime.errors import InvalidRequest
from rmi_runtime.wire.serializers import BY_ID, Serializer

ANNOTATION_BLOB: Final = "BLBI"
INFO_SIZE_BYTES_MAX: Final = 64 * 1024
DEPTH_MAX: Final = 16
OBJECTS_MAX: Final = 4096

_REFERABLE: Final = 0x80
_INT_BITS: Final = 15  # of one digit of a long integer
_INT_DIGITS_MAX: Final = 256
_length = struct.Struct("<i")
_digit = struct.Struct("<H")
_double = struct.Struct("<d")

BlobInfo = tuple[Any, str, str]
"""What describes the blob, the object's id, the method's name."""


class SerializedBlob(StockBlob):  # type: ignore[misc]
    """An argument that nobody on its way needs to read. It must be the only one of its call.

    Works like Pyro5's class of this name, which our proxies take just as well.

    Args:
        info: a small description, of plain values.
        data: the data itself.
    """


class _Payload:
    """The part of a message that Pyro5's own proxy needs to pass a received blob on."""

    __slots__ = ("data", "serializer_id")

    def __init__(self, data: bytes, serializer_id: int) -> None:
        self.data = data
        self.serializer_id = serializer_id


class ReceivedBlob(SerializedBlob):
    """A blob as it came: ``info`` describes it, :meth:`deserialized` reads it.

    Args:
        info: what the sender says about it.
        payload: the serialized call.
        serializer: what it is serialized in.
        elements_max: bound on the values in it, or None.
    """

    def __init__(
        self, info: Any, payload: bytes, serializer: Serializer, elements_max: int | None
    ) -> None:
        super().__init__(info, None)
        self._contains_blob = True
        self._data = _Payload(payload, serializer.serializer_id)
        self._serializer = serializer
        self._elements_max = elements_max

    def deserialized(self) -> Any:
        """Return the data. Raises whatever it provokes, always an ``Exception``."""
        return self._serializer.load_blob(self._data.data, self._elements_max)


def read_blob_call(
    message: wire.Message, serializer: Serializer, elements_max: int | None
) -> tuple[str, str, tuple[ReceivedBlob], dict[str, Any]]:
    """Read the call of a message whose payload stays serialized.

    Args:
        message: an INVOKE message with the flag ``KEEP_SERIALIZED``.
        serializer: that of its payload.
        elements_max: bound for when the payload is read.

    Returns:
        Object id, method name, the blob as the only argument, no keyword arguments.

    Raises:
        SerializeError: the annotation that belongs to it is missing, or makes no sense.
    """
    note = message.annotations.get(ANNOTATION_BLOB)
    if note is None:
        raise SerializeError(f"a serialized blob needs the annotation {ANNOTATION_BLOB}")
    info, object_id, method = read_info(note)
    return object_id, method, (ReceivedBlob(info, message.payload, serializer, elements_max),), {}


def encode_blob_call(
    object_id: str,
    method: str,
    args: Sequence[StockBlob],
    kwargs: object,
    serializer: Serializer,
) -> tuple[bytes, int, bytes]:
    """Serialize a call whose only argument is a blob.

    Args:
        object_id: the object to call.
        method: its method.
        args: the blob, made here, or received and to be passed on.
        kwargs: none.
        serializer: for a blob made here; one passed on keeps its own.

    Returns:
        The payload, the number of its serializer, and the annotation's value.

    Raises:
        InvalidRequest: there are other arguments.
        SerializeError: the blob's info is not of plain values, or is too long.
    """
    if len(args) > 1 or kwargs:
        raise InvalidRequest("a serialized blob must be the only argument of its call")
    blob = args[0]
    note = write_info((blob.info, object_id, method))
    if not blob._contains_blob:
        return (
            serializer.dumpsCall(object_id, method, blob._data, {}),
            serializer.serializer_id,
            note,
        )
    inner = blob._data
    if inner.serializer_id not in BY_ID:
        raise SerializeError(f"a blob in serializer {inner.serializer_id} is not passed on here")
    return bytes(inner.data), inner.serializer_id, note


def read_info(data: bytes) -> BlobInfo:
    """Read the value of a blob's annotation.

    Raises:
        SerializeError: it is no such value, or of more than plain values, or too long.
    """
    if len(data) > INFO_SIZE_BYTES_MAX:
        raise SerializeError(f"a blob's info has at most {INFO_SIZE_BYTES_MAX} bytes")
    found = read_plain(data)
    if not isinstance(found, tuple) or len(found) != 3:
        raise SerializeError("a blob's annotation is a tuple (info, object id, method)")
    info, object_id, method = found
    if not isinstance(object_id, str) or not isinstance(method, str):
        raise SerializeError("the object id and the method name of a blob are strings")
    return info, object_id, method


def write_info(info: BlobInfo) -> bytes:
    """Write the value of a blob's annotation.

    Raises:
        SerializeError: it contains more than plain values, or is too long.
    """
    chunks: list[bytes] = []
    _write(info, chunks, DEPTH_MAX)
    written = b"".join(chunks)
    if len(written) > INFO_SIZE_BYTES_MAX:
        raise SerializeError(f"a blob's info has at most {INFO_SIZE_BYTES_MAX} bytes")
    return written


def read_plain(data: bytes) -> Any:
    """Read one plain value in marshal's format.

    Raises:
        SerializeError: the bytes stand for no value, for several, or for another than plain ones.
    """
    reader = _Reader(bytes(data))
    try:
        value = reader.read(DEPTH_MAX)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise SerializeError(f"this is no value in marshal's format: {error}") from error
    if reader.position != len(data):
        raise SerializeError("bytes follow the value")
    return value


def _write(value: Any, chunks: list[bytes], depth: int) -> None:
    if depth == 0:
        raise SerializeError(f"a blob's info is nested more than {DEPTH_MAX} deep")
    if value is None or value is True or value is False:
        chunks.append({None: b"N", True: b"T", False: b"F"}[value])
    elif isinstance(value, int):
        chunks.append(_written_int(value))
    elif isinstance(value, float):
        chunks.append(b"g" + _double.pack(value))
    elif isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        chunks.append(b"u" + _length.pack(len(text)) + text)
    elif isinstance(value, (bytes, bytearray)):
        chunks.append(b"s" + _length.pack(len(value)) + bytes(value))
    elif isinstance(value, (tuple, list)):
        chunks.append((b"(" if isinstance(value, tuple) else b"[") + _length.pack(len(value)))
        for item in value:
            _write(item, chunks, depth - 1)
    else:
        raise SerializeError(
            f"a blob's info is of plain values (None, bool, int, float, str, bytes, tuple, list), "
            f"not {type(value).__name__}"
        )


def _written_int(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"i" + _length.pack(value)
    digits: list[int] = []
    rest = abs(value)
    while rest:
        digits.append(rest & ((1 << _INT_BITS) - 1))
        rest >>= _INT_BITS
    if len(digits) > _INT_DIGITS_MAX:
        raise SerializeError("an integer in a blob's info is too long")
    count = _length.pack(len(digits) if value > 0 else -len(digits))
    return b"l" + count + b"".join(map(_digit.pack, digits))


class _Reader:
    """Reads values one after the other; remembers those that may be referred to."""

    def __init__(self, data: bytes) -> None:
        self.position = 0
        self._data = data
        self._seen: list[tuple[Any, int] | None] = []  # value, number of values in it
        self._count = 0

    def read(self, depth: int) -> Any:
        self._count_in(1)
        if depth == 0:
            raise SerializeError("a blob's info is nested too deep")
        mark = self._take(1)[0]
        kind = chr(mark & ~_REFERABLE)
        if kind == "r":
            return self._referred()
        slot, before = -1, self._count
        if mark & _REFERABLE:
            slot = len(self._seen)
            self._seen.append(None)  # containers take their number before their items do
        if kind in "()[":
            value = self._items(kind, depth)
        else:
            read = _READERS.get(kind)
            if read is None:
                raise SerializeError(f"a blob's info has a value that is not plain: {kind!r}")
            value = read(self)
        if slot >= 0:
            self._seen[slot] = value, self._count - before
        return value

    def _count_in(self, values: int) -> None:
        self._count += values
        if self._count > OBJECTS_MAX:
            raise SerializeError("a blob's info has too many values")

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if size < 0 or end > len(self._data):
            raise SerializeError("a blob's info is cut off")
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def _int(self) -> int:
        number: int = _length.unpack(self._take(_length.size))[0]
        return number

    def _referred(self) -> Any:
        number = self._int()
        found = self._seen[number] if 0 <= number < len(self._seen) else None
        if found is None:
            raise SerializeError("a blob's info refers to a value that is not there")
        value, values = found
        self._count_in(values)  # as if it were written out: no small message becomes a huge value
        return value

    def _items(self, kind: str, depth: int) -> Any:
        count = self._take(1)[0] if kind == ")" else self._int()
        if not 0 <= count <= OBJECTS_MAX:
            raise SerializeError("a blob's info has too many values")
        items = [self.read(depth - 1) for _ in range(count)]
        return items if kind == "[" else tuple(items)

    def _long(self) -> int:
        count = self._int()
        if abs(count) > _INT_DIGITS_MAX:
            raise SerializeError("an integer in a blob's info is too long")
        value = 0
        for place in range(abs(count)):
            digit: int = _digit.unpack(self._take(_digit.size))[0]
            value |= digit << (place * _INT_BITS)
        return value if count >= 0 else -value

    def _text(self, encoding: str, size: int) -> str:
        return self._take(size).decode(encoding, "surrogatepass")


_READERS: Final[dict[str, Callable[[_Reader], Any]]] = {
    "N": lambda _: None,
    "T": lambda _: True,
    "F": lambda _: False,
    "i": lambda reader: reader._int(),
    "l": lambda reader: reader._long(),
    "g": lambda reader: _double.unpack(reader._take(_double.size))[0],
    "s": lambda reader: reader._take(reader._int()),
    "u": lambda reader: reader._text("utf-8", reader._int()),
    "t": lambda reader: reader._text("utf-8", reader._int()),  # interned
    "a": lambda reader: reader._text("ascii", reader._int()),
    "A": lambda reader: reader._text("ascii", reader._int()),
    "z": lambda reader: reader._text("ascii", reader._take(1)[0]),  # short
    "Z": lambda reader: reader._text("ascii", reader._take(1)[0]),
}
