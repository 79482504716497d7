"""A fuzz target for what reads bytes from strangers: the wire parser and the literal parser.

``python -m tests.fuzz.wire --seconds 600`` runs for ten minutes, with atheris (coverage-guided) if
that is installed, and otherwise with mutations of valid messages from a seeded source; the seed is
printed, and ``--seed`` runs the same again. A failing input is written to the file that ``--save``
names.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from Pyro5.errors import PyroError

from rmi_runtime import wire
from rmi_runtime.wire import literals, serializers

SIZE_MAX = 8192
ELEMENTS_MAX = 500
_SEEDS = [
    wire.encode(wire.MSG_CONNECT, 1, 0, 0, b"{'handshake':'hello','object':'target'}"),
    wire.encode(wire.MSG_INVOKE, 1, 0, 1, b"# serpent utf-8 python3.2\n('a','b',(1,-2.5e3,),{})"),
    wire.encode(wire.MSG_INVOKE, 1, wire.FLAG_BATCH, 2, b"('a','',[('b',({1},),{'c':b'x'})],{})"),
    wire.encode(wire.MSG_INVOKE, 3, 0, 3, b'{"object":"a","method":"b","params":[1],"kwargs":{}}'),
    wire.encode(wire.MSG_INVOKE, 4, 0, 4, b"\x94\xa1a\xa1b\x92\x01\xc7\x02\x3112\x80"),
    wire.encode(wire.MSG_INVOKE, 4, 0, 5, b"x" * 300, {"ABCD": b"note"}, bytes(16), compress=True),
    wire.encode(wire.MSG_PING, 42, 0, 6, b"ping", patience=100),
    b"[(1+2j),1e30000,-0.5,None,True,'it\\'s','\\u20ac',{'__class__':'float','value':'nan'}]",
]  # fmt: skip
_PIECES = [
    b"PYRO", b"\x01\xf6", b"\x4d\xc5", b"\xff\xff\xff\xff", b"\0\0\0\0", b"'", b"\\", b"[" * 50,
    b"{'__class__':", b"'Pyro5.client.Proxy'", b"'builtins.ValueError','__exception__':True,", b",",
    b"\xdd\xff\xff\xff\xff", b"9" * 30, b"1e999",
]  # fmt: skip


def one_input(data: bytes) -> None:
    """Feed *data* to the parsers. Raises if one does what it must never do."""
    whole = wire.Parser(SIZE_MAX)
    expected = whole.feed(data)
    pieces = wire.Parser(SIZE_MAX)
    found: list[wire.Message] = []
    step = 1 + len(data) % 7
    for start in range(0, len(data), step):
        found += pieces.feed(data[start : start + step], 1)
        while pieces.more:
            found += pieces.feed(b"", 1)
    assert len(found) == len(expected)
    assert str(whole.error) == str(pieces.error)
    assert whole.partial == pieces.partial
    for one, other in zip(expected, found, strict=True):
        assert (one.type, one.seq, one.payload) == (other.type, other.seq, other.payload)
        assert one.annotations == other.annotations
        assert len(one.payload) <= SIZE_MAX
        _load(one)
    alone = wire.Parser(SIZE_MAX)
    if alone.lone(data) is not None:
        assert (len(expected), whole.partial) == (1, False)
    assert alone.error is None or str(alone.error) == str(whole.error)
    with contextlib.suppress(PyroError, ValueError):
        literals.loads(data[:SIZE_MAX], ELEMENTS_MAX)


def _load(message: wire.Message) -> None:
    serializer = serializers.BY_ID.get(message.serializer_id)
    if serializer is not None:
        with contextlib.suppress(Exception):  # any, but an exception: no crash, no exit
            serializer.load_call(message.payload, ELEMENTS_MAX)


def mutated(source: random.Random) -> bytes:
    """Return an input made of valid messages, a little changed."""
    data = bytearray(b"".join(source.choices(_SEEDS, k=source.randint(1, 3))))
    for _ in range(source.randint(0, 8)):
        at = source.randrange(len(data) + 1)
        kind = source.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = source.randrange(256)
        elif kind == 1:
            del data[at : at + source.randint(1, 20)]
        elif kind == 2:
            data[at:at] = source.choice(_PIECES)
        elif kind == 3 and at < len(data):
            data[at] ^= 1 << source.randrange(8)
        else:
            data[at : at + 4] = source.choice(_PIECES)[:4]
    return bytes(data)


def run_mutations(seconds: float, seed: int, save: Path | None) -> int:
    """Run for so long; return how many inputs were tried."""
    source = random.Random(seed)
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        data = mutated(source)
        try:
            one_input(data)
        except BaseException:
            if save is not None:
                save.write_bytes(data)
            print(f"failed at input {count} of seed {seed}: {data!r}", file=sys.stderr)
            raise
        count += 1
    return count


def _run_atheris(seconds: float, run: Callable[[bytes], None]) -> bool:
    try:
        import atheris  # type: ignore[import-not-found]
    except ImportError:
        return False
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}"], run)
    atheris.Fuzz()
    return True


def main() -> None:
    """Read the command line and fuzz."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.wire", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFFFFFF)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--no-atheris", action="store_true")
    given = parser.parse_args()
    if not given.no_atheris and _run_atheris(given.seconds, one_input):
        return
    print(f"seed {given.seed}, without atheris", flush=True)
    count = run_mutations(given.seconds, given.seed, given.save)
    print(f"{count} inputs, nothing found")


if __name__ == "__main__":
    main()
