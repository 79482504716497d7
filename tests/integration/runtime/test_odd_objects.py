"""Whatever an object does or hides: there is an answer, and no more than was exposed."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import Pyro5.api
import Pyro5.errors
import pytest
from Pyro5.api import current_context
from Pyro5.errors import ProtocolError, PyroError

from rmi_runtime import Daemon, Proxy, SyncProxy, allow, current_call, errors, expose


class Unspeakable(Exception):
    """Cannot be described nor serialized."""

    def __init__(self) -> None:
        super().__init__(object())

    def __str__(self) -> str:
        raise RuntimeError("no words")


class UnspeakableEnd(BaseException):
    """What ends a program, and cannot say why."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class NoSuchThing(errors.NotFound):
    """Is made of other things than its message."""

    code = "test_no_such_thing"

    def __init__(self, number: int, thing: object) -> None:
        super().__init__(f"no thing {number}", number=number, thing=thing)


class NoSuchNumber(errors.NotFound):
    """Is made of a number, and tells no facts."""

    code = "test_no_such_number"

    def __init__(self, number: object) -> None:
        super().__init__(f"no number {number}")


@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
async def test_errors_whose_classes_have_constructors_of_their_own_arrive(
    daemon: Daemon, serializer: str
) -> None:
    @expose
    class Things:
        def thing(self) -> None:
            raise NoSuchThing(7, "spoon")

        def number(self) -> None:
            raise NoSuchNumber(8)

    async with Proxy(daemon.register(Things()), serializer=serializer) as proxy:
        with pytest.raises(NoSuchThing, match=r"\Ano thing 7\Z") as raised:
            await proxy.thing()
        assert raised.value.fields == {"number": 7, "thing": "spoon"}
        with pytest.raises(NoSuchNumber, match=r"\Ano number 8\Z"):
            await proxy.number()


@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
async def test_whatever_a_method_raises_or_returns_there_is_an_answer(
    daemon: Daemon, serializer: str
) -> None:
    @expose
    class Odd:
        def unspeakable(self) -> None:
            raise Unspeakable

        def odd_fields(self) -> None:
            raise errors.Conflict("odd", thing=object())

        def odd_constructor(self) -> None:
            raise NoSuchThing(7, object())

        def unspeakable_end(self) -> None:
            raise UnspeakableEnd

        async def unspeakable_later(self) -> None:
            raise UnspeakableEnd

        def surrogate(self) -> None:
            raise ValueError("\udc80")

        def no_traceback(self) -> None:
            raise SyntaxError(object(), ("file", 1, "no column", "text"))

        def not_serializable(self) -> object:
            return (n for n in "abc").gi_frame

        def bad_annotation(self) -> int:
            current_call().response_annotations["TOO LONG"] = b""
            return 1

        async def generator_exit(self) -> None:
            raise KeyboardInterrupt

        def endless(self) -> Any:
            found: list[Any] = []
            found.append(found)
            return found

    daemon.register(Odd(), "odd")
    async with Proxy(f"PYRO:odd@{daemon.location}", serializer=serializer) as proxy:
        for name in sorted(proxy._methods):
            with pytest.raises(Exception) as raised:  # noqa: PT011 (any, but in time)
                await proxy._call(name, timeout_s=10.0)
            assert not isinstance(raised.value, (errors.CallTimeout, errors.ConnectionLost)), name
            getattr(batch := proxy._batch(), name)()
            with pytest.raises(Exception) as raised:  # noqa: PT011
                list(await batch())
            assert not isinstance(raised.value, (errors.CallTimeout, errors.ConnectionLost)), name
        with pytest.raises(errors.Conflict):
            await proxy.odd_fields()


