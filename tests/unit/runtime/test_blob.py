"""Blobs, and the part of marshal's format that describes them."""

from __future__ import annotations

import contextlib
import marshal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from Pyro5.api import SerializedBlob as StockBlob
from Pyro5.errors import SerializeError

from rmi_runtime import wire
from rmi_runtime.wire import blob
from rmi_runtime.wire.serializers import BY_NAME

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=5).map(tuple) | st.lists(inner, max_size=5),
    max_leaves=30,
)


def written(info: Any) -> bytes:
    return blob.write_info((info, "object", "method"))


@given(plain, st.integers(2, 4))
def test_what_marshal_writes_is_read_the_same(value: Any, version: int) -> None:
    assert repr(blob.read_plain(marshal.dumps(value, version))) == repr(value)


@given(plain)
def test_what_is_written_here_marshal_reads_the_same(value: Any) -> None:
    assert repr(marshal.loads(written(value))) == repr((value, "object", "method"))


@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(SerializeError):
        blob.read_plain(data)


@given(plain, st.data())
def test_every_beginning_of_a_value_is_refused(value: Any, data: st.DataObject) -> None:
    whole = marshal.dumps((value,))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(SerializeError):
        blob.read_plain(whole[:cut])


def test_values_that_occur_twice_are_read_from_their_references() -> None:
    text, inner = "a" * 1000, ("x", 2**70)
    value = (text, text, inner, inner, (inner, text))
    data = marshal.dumps(value)
    assert len(data) < 2000
    assert blob.read_plain(data) == value


def test_references_do_not_make_a_huge_value_of_a_small_message() -> None:
    value: Any = ("x",)
    for _ in range(12):
        value = (value, value, value)
    data = marshal.dumps(value)
    assert len(data) < 500
    with pytest.raises(SerializeError, match="too many values"):
        blob.read_plain(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (marshal.dumps({"a": 1}), "not plain"),
        (marshal.dumps({1, 2}), "not plain"),
        (marshal.dumps(compile("1", "x", "eval")), "not plain"),
        (marshal.dumps(1 + 2j), "not plain"),
        (b"r\x00\x00\x00\x00", "not there"),
        (b"\xa9\x01r\x00\x00\x00\x00", "not there"),  # a tuple of itself
        (b"(\xff\xff\xff\x7f", "too many values"),
        (b"(\xff\xff\xff\xff", "too many values"),
        (b"s\xff\xff\xff\x7f", "cut off"),
        (b"s\xff\xff\xff\xff", "cut off"),
        (b"l\xff\xff\xff\x7f", "too long"),
        (b"N trailing", "bytes follow"),
        (b")\x01" * 50 + b"N", "nested too deep"),
        (b"u\x01\x00\x00\x00\xff", "no value in marshal"),
        (b"", "cut off"),
    ],
)
def test_what_is_more_than_plain_values_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(SerializeError, match=words):
        blob.read_plain(data)


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"a": 1}, "plain values"),
        (object(), "plain values"),
        ("x" * blob.INFO_SIZE_BYTES_MAX, "at most"),
        (1 << 10_000, "too long"),
    ],
)
def test_an_info_that_is_not_plain_or_too_long_is_not_sent(info: Any, words: str) -> None:
    with pytest.raises(SerializeError, match=words):
        written(info)


@pytest.mark.parametrize("note", [None, b"N", marshal.dumps(("a", "b")), marshal.dumps((1, 2, 3))])
def test_a_message_without_a_proper_annotation_is_refused(note: bytes | None) -> None:
    annotations = {} if note is None else {blob.ANNOTATION_BLOB: note}
    message = wire.Message(wire.MSG_INVOKE, 4, wire.FLAG_KEEP_SERIALIZED, 1, b"", annotations)
    with pytest.raises(SerializeError):
        blob.read_blob_call(message, BY_NAME["msgpack"], None)


@pytest.mark.parametrize("name", ["serpent", "json", "msgpack"])
def test_a_received_blob_reads_its_data_only_when_asked(name: str) -> None:
    serializer = BY_NAME[name]
    sent = StockBlob("info", [1, {"a": "b"}])
    payload, number, note = blob.encode_blob_call("object", "method", [sent], {}, serializer)
    message = wire.Message(
        wire.MSG_INVOKE, number, wire.FLAG_KEEP_SERIALIZED, 1, payload, {blob.ANNOTATION_BLOB: note}
    )
    object_id, method, (received,), kwargs = blob.read_blob_call(message, serializer, None)
    assert (object_id, method, kwargs, received.info) == ("object", "method", {}, "info")
    assert received.deserialized() == [1, {"a": "b"}]
    again = blob.encode_blob_call("other", "method", [received], {}, BY_NAME["msgpack"])
    assert again[:2] == (payload, number)


def test_the_data_of_a_blob_is_bounded_when_it_is_read() -> None:
    serializer = BY_NAME["serpent"]
    payload, number, note = blob.encode_blob_call(
        "object", "method", [StockBlob("info", list(range(1000)))], {}, serializer
    )
    message = wire.Message(wire.MSG_INVOKE, number, 0, 1, payload, {blob.ANNOTATION_BLOB: note})
    received = blob.read_blob_call(message, serializer, 100)[2][0]
    with pytest.raises(SerializeError):
        received.deserialized()


def test_a_blob_in_marshal_is_not_passed_on() -> None:
    received = StockBlob("info", None)
    received._contains_blob, received._data = True, blob._Payload(b"", 2)
    with pytest.raises(SerializeError, match="serializer 2"):
        blob.encode_blob_call("object", "method", [received], {}, BY_NAME["msgpack"])
