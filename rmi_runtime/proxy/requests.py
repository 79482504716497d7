"""The client's messages: a call, and the handshake, as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from Pyro5.client import SerializedBlob

from rmi_runtime import errors, wire
from rmi_runtime.wire.blob import ANNOTATION_BLOB, encode_blob_call
from rmi_runtime.wire.serializers import Serializer

REQUEST_SIZE_BYTES_MAX: Final = 1024 * 1024 * 1024  # what a stock daemon takes by default

Annotations = Mapping[str, bytes]


class RequestWriter:
    """Writes what goes out on one connection.

    Args:
        serializer: of the arguments.
        compress: deflate large requests.

    Attributes:
        size_bytes_max: most bytes of arguments and annotations that the server takes.
        patience_told: the server heeds deadlines, so they are sent along.
    """

    def __init__(self, serializer: Serializer, *, compress: bool) -> None:
        self._serializer = serializer
        self._compress = compress
        self.size_bytes_max = REQUEST_SIZE_BYTES_MAX
        self.patience_told = False
        self._usual_timeout_s, self._usual_patience = -1.0, 0  # the latter is sent for the former

    def handshake(self, object_id: str, handshake: object) -> bytes:
        """Return the first message of a connection.

        Args:
            object_id: the object that it is mainly for.
            handshake: data for the server's authentication.
        """
        payload = self._serializer.dumps({"handshake": handshake, "object": object_id})
        asked = {wire.ANNOTATION_PIPELINING: wire.PIPELINING_VERSION}
        return wire.encode(wire.MSG_CONNECT, self._serializer.serializer_id, 0, 0, payload, asked)

    def call(
        self,
        seq: int,
        flags: int,
        object_id: str,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        annotations: Annotations | None,
        correlation_id: bytes | None,
        timeout_s: float,
    ) -> bytes:
        """Return a call's message.

        Args:
            seq: its sequence number.
            flags: sum of ``wire.FLAG_`` bits.
            object_id: the object to call.
            method: its method.
            args: positional arguments; a ``SerializedBlob`` as the first one goes as it is.
            kwargs: keyword arguments.
            annotations: sent along.
            correlation_id: 16 bytes, or None.
            timeout_s: how long its caller waits.

        Raises:
            InvalidRequest: the server takes no message as large as this one.
            Exception: the arguments cannot be serialized.
        """
        serializer_id = self._serializer.serializer_id
        if args and isinstance(args[0], SerializedBlob):
            payload, serializer_id, note = encode_blob_call(
                object_id, method, args, kwargs, self._serializer
            )
            annotations = {**(annotations or {}), ANNOTATION_BLOB: note}
            flags |= wire.FLAG_KEEP_SERIALIZED
        else:
            payload = self._serializer.dumpsCall(object_id, method, args, kwargs or {})
        if len(payload) > self.size_bytes_max:
            raise self._too_large(len(payload))
        if timeout_s is not self._usual_timeout_s:
            self._usual_patience = wire.patience(timeout_s) if self.patience_told else 0
            self._usual_timeout_s = timeout_s
        patience = self._usual_patience
        what = (wire.MSG_INVOKE, serializer_id, flags, seq, payload)
        if not (annotations or correlation_id or self._compress):
            return wire.encode_plain(*what, patience)
        compress = self._compress
        data = wire.encode(*what, annotations, correlation_id, compress=compress, patience=patience)
        if (size_bytes := len(data) - wire.HEADER_SIZE) > self.size_bytes_max:
            raise self._too_large(size_bytes)
        return data

    def _too_large(self, size_bytes: int) -> errors.InvalidRequest:
        return errors.InvalidRequest(
            f"the request has {size_bytes} bytes, the server takes at most "
            f"{self.size_bytes_max}: send less at once",
            field="size",
        )
