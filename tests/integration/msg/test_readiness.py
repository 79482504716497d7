"""The gateway's readiness and its table: what they say is so now, and not as of the last look."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from rmi_msg.gateway_status import FRESH_S, SERVICES_MAX, Census, Readiness
from rmi_runtime import (
    TROUBLE,
    Announcer,
    Daemon,
    Endpoints,
    Entry,
    NameServers,
    ServiceAuthenticator,
    client_context,
    expose,
    server_context,
)
from rmi_runtime.credentials.certificates import create_authority, create_certificate
from tests.integration.runtime.names import KEY, SERVICE_HANDSHAKE, name_server

FOREVER_S = 3600.0


@expose
class Logger:
    """A service that is there."""


@contextlib.asynccontextmanager
async def logger(
    names: NameServers, name: str = "msg.logger.1", trouble: str | None = None
) -> AsyncIterator[Announcer]:
    async with Daemon(authenticate=ServiceAuthenticator(KEY)) as daemon:
        uri = daemon.register(Logger(), name)
        daemon.daemon_object.notes[TROUBLE] = lambda: trouble
        async with Announcer(names, name, uri, metadata=["rmi"]) as announcer:
            await announcer.announced.wait()
            yield announcer


@contextlib.asynccontextmanager
async def logger_names(location: str) -> AsyncIterator[NameServers]:
    names = NameServers([location], handshake=SERVICE_HANDSHAKE)
    yield names
    await names.aclose()


async def test_a_service_that_was_announced_a_moment_ago_counts() -> None:
    async with name_server() as location:
        names = NameServers([location], handshake=SERVICE_HANDSHAKE)
        async with Endpoints(names, "msg.logger.", refresh_s=FOREVER_S) as loggers:
            needed = {"logger": loggers}
            assert await Readiness(needed, SERVICE_HANDSHAKE).reasons() == [
                "no logger is announced"
            ]
            async with logger(names):
                assert await Readiness(needed, SERVICE_HANDSHAKE).reasons() == []
        await names.aclose()


async def test_a_service_that_is_announced_and_does_not_answer_is_none() -> None:
    async with name_server() as location:
        names = NameServers([location], handshake=SERVICE_HANDSHAKE)
        async with (
            Endpoints(names, "msg.logger.", refresh_s=FOREVER_S) as loggers,
            Announcer(names, "msg.logger.1", "PYRO:msg.logger.1@127.0.0.1:1") as announcer,
        ):
            await announcer.announced.wait()
            await loggers.ready()
            assert await Readiness({"logger": loggers}, SERVICE_HANDSHAKE).reasons() == [
                "no logger of 1 announced answers"
            ]
        await names.aclose()


async def test_services_that_all_tell_of_trouble_are_not_enough_and_one_that_does_not_is() -> None:
    async with name_server() as location, logger_names(location) as names:
        async with (
            Endpoints(names, "msg.logger.", refresh_s=FOREVER_S) as loggers,
            logger(names, "msg.logger.1", "the store is gone"),
        ):
            needed = {"logger": loggers}
            assert await Readiness(needed, SERVICE_HANDSHAKE).reasons() == [
                "no logger of 1 announced can do its work: its store cannot be used; "
                "'rmi status' says why"
            ]
            [row] = [
                row
                for row in await Census(names, SERVICE_HANDSHAKE).rows()
                if row["name"] == "msg.logger.1"
            ]
            assert row["trouble"] == "its store cannot be used; 'rmi status' says why"
        async with (
            logger(names, "msg.logger.1", "the store is gone"),
            logger(names, "msg.logger.2"),
            Endpoints(names, "msg.logger.", refresh_s=FOREVER_S) as loggers,
        ):
            assert await Readiness({"logger": loggers}, SERVICE_HANDSHAKE).reasons() == []
            rows = await Census(names, SERVICE_HANDSHAKE).rows()
            assert ["trouble" in row for row in rows if "logger" in row["name"]] == [True, False]


async def test_a_service_whose_certificate_has_expired_is_told_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.now(UTC)
    ca = create_authority(tmp_path, now)
    late = create_certificate(tmp_path, ["late"], now - timedelta(days=400))
    daemon = Daemon(
        authenticate=ServiceAuthenticator(KEY), ssl=server_context(late.certificate, late.key)
    )
    async with name_server() as location, logger_names(location) as names, daemon:
        uri = daemon.register(Logger(), "msg.logger.1")
        ssl = client_context(ca.certificate)
        async with (
            Endpoints(names, "msg.logger.", refresh_s=FOREVER_S, ssl=ssl) as loggers,
            Announcer(names, "msg.logger.1", uri) as announcer,
        ):
            await announcer.announced.wait()
            await loggers.ready()
            now_s = 50.0
            readiness = Readiness({"logger": loggers}, SERVICE_HANDSHAKE, ssl, lambda: now_s)
            for _ in range(2):
                (reason,) = await readiness.reasons()
                assert reason.startswith("no logger of 1 announced answers: ")
                assert "certificate has expired" in reason
                now_s += FRESH_S + 0.01
    told = [text for text in caplog.messages if text.startswith("not ready")]
    assert len(told) == 1
    assert "certificate has expired" in told[0]


async def test_the_table_has_a_service_that_was_announced_a_moment_ago() -> None:
    async with name_server() as location, logger_names(location) as names:
        census = Census(names, SERVICE_HANDSHAKE)
        assert "msg.logger.1" not in [row["name"] for row in await census.rows()]
        async with logger(names):
            row = (await census.rows())[-1]
            assert (row["name"], row["state"]) == ("msg.logger.1", "ready")


async def test_the_services_of_the_table_are_not_asked_again_within_a_moment() -> None:
    async with name_server() as location, logger_names(location) as names, logger(names):
        now_s = 50.0
        census = Census(names, SERVICE_HANDSHAKE, clock=lambda: now_s)
        first = await census.rows()
        assert await census.rows() is first
        now_s += FRESH_S + 0.01
        assert await census.rows() is not first


class Listing:
    """Name servers that answer when the test says so."""

    ssl = None

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.answers = asyncio.Event()

    async def list(self) -> dict[str, Entry]:
        await self.answers.wait()
        return self.entries


async def test_the_table_does_not_wait_long_for_a_name_server_that_hangs() -> None:
    async with Daemon(authenticate=ServiceAuthenticator(KEY)) as daemon:
        names = Listing()
        census = Census(cast(NameServers, names), SERVICE_HANDSHAKE)

        async def shown() -> list[tuple[str, str]]:
            asked = asyncio.ensure_future(census.rows())
            done, _ = await asyncio.wait([asked], timeout=10)
            assert done, "it waits for the name server"
            return [(row["name"], row["state"]) for row in await asked]

        def announce(name: str) -> None:
            uri = str(daemon.register(Logger(), name))
            names.entries[name] = Entry(uri, frozenset({"rmi"}))

        announce("msg.logger.1")
        assert await shown() == []
        names.answers.set()
        assert await shown() == [("msg.logger.1", "ready")]
        names.answers.clear()
        announce("msg.logger.2")
        assert await shown() == [("msg.logger.1", "ready")]
        names.answers.set()
        assert await shown() == [("msg.logger.1", "ready"), ("msg.logger.2", "ready")]


async def test_the_table_has_the_services_however_many_other_names_there_are() -> None:
    names = Listing()
    names.answers.set()
    foreign = Entry("PYRO:arm@127.0.0.1:1")
    names.entries = {f"laboratory.arm.{number}": foreign for number in range(SERVICES_MAX)}
    async with Daemon(authenticate=ServiceAuthenticator(KEY)) as daemon:
        uri = str(daemon.register(Logger(), "msg.logger.1"))
        names.entries["msg.logger.1"] = Entry(uri, frozenset({"rmi"}))
        rows = await Census(cast(NameServers, names), SERVICE_HANDSHAKE).rows()
    assert [(row["name"], row["state"]) for row in rows] == [("msg.logger.1", "ready")]
