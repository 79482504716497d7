"""What hostile or broken clients send: each a function that strikes once at a daemon's address.

The tests strike with each and look at what is left of the daemon;
``benchmarks.runtime_under_attack`` strikes again and again, and looks at how long a valid client
has to wait meanwhile. Making what they send takes half a second: who needs only the client takes
it from :mod:`tests.raw_client`.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import msgpack

from rmi_runtime import wire
from tests.raw_client import (
    CLOSED,
    ERROR,
    JSON,
    MARSHAL,
    MSGPACK,
    RESULT,
    SERPENT,
    WAIT_S,
    Address,
    RawClient,
    call,
    dumps,
    header,
    message,
    raw_call,
)


@dataclass(frozen=True)
class Attack:
    """One kind of bad input.

    Attributes:
        name: what it is.
        strike: does it once; returns ``closed``, ``error`` or ``result``.
        outcome: what it should return.
    """

    name: str
    strike: Callable[[Address], str]
    outcome: str


def _ungreeted(data: bytes, *, end: bool = False) -> Callable[[Address], str]:
    def strike(address: Address) -> str:
        with RawClient(address, 0) as client:
            client.send(data)
            if end:
                client.socket.shutdown(socket.SHUT_WR)
            return client.outcome()

    return strike


def _greeted(
    data: bytes, serializer: int = SERPENT, *, end: bool = False
) -> Callable[[Address], str]:
    def strike(address: Address) -> str:
        with RawClient(address, serializer) as client:
            client.send(data)
            if end:
                client.socket.shutdown(socket.SHUT_WR)
            return client.outcome()

    return strike


PINGS = 300  # three times what is answered at once; the others are, 50 in a second


def _flood_of_pings(address: Address) -> str:
    with RawClient(address) as client:
        client.send(message(wire.MSG_PING, b"ping") * PINGS)
        for _ in range(PINGS):
            assert client.receive() is not None
        return RESULT


def _same_number_twice(address: Address) -> str:
    with RawClient(address, pipelining=True) as client:
        client.send(call("echo", 1, seq=7) + call("echo", 2, seq=7))
        assert client.outcome() == RESULT
        return client.outcome()


def _never_reads(address: Address) -> str:
    with RawClient(address) as client:
        client.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 20_000)
        )
        request = call("repeat", "x", 100_000)
        for _ in range(400):
            try:
                client.socket.sendall(request)
            except OSError:  # the server has stopped reading: as it should
                break
        return CLOSED


def _comes_and_goes(address: Address) -> str:
    for _ in range(50):
        socket.create_connection(address, WAIT_S).close()
    return CLOSED


def _oneway_flood(address: Address) -> str:
    with RawClient(address) as client:
        client.send(call("echo", 1, flags=wire.FLAG_ONEWAY) * 500 + call("echo", 1))
        return client.outcome()


_random = random.Random(502)
_bomb = zlib.compress(bytes(500_000_000) if "--large" in sys.argv else bytes(64_000_000), 9)
_compressed = wire.FLAG_COMPRESSED
_million = b"[" + b"('echo',(1,),{})," * 1_000_000 + b"]"
_modulus = sys.hash_info.modulus
_forged = (
    b"{'__class__':'Pyro5.server.Daemon','state':1}",
    b"{'__class__':'Pyro5.util.SerpentSerializer'}",
    b"{'__class__':'builtins.SystemExit','__exception__':True,'args':(1,)}",
    b"{'__class__':'Pyro5.core.URI','state':(1,)}",
    b"{'__class__':'Pyro5.client.Proxy','state':(1,)}",
    b"{'__class__':'os.system','args':('id',)}",
    b"{'__class__':'__main__.__class__'}",
    b"{'__class__':None}",
    b"{'__class__':'Pyro5.errors.nothing','args':()}",
    b"{'__class__':'Pyro5.core._ExceptionWrapper','exception':5}",
    b"{'__class__':'builtins.UnicodeDecodeError','__exception__':True,'args':(1,)}",
)


def _forges_classes(address: Address) -> str:
    outcomes = set()
    for text in _forged:
        with RawClient(address) as client:
            client.send(raw_call(b"(" + text + b",)"))
            outcomes.add(client.outcome())
    assert outcomes <= {ERROR, RESULT}, outcomes
    return ERROR


def _batch(calls: bytes) -> bytes:
    return b"# serpent utf-8 python3.2\n('target','<batch>'," + calls + b",{})"


def _nested(serializer: int) -> bytes:
    depth = 100_000
    if serializer == SERPENT:
        return raw_call(b"[" * depth)
    if serializer == JSON:
        text = b'{"object":"target","method":"echo","params":' + b"[" * depth
        return message(wire.MSG_INVOKE, text, JSON)
    return message(wire.MSG_INVOKE, b"\x94\xa6target\xa4echo" + b"\x91" * depth + b"\x80", MSGPACK)


def _colliding(count: int) -> bytes:
    keys = b"".join(
        dumps(MSGPACK, msgpack.ExtType(0x31, b"%d" % (_modulus * n))) + b"\0"
        for n in range(1, count + 1)
    )
    return b"\x94\xa6target\xa4echo\x91\xde" + struct.pack("!H", count) + keys + b"\x80"


ATTACKS = [
    Attack("HTTP text", _ungreeted(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"), CLOSED),
    Attack("random bytes", _ungreeted(_random.randbytes(4096)), CLOSED),
    Attack("truncated header", _ungreeted(header()[:20], end=True), CLOSED),
    Attack(
        "half a payload",
        _greeted(call("echo", "x" * 1000)[:500], end=True),
        CLOSED,
    ),
    Attack("2**32-1 bytes announced", _greeted(header(size=0xFFFFFFFF)), CLOSED),
    Attack(
        "2**32-1 bytes of annotations announced", _greeted(header(notes_size=0xFFFFFFFF)), CLOSED
    ),
    Attack(
        "annotations that overrun",
        _greeted(header(notes_size=12) + b"ABCD" + struct.pack("!I", 999) + b"1234"),
        CLOSED,
    ),
    Attack(
        "thousands of annotations",
        _greeted(header(notes_size=80_000) + b"ABCD\0\0\0\0" * 10_000),
        CLOSED,
    ),
    Attack("unknown serializer", _greeted(message(wire.MSG_INVOKE, b"x", 77)), ERROR),
    Attack(
        "unknown serializer in the handshake",
        _ungreeted(message(wire.MSG_CONNECT, b"x", 77)),
        CLOSED,
    ),
    Attack("unknown type", _greeted(header(type_=99)), CLOSED),
    Attack("unknown version", _greeted(header(version=48)), CLOSED),
    Attack("wrong magic number", _greeted(header(magic=1)), CLOSED),
    Attack("INVOKE before CONNECT", _ungreeted(call("echo", 1)), CLOSED),
    Attack("CONNECT for an unknown object", _ungreeted(
        message(wire.MSG_CONNECT, dumps(SERPENT, {"handshake": "hello", "object": "nothing"}))
    ), CLOSED),
    Attack("CONNECT without sense", _ungreeted(message(wire.MSG_CONNECT, b"5")), CLOSED),
    Attack("a second CONNECT", _greeted(
        message(wire.MSG_CONNECT, dumps(SERPENT, {"handshake": "hello", "object": "target"}))
    ), CLOSED),
    Attack("RESULT from a client", _greeted(message(wire.MSG_RESULT, b"5")), CLOSED),
    Attack("CONNECTOK from a client", _greeted(message(wire.MSG_CONNECTOK, b"5")), CLOSED),
    Attack("one sequence number twice", _same_number_twice, RESULT),
    Attack("_private", _greeted(call("_private")), ERROR),
    Attack("__class__", _greeted(call("__class__")), ERROR),
    Attack("__getattr__ of __class__", _greeted(call("__getattr__", "__class__")), ERROR),
    Attack("__setattr__ of __class__", _greeted(call("__setattr__", "__class__", 1)), ERROR),
    Attack("__init__", _greeted(call("__init__")), ERROR),
    Attack("a dotted name", _greeted(call("echo.__func__.__globals__")), ERROR),
    Attack("an unexposed method", _greeted(call("hidden")), ERROR),
    Attack("an unknown object", _greeted(call("echo", 1, object_id="nothing")), ERROR),
    Attack("wrong arguments", _greeted(call("echo", 1, 2, 3)), ERROR),
    Attack("arguments that are no list", _greeted(raw_call(b"5")), ERROR),
    Attack("a call that is none", _greeted(message(wire.MSG_INVOKE, b"{}")), ERROR),
    Attack("a BATCH of a million", _greeted(
        message(
            wire.MSG_INVOKE, zlib.compress(_batch(_million)), flags=wire.FLAG_BATCH | _compressed
        )
    ), CLOSED),
    Attack("a BATCH with too many elements", _greeted(
        message(wire.MSG_INVOKE, _batch(_million[:2_000_001]), flags=wire.FLAG_BATCH)
    ), ERROR),
    Attack("a BATCH of nonsense", _greeted(
        message(wire.MSG_INVOKE, _batch(b"[1,2,3]"), flags=wire.FLAG_BATCH)
    ), ERROR),
    Attack("forged class dictionaries", _forges_classes, ERROR),
    Attack("a 5,000-digit integer in serpent", _greeted(
        raw_call(b"(" + b"9" * 5000 + b",)")
    ), ERROR),
    Attack("a 5,000-digit integer in json", _greeted(
        message(
            wire.MSG_INVOKE,
            b'{"object":"target","method":"echo","kwargs":{},"params":[' + b"9" * 5000 + b"]}",
            JSON,
        ),
        JSON,
    ), ERROR),
    Attack("a 5,000-digit integer in msgpack", _greeted(
        call("echo", msgpack.ExtType(0x31, b"9" * 5000), serializer=MSGPACK), MSGPACK
    ), ERROR),
    Attack("deep nesting in serpent", _greeted(_nested(SERPENT)), ERROR),
    Attack("deep nesting in json", _greeted(_nested(JSON), JSON), ERROR),
    Attack("deep nesting in msgpack", _greeted(_nested(MSGPACK), MSGPACK), ERROR),
    Attack("minus signs", _greeted(raw_call(b"(" + b"-" * 50_000 + b"1,)")), ERROR),
    Attack("f-strings", _greeted(raw_call(b"(f'{a}" + b"{b}" * 20_000 + b"',)")), ERROR),
    Attack("a list of a million", _greeted(raw_call(b"([" + b"1," * 1_000_000 + b"],)")), ERROR),
    Attack("blanks after a call in serpent", _greeted(raw_call(b"(1," + b" " * 500_000)), ERROR),
    Attack("a handshake of blanks", _ungreeted(
        message(wire.MSG_CONNECT, b"1," + b" " * 16_000)
    ), CLOSED),
    Attack("keys that collide in a handshake", _ungreeted(
        message(wire.MSG_CONNECT, _colliding(1_000), MSGPACK)
    ), CLOSED),
    Attack("keys that collide in serpent", _greeted(
        raw_call(b"({" + b",".join(b"%d:0" % (_modulus * i) for i in range(1, 20_000)) + b"},)")
    ), ERROR),
    Attack("keys that collide in msgpack", _greeted(
        message(wire.MSG_INVOKE, _colliding(20_000), MSGPACK), MSGPACK
    ), ERROR),
    Attack("a compressed bomb in the handshake", _ungreeted(
        message(wire.MSG_CONNECT, _bomb[:16_000], flags=_compressed)
    ), CLOSED),
    Attack("a compressed bomb", _greeted(
        message(wire.MSG_INVOKE, _bomb, flags=_compressed)
    ), CLOSED),
    Attack("a message in marshal", _greeted(message(wire.MSG_INVOKE, b"\xe9", MARSHAL)), ERROR),
    Attack("a flood of PINGs", _flood_of_pings, RESULT),
    Attack("a flood of ONEWAYs", _oneway_flood, RESULT),
    Attack("a client that never reads", _never_reads, CLOSED),
    Attack("connects and disconnects", _comes_and_goes, CLOSED),
]  # fmt: skip
