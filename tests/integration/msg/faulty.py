"""Daemons whose connections break, and a messages file that fails, at random from a seed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from rmi_msg import http_gateway
from rmi_msg.messages import Consumer
from rmi_msg.stores.sqlite import FILE_NAME
from rmi_runtime import Daemon, service
from rmi_runtime.daemon.connection import ServerConnection
from rmi_runtime.files import sqlite
from rmi_runtime.http import HttpServer

LEASE_S: Final = 0.4
"""Life of a claim."""


class Faults:
    """What goes wrong just now, and who is there to have it go wrong.

    Args:
        seed: of all chances.

    Attributes:
        breaks: chance that a connection breaks, at each message, before or after it is heeded.
        fails: chance that a statement on the messages file fails.
        daemons: the daemon of each service, by Pyro name.
        gateways: the gateways' servers, by port.
        consumers: the tasks of messages services that consume, by Pyro name.
        counts: how often what went wrong.
    """

    def __init__(self, seed: object) -> None:
        self.rng = Random(f"{seed}/faults")
        self.breaks = self.fails = 0.0
        self.daemons: dict[str, Daemon] = {}
        self.gateways: dict[int, HttpServer] = {}
        self.consumers: dict[str, asyncio.Task[Any]] = {}
        self.counts: dict[str, int] = {}

    def happens(self, what: str, chance: float) -> bool:
        """Say whether it goes wrong this time, and count it."""
        happens = chance > 0 and self.rng.random() < chance
        if happens:
            self.counts[what] = self.counts.get(what, 0) + 1
        return happens

    def cease(self) -> None:
        """Let nothing more go wrong."""
        self.breaks = self.fails = 0.0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the services that are started from now on use what fails."""
        open_file = sqlite.connect

        def connect(path: str | Path, *, uri: bool = False) -> Any:
            connection = open_file(path, uri=uri)
            return FailingFile(connection, self) if Path(path).name == FILE_NAME else connection

        monkeypatch.setattr(sqlite, "connect", connect)
        monkeypatch.setattr(service, "Daemon", _with(BreakingDaemon, self))
        monkeypatch.setattr(service, "collect_rarely", lambda: None)  # it is for whole processes
        monkeypatch.setattr(http_gateway, "collect_rarely", lambda: None)
        monkeypatch.setattr(http_gateway, "HttpServer", _with(BreakingHttpServer, self))
        monkeypatch.setattr("rmi_msg.messages.Consumer", _with(KnownConsumer, self))


def _with(kind: Callable[..., Any], faults: Faults) -> Callable[..., Any]:
    def make(*args: Any, **kwargs: Any) -> Any:
        return kind(faults, *args, **kwargs)

    return make


class BreakingConnection(ServerConnection):
    """Breaks when a message has come or a reply is to leave."""

    def __init__(self, faults: Faults, daemon: Daemon, number: int) -> None:
        super().__init__(daemon, number)
        self._faults = faults

    def data_received(self, data: bytes) -> None:
        if self._faults.happens("request lost", self._faults.breaks):
            self.abort()
        else:
            super().data_received(data)

    def send(self, data: bytes) -> None:
        if self._faults.happens("reply lost", self._faults.breaks):
            self.abort()
        else:
            super().send(data)


class BreakingDaemon(Daemon):
    """A daemon with :class:`BreakingConnection`."""

    def __init__(self, faults: Faults, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._faults = faults

    def register(self, obj_or_class: Any, name: str | None = None, **options: Any) -> Any:
        assert name is not None
        self._faults.daemons[name] = self
        return super().register(obj_or_class, name, **options)

    def _new_connection(self) -> ServerConnection:
        return BreakingConnection(self._faults, self, self.connections.next_number())


class BreakingHttpServer(HttpServer):
    """The gateway's server, known to whoever breaks its connections."""

    def __init__(self, faults: Faults, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._faults = faults

    async def start(self, *args: Any) -> None:
        await super().start(*args)
        self._faults.gateways[self.address[1]] = self


class KnownConsumer(Consumer):
    """A consumer in a hurry, which can be killed between any two steps."""

    def __init__(self, faults: Faults, name: str, *args: Any) -> None:
        limit = faults.rng.choice([1, 7, 1000])
        hurry = {"poll_s": 0.01, "rush_poll_s": 0.02, "lease_s": LEASE_S, "sweep_s": 0.05}
        super().__init__(name, *args, limit=limit, **hurry)
        self._faults = faults

    async def run(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._faults.consumers[self._name] = task
        await super().run()


class FailingFile:
    """A connection to the messages file, whose statements fail as those of a bad disk do."""

    def __init__(self, connection: sqlite3.Connection, faults: Faults) -> None:
        self._connection = connection
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        faults, connection = self._faults, self._connection
        if sql == "ROLLBACK":
            return connection.execute(sql)
        if faults.happens(f"{sql.partition(' ')[0]} failed", faults.fails):
            if sql == "COMMIT" and faults.rng.random() < 0.5:  # as SQLite does by itself
                connection.execute("ROLLBACK")
            raise sqlite3.OperationalError(
                faults.rng.choice(
                    ["database is locked", "database or disk is full", "disk I/O error"]
                )
            )
        found = connection.execute(sql, *parameters)
        if sql == "COMMIT" and faults.happens("COMMIT held and failed", faults.fails):
            raise sqlite3.OperationalError("disk I/O error")
        return found

    def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if self._faults.happens("many failed", self._faults.fails):
            raise sqlite3.OperationalError("database or disk is full")
        found = self._connection.executemany(sql, *parameters)
        if self._faults.happens("many done and failed", self._faults.fails):
            raise sqlite3.OperationalError("disk I/O error")
        return found