@pytest.mark.parametrize("odd", [ZeroDivisionError("none today"), {"TOO LONG": b""}, {"ODDS": ""}])
async def test_whatever_annotations_a_daemon_has_there_is_an_answer(odd: Any) -> None:
    class Noted(Daemon):
        notes: Any = None

        def annotations(self) -> dict[str, bytes]:
            if isinstance(self.notes, Exception):
                raise self.notes
            found: dict[str, bytes] = self.notes
            return found

    expected = (ZeroDivisionError, ProtocolError, TypeError)
    async with Noted() as daemon:
        uri = daemon.uri_for("Pyro.Daemon")
        async with Proxy(uri) as proxy, Proxy(uri) as late:
            daemon.notes = odd
            with pytest.raises(expected):
                await proxy._call("ping", timeout_s=5.0)
            await late._close()
            with pytest.raises(errors.Forbidden):
                await late._bind(5.0)
            daemon.notes = None
            await proxy._call("ping")
            await late._bind()


@pytest.mark.parametrize("serializer", ["serpent", "json", "msgpack"])
async def test_a_stock_client_learns_what_a_task_group_raised(
    daemon: Daemon, serializer: str
) -> None:
    class Grouped:
        @expose
        async def gather(self) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.fail())

        async def fail(self) -> None:
            raise LookupError("the reason")

    uri = daemon.register(Grouped())

    def call() -> None:
        with Pyro5.api.Proxy(uri) as proxy:
            proxy._pyroSerializer = serializer
            batch = Pyro5.api.BatchProxy(proxy)
            batch.gather()
            for act in (proxy.gather, lambda: list(batch())):
                with pytest.raises((ExceptionGroup, PyroError), match="a TaskGroup") as raised:
                    act()
                assert "the reason" in "".join(raised.value._pyroTraceback)

    await asyncio.to_thread(call)


@pytest.mark.parametrize("late", [False, True])
async def test_who_is_nobody_is_refused_at_once(late: bool) -> None:
    async def find_out() -> Any:
        return None

    def identify(handshake: object, connection: object) -> Any:
        return find_out() if late else None  # no Identity: a slip of whoever wrote it

    async with Daemon(authenticate=identify) as daemon:
        async with asyncio.timeout(10):  # a lost answer would come to light at half a minute
            with pytest.raises(errors.Forbidden, match="rejected: 'NoneType'"):
                await Proxy(f"PYRO:any@{daemon.location}", timeout_s=30.0)._bind(30.0)
        assert daemon.connections.refusals == 1


async def test_a_getter_of_an_unexposed_property_does_not_run(daemon: Daemon) -> None:
    ran: list[str] = []

    class Guarded:
        @property
        def secret(self) -> int:
            ran.append("secret")
            return 1

        @expose
        def open(self) -> int:
            return 2

    daemon.register(Guarded(), "guarded")
    async with Proxy(f"PYRO:guarded@{daemon.location}") as proxy:
        with pytest.raises(AttributeError, match="unexposed"):
            await proxy._call("secret")
        with pytest.raises(AttributeError):
            await proxy._call("__getattr__", ("secret",))
        assert await proxy.open() == 2
    assert ran == []


async def test_who_may_set_a_property_is_said_at_its_setter(daemon: Daemon) -> None:
    class Guarded:
        level = 1

        @property
        def shown(self) -> int:
            return self.level

        @expose
        @shown.setter
        def shown(self, value: int) -> None:
            self.level = value

    allow("admin")(Guarded.shown.fset)  # type: ignore[attr-defined]
    daemon.register(Guarded(), "guarded")
    async with Proxy(f"PYRO:guarded@{daemon.location}") as proxy:
        assert await proxy.shown == 1
        with pytest.raises(errors.Unauthenticated):
            await proxy._set("shown", 5)
        assert await proxy.shown == 1


@pytest.mark.parametrize("threads", [0, 2])
async def test_a_setter_behind_an_exposed_getter_runs_like_any_method(threads: int) -> None:
    where: list[object] = []

    class Idiomatic:
        @expose
        @property
        def value(self) -> int:
            return 1

        @value.setter
        def value(self, value: str) -> None:
            where.append(current_context.annotations.get("WORD"))
            where.append(threading.current_thread() is threading.main_thread())
            raise TypeError(value)

        @property
        def hidden(self) -> int:
            return 1

        @hidden.setter
        @expose
        def hidden(self, value: int) -> None:
            where.append("never")

    async with Daemon(threads=threads) as daemon, Proxy(daemon.register(Idiomatic())) as proxy:
        with pytest.raises(TypeError, match="its own"):
            await proxy._call("__setattr__", ("value", "its own"), annotations={"WORD": b"yes"})
        assert where == [b"yes", not threads]
        assert not daemon.faults._due, "what it raises is no fault"
        with pytest.raises(AttributeError):
            await proxy._call("__setattr__", ("hidden", 2))
        assert where == [b"yes", not threads]


