"""A client that sends what it is told, and the messages to tell it."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from typing import Any

import msgpack
import serpent

from rmi_runtime import wire

Address = tuple[str, int]

SERPENT, MARSHAL, JSON, MSGPACK = 1, 2, 3, 4
CLOSED, ERROR, RESULT = "closed", "error", "result"
WAIT_S = 20.0
_HEADER = struct.Struct("!4sHBBHHII16sHH")


class RawClient:
    """A blocking client that sends what it is told.

    Args:
        address: of the daemon.
        greet: number of the serializer to shake hands in; 0 for no handshake.
        object_id: what to ask for in the handshake.
        pipelining: ask for that.
    """

    def __init__(
        self,
        address: Address,
        greet: int = SERPENT,
        object_id: str = "target",
        *,
        pipelining: bool = False,
    ) -> None:
        self.socket = socket.create_connection(address, WAIT_S)
        self._parser = wire.Parser(1 << 30)
        self._received: list[wire.Message] = []
        if greet:
            notes = {wire.ANNOTATION_PIPELINING: wire.PIPELINING_VERSION} if pipelining else None
            handshake = {"handshake": "hello", "object": object_id}
            self.send(message(wire.MSG_CONNECT, dumps(greet, handshake), greet, notes=notes))
            answer = self.receive()
            if answer is None or answer.type != wire.MSG_CONNECTOK:
                raise ConnectionError(f"no welcome: {answer}")

    def send(self, data: bytes) -> None:
        """Send bytes; that the other side has hung up is no error."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def receive(self) -> wire.Message | None:
        """Return the next message, or None at the end of the connection."""
        while not self._received:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._received += self._parser.feed(data)
        return self._received.pop(0)

    def outcome(self) -> str:
        """Return what comes next: ``closed``, ``error`` or ``result``."""
        found = self.receive()
        if found is None or found.type == wire.MSG_CONNECTFAIL:
            return CLOSED
        return ERROR if found.flags & wire.FLAG_EXCEPTION else RESULT

    def close(self) -> None:
        """Close."""
        self.socket.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def dumps(serializer: int, value: Any) -> bytes:
    """Serialize a value as stock Pyro5 does."""
    if serializer == SERPENT:
        text: bytes = serpent.dumps(value, module_in_classname=True)
        return text
    if serializer == JSON:
        return json.dumps(value).encode()
    packed: bytes = msgpack.packb(value)
    return packed


def message(
    type_: int,
    payload: bytes,
    serializer: int = SERPENT,
    flags: int = 0,
    seq: int = 1,
    notes: dict[str, bytes] | None = None,
) -> bytes:
    """Return a well-formed message."""
    return wire.encode(type_, serializer, flags, seq, payload, notes)


def header(
    type_: int = wire.MSG_INVOKE,
    serializer: int = SERPENT,
    flags: int = 0,
    size: int = 0,
    notes_size: int = 0,
    version: int = wire.PROTOCOL_VERSION,
    magic: int = 0x4DC5,
) -> bytes:
    """Return a header that may announce anything."""
    return _HEADER.pack(
        b"PYRO", version, type_, serializer, flags, 1, size, notes_size, bytes(16), 0, magic
    )


def call(
    method: str,
    *args: Any,
    serializer: int = SERPENT,
    flags: int = 0,
    seq: int = 1,
    object_id: str = "target",
) -> bytes:
    """Return an INVOKE message."""
    if serializer == JSON:
        value: Any = {"object": object_id, "method": method, "params": args, "kwargs": {}}
    else:
        value = (object_id, method, args, {})
    return message(wire.MSG_INVOKE, dumps(serializer, value), serializer, flags, seq)


def raw_call(arguments: bytes, flags: int = 0) -> bytes:
    """Return an INVOKE message in serpent, with the arguments given as text."""
    text = b"# serpent utf-8 python3.2\n('target','echo'," + arguments + b",{})"
    return message(wire.MSG_INVOKE, text, SERPENT, flags)
