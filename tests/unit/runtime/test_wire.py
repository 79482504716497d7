"""The wire parser and writer: their bounds, and that chunking changes nothing."""

from __future__ import annotations

import itertools
import math
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmi_runtime import wire

SIZE_MAX = 4096
ids = st.text(st.characters(max_codepoint=127), min_size=4, max_size=4)
annotations = st.dictionaries(ids, st.binary(max_size=40), max_size=5)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Return one valid message."""
    return wire.encode(
        draw(st.integers(wire.MSG_CONNECT, wire.MSG_PING)),
        draw(st.integers(0, 255)),
        draw(st.integers(0, 0xFFFF)) & ~(wire.FLAG_COMPRESSED | wire.FLAG_CORRELATION),
        draw(st.integers(0, 0xFFFF)),
        draw(st.binary(max_size=300)),
        draw(st.none() | annotations),
        draw(st.none() | st.binary(min_size=16, max_size=16)),
        compress=draw(st.booleans()),
        patience=draw(st.integers(0, 0xFFFF)),
    )


def facts(message: wire.Message) -> tuple[object, ...]:
    """Return all that a message holds, to be compared."""
    return tuple(getattr(message, name) for name in message.__slots__)


def fed(parser: wire.Parser, data: bytes, cuts: list[int], bound: int) -> list[object]:
    """Feed *data* in pieces that end at *cuts*, at most *bound* messages at a time."""
    found = []
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in itertools.pairwise(places):
        found += [facts(m) for m in parser.feed(data[start:stop], bound)]
        while parser.more:
            found += [facts(m) for m in parser.feed(b"", bound)]
    return found


@given(
    st.lists(messages(), max_size=6),
    st.binary(max_size=60),
    st.lists(st.integers(0, 3000), max_size=12),
    st.integers(1, 4),
)
def test_any_chunking_gives_the_same_messages_and_the_same_verdict(
    parts: list[bytes], rest: bytes, cuts: list[int], bound: int
) -> None:
    data = b"".join(parts) + rest
    whole, pieces = wire.Parser(SIZE_MAX), wire.Parser(SIZE_MAX)
    expected = [facts(message) for message in whole.feed(data)]
    assert fed(pieces, data, cuts, bound) == expected
    assert len(expected) >= len(parts)
    assert (pieces.error is None) == (whole.error is None)
    assert str(pieces.error) == str(whole.error)
    assert pieces.partial == whole.partial


@given(
    st.integers(wire.MSG_CONNECT, wire.MSG_PING),
    st.integers(0, 0xFFFF),
    st.binary(max_size=3000),
    annotations,
    st.none() | st.binary(min_size=16, max_size=16),
    st.booleans(),
)
def test_what_is_written_is_read_back(
    type_: int,
    seq: int,
    payload: bytes,
    notes: dict[str, bytes],
    correlation_id: bytes | None,
    compress: bool,
) -> None:
    data = wire.encode(
        type_, 3, wire.FLAG_BATCH, seq, payload, notes, correlation_id, compress=compress
    )
    parser = wire.Parser(SIZE_MAX)
    (message,) = parser.feed(data)
    assert (message.type, message.serializer_id, message.seq) == (type_, 3, seq)
    assert message.payload == payload
    assert dict(message.annotations) == notes
    assert message.correlation_id == correlation_id
    correlated = wire.FLAG_CORRELATION if correlation_id is not None else 0
    assert message.flags == wire.FLAG_BATCH | correlated
    assert not parser.partial
    assert parser.error is None


def _header(**changes: int | bytes) -> bytes:
    fields: dict[str, int | bytes] = {
        "tag": b"PYRO", "version": 502, "type": 4, "serializer": 1, "flags": 0, "seq": 1,
        "size": 0, "notes": 0, "correlation": bytes(16), "wait": 0, "magic": 0x4DC5, **changes,
    }  # fmt: skip
    return struct.pack("!4sHBBHHII16sHH", *fields.values())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "begin with PYRO"),
        (b"P", None),
        (b"PYR", None),
        (b"PX", "begin with PYRO"),
        (_header(tag=b"PYRX"), "begin with PYRO|protocol version"),
        (_header(version=501), "protocol version"),
        (_header(magic=0), "protocol version"),
        (_header(type=0), "unknown message type 0"),
        (_header(type=7), "unknown message type 7"),
        (_header(size=SIZE_MAX + 1), "too large"),
        (_header(size=0xFFFFFFFF, notes=0xFFFFFFFF), "too large"),
        (_header(size=SIZE_MAX, notes=1), "too large"),
        (_header(size=SIZE_MAX), None),
        (_header(notes=7) + bytes(7), "cut off"),
        (_header(notes=8) + b"ABCD\0\0\0\1", "longer than"),
        (_header(notes=8) + b"\xff\xff\xff\xff\0\0\0\0", "ASCII"),
        (_header(notes=8 * 65) + b"ABCD\0\0\0\0" * 65, "more than 64"),
        (_header(notes=8 * 64) + b"ABCD\0\0\0\0" * 64, None),
    ],
)
def test_bytes_that_are_no_message_are_refused_and_beginnings_are_not(
    data: bytes, why: str | None
) -> None:
    parser = wire.Parser(SIZE_MAX)
    parser.feed(data)
    if why is None:
        assert parser.error is None
    else:
        with pytest.raises(wire.WireError, match=why):
            raise parser.error or AssertionError("it was not refused")


@given(messages(), st.integers(1, 400))
def test_a_lone_message_is_as_one_that_is_fed_and_anything_else_is_left_to_be_fed(
    data: bytes, cut: int
) -> None:
    alone, fed_one = wire.Parser(SIZE_MAX).lone(data), wire.Parser(SIZE_MAX).feed(data)
    assert alone is not None
    assert facts(alone) == facts(fed_one[0])
    parser = wire.Parser(SIZE_MAX)
    assert parser.lone(data[:-cut]) is None
    assert parser.lone(data + b"PYRO") is None
    parser.feed(data[:-cut])
    if cut < len(data):
        assert parser.lone(data) is None  # the beginning of another one waits for its rest
        assert [facts(one) for one in parser.feed(data[-cut:])] == [facts(alone)]


def test_a_lone_message_that_is_wrong_ends_the_parsing_with_the_reason() -> None:
    parser = wire.Parser(SIZE_MAX)
    bomb = wire.encode(wire.MSG_INVOKE, 1, 0, 0, bytes(SIZE_MAX + 1), compress=True)
    assert parser.lone(bomb) is None
    assert "inflates past" in str(parser.error)
    assert parser.feed(bomb) == []


def test_nothing_is_parsed_after_an_error() -> None:
    good = wire.encode(wire.MSG_PING, 1, 0, 1, b"")
    parser = wire.Parser(SIZE_MAX)
    assert len(parser.feed(good + b"GET / " + good)) == 1
    assert parser.error is not None
    assert parser.feed(good) == []
    assert not parser.partial


def test_a_bound_on_messages_keeps_the_rest_as_bytes() -> None:
    parser = wire.Parser(SIZE_MAX)
    data = b"".join(wire.encode(wire.MSG_PING, 1, 0, n, b"x" * n) for n in range(10))
    assert [m.seq for m in parser.feed(data[:-1], 4)] == [0, 1, 2, 3]
    assert parser.more
    assert not parser.partial
    assert [m.seq for m in parser.feed(b"", 4)] == [4, 5, 6, 7]
    assert [m.seq for m in parser.feed(b"", 4)] == [8]
    assert not parser.more
    assert parser.partial
    assert [m.seq for m in parser.feed(data[-1:], 4)] == [9]
    assert not parser.partial


def test_the_size_that_is_allowed_may_grow_after_the_handshake() -> None:
    parser = wire.Parser(10)
    small = wire.encode(wire.MSG_CONNECT, 1, 0, 0, b"x" * 10)
    large = wire.encode(wire.MSG_INVOKE, 1, 0, 1, b"x" * 1000)
    assert len(parser.feed(small + large, 1)) == 1
    parser.size_bytes_max = 1000
    assert len(parser.feed(b"", 1)) == 1
    assert parser.error is None


@pytest.mark.parametrize("inflated_bytes", [SIZE_MAX + 1, 10_000_000])
def test_what_inflates_past_the_bound_is_refused(inflated_bytes: int) -> None:
    parser = wire.Parser(SIZE_MAX)
    bomb = zlib.compress(bytes(inflated_bytes), 9)[:SIZE_MAX]
    assert parser.feed(wire.encode(wire.MSG_CONNECT, 1, wire.FLAG_COMPRESSED, 0, bomb)) == []
    assert "inflates past" in str(parser.error)


@pytest.mark.parametrize("payload", [b"", b"no zlib", zlib.compress(b"x" * 200)[:-3]])
def test_what_is_no_zlib_stream_is_refused(payload: bytes) -> None:
    parser = wire.Parser(SIZE_MAX)
    assert parser.feed(wire.encode(wire.MSG_INVOKE, 1, wire.FLAG_COMPRESSED, 0, payload)) == []
    assert "compressed payload" in str(parser.error)


@pytest.mark.parametrize("name", ["ABC", "ABCDE", "\u00e4bcd", ""])
def test_an_annotation_id_has_four_ascii_letters(name: str) -> None:
    with pytest.raises(wire.WireError, match="4 ASCII letters"):
        wire.encode(wire.MSG_PING, 1, 0, 0, b"", {name: b""})


@pytest.mark.parametrize(
    ("seconds", "field"),
    [
        (0.0, 1),
        (-5.0, 1),
        (-math.inf, 1),
        (0.001, 1),
        (0.5, 50),
        (0.4999, 50),
        (0.5001, 51),
        (10.0, 1000),
        (655.35, 65535),
        (656.0, 0),
        (math.inf, 0),
    ],
)
def test_patience_is_hundredths_of_a_second_and_0_says_nothing(seconds: float, field: int) -> None:
    assert wire.patience(seconds) == field
