"""When the HTTP server ends a connection whose client has not read all of its answer yet."""

from __future__ import annotations

import asyncio

from rmi_runtime.http import HttpLimits, HttpServer
from rmi_runtime.http.flow import LINGER_S, PART_BYTES
from rmi_runtime.http.protocol import HttpProtocol
from tests.support import Clock, turns

MEBIBYTE = 1024 * 1024


class Line(asyncio.Transport):
    """A transport whose other end reads nothing more.

    Args:
        unread_bytes: what waits to be sent.

    Attributes:
        aborted: whether it was ended without sending that.
    """

    def __init__(self, unread_bytes: int) -> None:
        super().__init__()
        self.unread_bytes = unread_bytes
        self.closing = self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def can_write_eof(self) -> bool:
        return False

    def write(self, data: object) -> None:
        pass


class SlowLine(Line):
    """A transport whose other end reads on when told to.

    Attributes:
        sent_bytes: what the other end has read.
        ended: whether the other end was told that nothing more comes.
    """

    def __init__(self, connection: HttpProtocol) -> None:
        super().__init__(0)
        self._connection = connection
        self.sent_bytes = 0
        self.ended = False

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended
        self.unread_bytes += len(data)
        self._connection.pause_writing()

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def read(self) -> None:
        self.sent_bytes += self.unread_bytes
        self.unread_bytes = 0
        self._connection.resume_writing()


async def no_app(scope: object, receive: object, send: object) -> None:
    raise AssertionError


def server_of(clock: Clock, connections_max: int = 1) -> HttpServer:
    return HttpServer(no_app, limits=HttpLimits(connections_max=connections_max), clock=clock)


def connected(server: HttpServer, unread_bytes: int = 0) -> tuple[HttpProtocol, Line]:
    connection, line = HttpProtocol(server), Line(unread_bytes)
    connection.connection_made(line)
    return connection, line


def test_who_has_some_of_an_answer_to_read_yet_is_not_sent_away_as_silent(clock: Clock) -> None:
    server = server_of(clock)
    _, line = connected(server, unread_bytes=1000)
    clock.now_s += server.limits.silent_s_min
    connected(server)
    assert not line.aborted


def test_who_reads_nothing_for_long_makes_way_too(clock: Clock) -> None:
    server = server_of(clock)
    _, line = connected(server, unread_bytes=1000)
    clock.now_s += server.limits.write_wait_s
    connected(server)
    assert line.aborted


def test_who_has_nothing_to_read_makes_way_after_a_moment(clock: Clock) -> None:
    server = server_of(clock)
    _, line = connected(server)
    clock.now_s += server.limits.silent_s_min
    connected(server)
    assert line.aborted


def test_a_connection_that_closes_waits_for_its_client_to_read_and_not_for_ever(
    clock: Clock,
) -> None:
    server = server_of(clock)
    connection, line = connected(server, unread_bytes=1000)
    clock.now_s += 2 * server.limits.write_wait_s  # so long the application took
    connection.shutdown()
    server.sweep()
    assert line.closing
    assert not line.aborted
    clock.now_s += server.limits.write_wait_s + 1.0
    server.sweep()
    assert line.aborted


def slowly_connected(server: HttpServer) -> tuple[HttpProtocol, SlowLine]:
    connection = HttpProtocol(server)
    line = SlowLine(connection)
    connection.connection_made(line)
    return connection, line


def test_who_reads_a_long_answer_slowly_gets_all_of_it(clock: Clock) -> None:
    server = server_of(clock)
    connection, line = slowly_connected(server)
    connection.write(bytes(10 * PART_BYTES))
    for part in range(10):
        assert connection.unread_bytes == (10 - part) * PART_BYTES
        clock.now_s += server.limits.write_wait_s - 1.0
        server.sweep()
        assert not line.aborted
        line.read()
    assert line.sent_bytes == 10 * PART_BYTES
    assert not connection.unread_bytes


def test_who_stops_to_read_a_long_answer_is_cut_off(clock: Clock) -> None:
    server = server_of(clock)
    connection, line = slowly_connected(server)
    connection.write(bytes(10 * PART_BYTES))
    line.read()
    clock.now_s += server.limits.write_wait_s + 1.0
    server.sweep()
    assert line.aborted


async def test_our_last_words_are_all_sent_before_the_end(clock: Clock) -> None:
    server = server_of(clock)
    connection, line = slowly_connected(server)
    connection.write(bytes(3 * PART_BYTES))
    connection.shutdown()
    for _ in range(3):
        assert not line.closing
        line.read()
    await turns()
    assert line.closing
    assert line.sent_bytes == 3 * PART_BYTES
    assert not line.aborted


async def test_who_has_said_all_has_time_to_read_the_answer(clock: Clock) -> None:
    server = server_of(clock)
    connection, line = slowly_connected(server)
    connection.write(bytes(2 * PART_BYTES))
    connection.linger()
    for _ in range(2):
        clock.now_s += 2 * LINGER_S
        server.sweep()
        assert not line.ended
        assert not line.aborted
        line.read()
    await turns()
    assert line.ended
    clock.now_s += 2 * LINGER_S
    server.sweep()
    assert line.aborted
    assert line.sent_bytes == 2 * PART_BYTES


async def test_to_who_has_just_gone_nothing_is_said_any_more(clock: Clock) -> None:
    class GoneLine(SlowLine):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            super().write(data)
            self.closing = True

        def write_eof(self) -> None:
            raise OSError(107, "Transport endpoint is not connected")

    connection = HttpProtocol(server_of(clock))
    line = GoneLine(connection)
    connection.connection_made(line)
    connection.linger()
    connection.write(bytes(10 * PART_BYTES))
    line.read()
    await turns()
    assert line.sent_bytes == PART_BYTES


async def test_who_sends_on_and_on_after_a_refusal_is_cut_off(clock: Clock) -> None:
    connection, line = slowly_connected(server_of(clock))
    connection.data_received(b"\0\r\n")
    sent_bytes = 0
    while not line.aborted and sent_bytes < 64 * MEBIBYTE:
        connection.data_received(bytes(PART_BYTES))
        sent_bytes += PART_BYTES
    assert MEBIBYTE < sent_bytes < 64 * MEBIBYTE
