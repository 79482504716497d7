"""What `rmi status` finds out, against daemons in this process."""

from __future__ import annotations

import asyncio
import http.server
from typing import Any

import msgspec
import pytest

from rmi_launch.status import ServiceStatus, gather_status, store_line, trouble_lines
from rmi_launch.system import System
from rmi_msg.cluster_state import judge
from rmi_runtime import TROUBLE, Daemon, Identity, expose

NOWHERE = "127.0.0.1:1"


@expose
class Thing:
    def ask(self) -> int:
        return 1


def system(*services: tuple[str, str, str]) -> System:
    """A system without name server and gateway, of whose services rmi up has written."""
    written: list[dict[str, Any]] = [
        {"name": name, "address": address, "state": state, "pid": 1, "restarts": 0}
        for name, address, state in services
    ]
    return System((NOWHERE,), NOWHERE, {"cluster_key": "00"}, tuple(written))


def only_services(handshake: object, peer: object) -> Identity:
    assert handshake == {"cluster_key": "00"}
    return Identity("service")


async def named(where: System) -> dict[str, ServiceStatus]:
    return {row.name: row for row in await gather_status(where)}


async def test_a_service_is_asked_itself_even_without_a_name_server() -> None:
    async with Daemon(authenticate=only_services) as daemon:
        daemon.register(Thing(), "bank.data")
        rows = await named(system(("bank.data", daemon.location, "ready")))
    row = rows["bank.data"]
    assert (row.state, row.address) == ("ready", daemon.location)
    assert row.pid is not None
    assert row.calls is not None
    assert row.uptime_s is not None


async def test_who_does_not_answer_is_unreachable_and_who_is_known_to_be_absent_is_shown_so() -> (
    None
):
    where = system(
        ("bank.data", NOWHERE, "ready"),
        ("msg.logger.1", NOWHERE, "waiting"),
        ("msg.logger.2", NOWHERE, "dead"),
        ("msg.logger.3", "", "starting"),
        ("msg.logger.4", NOWHERE, "draining"),
    )
    rows = await named(where)
    assert {name: row.state for name, row in rows.items()} == {
        "bank.data": "unreachable",
        "msg.logger.1": "waiting",
        "msg.logger.2": "dead",
        "msg.logger.3": "starting",
        "msg.logger.4": "draining",
        "gateway": "unreachable",
    }
    assert all(row.pid is None for row in rows.values())


@pytest.mark.parametrize(
    ("written", "shown"), [("dead", "dead"), ("waiting", "waiting"), ("ready", "unreachable")]
)
async def test_a_gateway_that_is_known_to_be_absent_is_shown_so(written: str, shown: str) -> None:
    rows = await named(system(("gateway", NOWHERE, written)))
    assert {name: row.state for name, row in rows.items()} == {"gateway": shown}


async def test_what_answers_but_is_no_service_is_unreachable() -> None:
    async with Daemon(authenticate=lambda handshake, peer: 1 / 0) as daemon:  # type: ignore[arg-type,return-value]
        rows = await named(system(("bank.data", daemon.location, "ready")))
    assert rows["bank.data"].state == "unreachable"


@pytest.mark.parametrize(
    "answer",
    [
        b'{"status": "UP"}',
        b'{"uptime_s": "3 days"}',
        b'{"pid": 1, "uptime_s": 1e400, "calls": 1, "errors": 1, "calls_per_s": 1}',
        b'{"pid": NaN}',
        b'{"x": ' + 60_000 * b"[",
    ],
)
async def test_another_program_where_the_gateway_should_be_is_not_taken_for_one(
    answer: bytes,
) -> None:
    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as server:
        serving = asyncio.create_task(asyncio.to_thread(server.handle_request))
        where = System((NOWHERE,), f"127.0.0.1:{server.server_port}", {"cluster_key": "00"})
        rows = await named(where)
        await serving
    assert rows["gateway"].state == "unreachable"


async def test_a_line_tells_of_services_that_cannot_do_their_work() -> None:
    async with Daemon(authenticate=only_services) as daemon:
        daemon.register(Thing(), "msg.logger.1")
        places = [(name, daemon.location, "ready") for name in ("msg.logger.1", "msg.logger.2")]
        where = system(*places)
        assert trouble_lines(await gather_status(where)) == []
        daemon.daemon_object.notes[TROUBLE] = lambda: "the store is gone"
        [line] = trouble_lines(await gather_status(where))
    assert line.plain == "msg.logger.1, msg.logger.2: the store is gone"


async def test_a_line_tells_what_the_messages_cluster_does_if_there_is_one() -> None:
    state = judge(["h:1", "h:2"], ["h:1", "h:2", "h:3"], 1, was_whole=True)
    async with Daemon(authenticate=only_services) as daemon:
        daemon.register(Thing(), "msg.logger.1")
        where = system(("msg.logger.1", daemon.location, "ready"))
        assert store_line(await gather_status(where)) is None
        daemon.daemon_object.notes["store"] = lambda: msgspec.to_builtins(state)
        rows = await gather_status(where)
    assert (await named(where))["msg.logger.1"].store is None
    line = store_line(rows)
    assert line is not None
    assert line.plain == (
        "Hazelcast: 2 of 3 members (not there: h:3), lost a member, safe for the next loss"
    )
