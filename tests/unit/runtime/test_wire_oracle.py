"""Our parser and writer against Pyro5's own."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from Pyro5 import config, protocol
from Pyro5.callcontext import current_context

from rmi_runtime import wire
from tests.unit.runtime.test_wire import annotations

types = st.integers(wire.MSG_CONNECT, wire.MSG_PING)
payloads = st.binary(max_size=2000) | st.binary(max_size=5).map(lambda b: b * 400)
plain_flags = st.sampled_from([0, wire.FLAG_ONEWAY, wire.FLAG_BATCH, wire.FLAG_EXCEPTION])


@pytest.fixture(autouse=True)
def _stock_settings_as_before() -> None:
    current_context.correlation_id = None


@given(types, plain_flags, st.integers(0, 0xFFFF), payloads, annotations, st.booleans())
def test_we_read_what_stock_writes(
    type_: int, flags: int, seq: int, payload: bytes, notes: dict[str, bytes], compress: bool
) -> None:
    correlation = uuid.uuid4() if seq % 2 else None
    before = config.COMPRESSION
    current_context.correlation_id = correlation
    config.COMPRESSION = compress
    try:
        sent = protocol.SendingMessage(type_, flags, seq, 4, payload, notes)
    finally:
        config.COMPRESSION = before
        current_context.correlation_id = None
    parser = wire.Parser(1 << 20)
    (message,) = parser.feed(bytes(sent.data))
    assert parser.error is None
    assert (message.type, message.serializer_id, message.seq) == (type_, 4, seq)
    assert message.payload == payload
    assert dict(message.annotations) == notes
    assert message.flags & ~wire.FLAG_CORRELATION == flags
    assert message.correlation_id == (correlation.bytes if correlation else None)
    assert message.patience == 0


@given(types, plain_flags, st.integers(0, 0xFFFF), payloads, annotations, st.booleans())
def test_stock_reads_what_we_write(
    type_: int, flags: int, seq: int, payload: bytes, notes: dict[str, bytes], compress: bool
) -> None:
    correlation_id = uuid.uuid4().bytes if seq % 2 else None
    data = wire.encode(
        type_, 4, flags, seq, payload, notes, correlation_id, compress=compress, patience=seq
    )
    protocol.ReceivingMessage.validate(data)
    message = protocol.ReceivingMessage(data[: wire.HEADER_SIZE], data[wire.HEADER_SIZE :])
    assert (message.type, message.serializer_id, message.seq) == (type_, 4, seq)
    assert bytes(message.data) == payload
    assert {name: bytes(value) for name, value in message.annotations.items()} == notes
    assert message.flags & ~wire.FLAG_CORRELATION == flags
    assert message.corr_id == (correlation_id or bytes(16))


@given(st.binary(max_size=120))
def test_we_accept_nothing_that_stock_refuses(noise: bytes) -> None:
    data = wire.encode(wire.MSG_INVOKE, 1, 0, 1, b"payload", {"ABCD": b"note"})
    changed = bytes(a ^ b for a, b in zip(data, noise.ljust(len(data), b"\0"), strict=False))
    parser = wire.Parser(1 << 20)
    for message in parser.feed(changed):
        stock = protocol.ReceivingMessage(changed[: wire.HEADER_SIZE], changed[wire.HEADER_SIZE :])
        assert bytes(stock.data) == message.payload
        assert stock.seq == message.seq