async def test_an_object_that_answers_to_every_name_can_be_called(
    daemon: Daemon,
) -> None:
    class Willing:
        @expose
        def ping(self) -> str:
            return "pong"

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_pyro"):
                raise AttributeError(name)
            return lambda: name

    daemon.register(Willing(), "willing")
    async with Proxy(f"PYRO:willing@{daemon.location}") as proxy:
        assert await proxy.ping() == "pong"
        with pytest.raises(AttributeError, match="unexposed"):
            await proxy._call("anything")


@expose
class Named:
    """What is registered under ids that others had before."""


async def test_a_weak_object_that_dies_does_not_take_the_id_of_its_successor_along() -> None:
    async with Daemon() as daemon:
        first, second = Named(), Named()
        daemon.register(first, "taken", weak=True)
        daemon.register(second, "taken", force=True)
        del first
        gc.collect()
        assert daemon.objects.by_id()["taken"] is second
        second = Named()
        daemon.register(second, "weak", weak=True)
        del second
        gc.collect()
        assert "weak" not in daemon.objects.by_id()


async def test_who_connects_to_an_object_that_exposes_nothing_makes_the_server_warn() -> None:
    class Forgotten:
        def method(self) -> None: ...

    async with Daemon() as daemon:
        for number, forgotten in enumerate((Forgotten, Forgotten())):
            uri = daemon.register(forgotten, f"forgotten.{number}")
            with pytest.warns(UserWarning, match="Forgotten exposes nothing"):
                async with Proxy(uri):
                    pass


def test_the_objects_can_be_listed_while_they_come_and_go() -> None:
    daemon, named = Daemon(), Named()

    class Going(weakref.ref[Named]):
        """Stands where another thread, or the garbage collector, gets its turn."""

        def __call__(self) -> Named | None:
            daemon.unregister("last")
            return super().__call__()

    daemon.objects._objects["first"] = Going(named)
    daemon.register(Named(), "last")
    assert set(daemon.objects.by_id()) == {"Pyro.Daemon", "first"}
    daemon._socket.close()


async def test_an_object_whose_getattr_raises_what_it_likes_is_served(daemon: Daemon) -> None:
    @expose
    class Record:
        """Looks unknown attributes up in a dictionary, as many do."""

        def __init__(self) -> None:
            self.fields = {"name": "one"}

        def __getattr__(self, name: str) -> Any:
            return self.fields[name]

        def greet(self) -> str:
            return "hello " + self.name

    @allow("service")
    @expose
    class Secret(Record):
        def greet(self) -> str:
            return "secret"

    daemon.register(Record, "record")  # type: ignore[arg-type]
    daemon.register(Secret, "secret")  # type: ignore[arg-type]
    async with Proxy(f"PYRO:record@{daemon.location}") as record:
        assert await record.greet() == "hello one"
    async with Proxy(f"PYRO:secret@{daemon.location}") as secret:
        with pytest.raises(errors.Unauthenticated):
            await secret.greet()


@pytest.mark.parametrize("threads", [0, 1])
async def test_a_stop_iteration_arrives_with_its_remote_traceback_and_notes(threads: int) -> None:
    @expose
    class Stopping:
        def stop(self) -> None:
            error = StopIteration(7)
            error.add_note("a note")
            raise error

    async with Daemon(threads=threads) as daemon:
        daemon.register(Stopping(), "stopping")
        uri = f"PYRO:stopping@{daemon.location}"

        def ask() -> tuple[StopIteration, str]:
            with SyncProxy(uri) as proxy, pytest.raises(StopIteration) as raised:
                proxy.stop()
            return raised.value, "".join(Pyro5.errors.get_pyro_traceback(*raised._excinfo))

        error, text = await asyncio.to_thread(ask)
        assert error.args == (7,)
        assert error.__notes__ == ["a note"]
        assert "in stop" in text
