"""The serializers: what comes in, from whomever."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from typing import Any

import msgpack
import Pyro5.api
import Pyro5.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from Pyro5.core import _ExceptionWrapper
from Pyro5.serializers import serializers as stock

from rmi_runtime import Proxy, SyncProxy, errors, wire
from rmi_runtime.daemon.handshake import read_connect
from rmi_runtime.wire.serializers import (
    BY_ID,
    BY_NAME,
    MsgpackSerializer,
    RemoteError,
    exception_from_dict,
    make_serializers,
)

NAMES = sorted(BY_NAME)
# What reading may raise; MemoryError, RecursionError and what tells of a slip are not among it.
UNREADABLE = (
    *(Pyro5.errors.PyroError, errors.RmiError, ValueError, TypeError, LookupError),
    *(ArithmeticError, OSError, struct.error),
)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text().filter(lambda t: t != "__class__"), inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_the_numbers_are_those_of_stock_without_marshal() -> None:
    assert {number: found.name for number, found in BY_ID.items()} == {
        1: "serpent",
        3: "json",
        4: "msgpack",
    }


@pytest.mark.parametrize("name", NAMES)
@given(value=values)
def test_stock_and_ours_read_each_other(name: str, value: Any) -> None:
    ours, theirs = BY_NAME[name], stock[name]
    assert repr(ours.loads(theirs.dumps(value))) == repr(theirs.loads(theirs.dumps(value)))
    assert repr(theirs.loads(ours.dumps(value))) == repr(theirs.loads(theirs.dumps(value)))
    call = ("object", "method", [value], {"key": value})
    found = ours.load_call(theirs.dumpsCall(*call), None)
    assert repr(tuple(found)) == repr(tuple(theirs.loadsCall(theirs.dumpsCall(*call))))


hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)
anything = st.recursive(
    hashable | st.sets(hashable, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(hashable, inner, max_size=3)
    ),
    max_leaves=12,
)


@given(anything)
def test_serpents_text_means_the_same_whichever_way_it_was_made(value: Any) -> None:
    ours, theirs = BY_NAME["serpent"], stock["serpent"]
    try:
        expected = repr(theirs.loads(theirs.dumps(value)))
    except Exception:  # two nan as keys, and other things that serpent cannot write or read
        return
    assert repr(theirs.loads(ours.dumps(value))) == expected


def test_serpents_text_of_deep_and_of_endless_values_is_left_to_serpent() -> None:
    deep: list[Any] = []
    for _ in range(30):
        deep = [deep]
    assert stock["serpent"].loads(BY_NAME["serpent"].dumps(deep)) == deep
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="Circular"):
        BY_NAME["serpent"].dumps(endless)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=300))
def test_random_bytes_provoke_nothing_but_exceptions(name: str, data: bytes) -> None:
    for read in (BY_NAME[name].loads, lambda d: BY_NAME[name].load_call(d, 100)):
        with contextlib.suppress(*UNREADABLE):
            read(data)


@pytest.mark.parametrize(
    "call",
    [
        ["object", "method", []],
        ["object", "method", [], {}, 1],
        [1, "method", [], {}],
        ["object", 2, [], {}],
        ["object", "method", 3, {}],
        ["object", "method", [], [4]],
        "call",
        None,
    ],
)
def test_a_call_of_another_shape_is_refused(call: Any) -> None:
    for name in ("serpent", "msgpack"):
        serializer = BY_NAME[name]
        with pytest.raises(Exception, match=r"call|unpack|values"):
            serializer.load_call(serializer.dumps(call), None)


def test_more_elements_than_the_bound_are_refused(name: str) -> None:
    serializer = BY_NAME[name]
    small = serializer.dumpsCall("object", "method", [[1] * 50], {})
    large = serializer.dumpsCall("object", "method", [[1] * 500], {})
    assert serializer.load_call(small, 100)[2] in ([[1] * 50], ([1] * 50,))
    with pytest.raises(Exception, match="elements"):
        serializer.load_call(large, 100)


# -- proxies


def _sent(name: str, value: Any) -> bytes:
    return stock[name].dumps(value)


def test_keys_that_collide_are_refused_in_a_handshake_too() -> None:
    keys = [msgpack.ExtType(0x30, struct.pack("dd", -1_000_003.0 * n, n)) for n in range(200)]
    assert len({hash(complex(-1_000_003.0 * n, n)) for n in range(200)}) == 1
    payload = msgpack.packb({"object": "target", "handshake": dict.fromkeys(keys)})
    message = wire.Message(wire.MSG_CONNECT, BY_NAME["msgpack"].serializer_id, 0, 0, payload)
    with pytest.raises(Pyro5.errors.SerializeError, match="equal hashes"):
        read_connect(BY_NAME["msgpack"], message, 4096)


def test_a_serialized_proxy_becomes_ours_in_its_own_serializer_and_dials_nobody(name: str) -> None:
    proxy = Pyro5.api.Proxy("PYRO:thing@localhost:4711")
    proxy._pyroHandshake = "word"
    found = BY_NAME[name].loads(_sent(name, {"inside": [proxy]}))["inside"][0]
    assert type(found) is Proxy
    assert found == Proxy("PYRO:thing@localhost:4711")
    assert (found._serializer_name, found._handshake, found._connected) == (name, "word", False)


def test_the_owner_of_a_serializer_decides_what_proxies_become(name: str) -> None:
    own = make_serializers(lambda serializer: lambda state: (serializer, state[0]))[name]
    proxy = Pyro5.api.Proxy("PYRO:thing@localhost:4711")
    assert own.loads(_sent(name, proxy)) == (name, "PYRO:thing@localhost:4711")
    with pytest.raises(Pyro5.errors.SerializeError, match="proxies do not travel"):
        MsgpackSerializer().loads(_sent("msgpack", proxy))


@pytest.mark.parametrize("made", [Proxy, SyncProxy])
def test_our_proxies_travel_to_stock_without_their_handshake(name: str, made: Any) -> None:
    proxy = made("PYRO:thing@localhost:4711", handshake={"token": "secret"})
    data = BY_NAME[name].dumps(proxy)
    assert b"secret" not in data
    found = stock[name].loads(data)
    assert type(found) is Pyro5.api.Proxy
    assert str(found._pyroUri) == "PYRO:thing@localhost:4711"


@pytest.mark.parametrize(
    "state",
    [None, [], "PYRO:x@y:1", [1, 2, 3, 4, 5, 6], ["no uri", [], [], [], None, None], {"a": 1}],
)
def test_a_forged_proxy_is_refused(state: Any) -> None:
    data = BY_NAME["msgpack"].dumps({"__class__": "Pyro5.client.Proxy", "state": state})
    with pytest.raises(Exception, match=r"serialized proxy|invalid uri"):
        BY_NAME["msgpack"].loads(data)


@pytest.mark.parametrize(
    "forged",
    [
        {"__class__": "Pyro5.server.Daemon", "state": []},
        {"__class__": "Pyro5.util.MarshalSerializer"},
        {"__class__": "os.system", "args": ["true"]},
        {"__class__": "builtins.eval", "__exception__": False},
        {"__class__": "__main__.X"},
        {"__class__": 7},
        {"__class__": None},
        {"__class__": ["builtins.ValueError"]},
    ],
)
def test_forged_classes_are_refused(name: str, forged: dict[str, Any]) -> None:
    with pytest.raises(Pyro5.errors.PyroError):
        BY_NAME[name].loads(stock[name].dumps(forged))


# -- exceptions


def _exception(cls: str, *args: Any, **attributes: Any) -> dict[str, Any]:
    return {"__class__": cls, "__exception__": True, "args": args, "attributes": attributes}


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        ("builtins.ValueError", ValueError),
        ("exceptions.KeyError", KeyError),
        ("Pyro5.errors.NamingError", Pyro5.errors.NamingError),
        ("sqlite3.IntegrityError", sqlite3.IntegrityError),
        ("struct.error", struct.error),
        ("builtins.GeneratorExit", RemoteError),
        ("builtins.SystemExit", RemoteError),
        ("builtins.KeyboardInterrupt", RemoteError),
        ("builtins.BaseException", RemoteError),
        ("builtins.print", RemoteError),
        ("Pyro5.errors.sys", RemoteError),
        ("sqlite3.Connection", RemoteError),
        ("some.where.Error", RemoteError),
        ("", RemoteError),
    ],
)
def test_exceptions_become_what_they_say_if_that_is_known_and_harmless(
    cls: str, expected: type[BaseException]
) -> None:
    found = exception_from_dict(_exception(cls, "what", 1))
    assert type(found) is expected
    assert "what" in str(found)


def test_an_exception_whose_class_wants_other_arguments_is_not_lost() -> None:
    found = exception_from_dict(_exception("builtins.UnicodeDecodeError", "only one"))
    assert type(found) is RemoteError
    assert "UnicodeDecodeError: only one" in str(found)


def test_attributes_and_notes_are_kept_and_special_ones_are_not() -> None:
    data = _exception(
        "builtins.ValueError",
        "x",
        place=3,
        __cause__="forged",
        __class__="forged",
        __notes__=["a note"],
        _pyroTraceback=["line"],
    )
    found: Any = exception_from_dict(data)
    assert (found.place, found.__notes__, found._pyroTraceback) == (3, ["a note"], ["line"])
    assert found.__cause__ is None
    assert type(found) is ValueError
    odd: Any = exception_from_dict(_exception("builtins.ValueError", "x", __notes__=[1]))
    assert not hasattr(odd, "__notes__")


@pytest.mark.parametrize("args", [None, "text", 3, {"a": 1}])
def test_arguments_of_another_shape_are_none(args: Any) -> None:
    data = {"__class__": "builtins.ValueError", "__exception__": True, "args": args}
    assert exception_from_dict(data).args == ()


def test_errors_of_our_tree_travel_inside_results_too(name: str) -> None:
    serializer = BY_NAME[name]
    error = errors.Conflict("taken", name="x")
    found = serializer.loads(serializer.dumps([error]))[0]
    assert type(found) is errors.Conflict
    assert (found.message, found.fields) == ("taken", {"name": "x"})
    plain = stock[name].loads(serializer.dumps([error]))[0]
    assert type(plain) is ValueError
    assert plain.code == "conflict"


def test_exceptions_in_batches_are_unwrapped_as_deep_as_they_are(name: str) -> None:
    serializer = BY_NAME[name]
    data = stock[name].dumps([1, _ExceptionWrapper(KeyError("x"))])
    one, wrapped = serializer.loads(data)
    assert one == 1
    assert type(wrapped.exception) is KeyError


def test_converters_of_the_user_come_first(name: str) -> None:
    Pyro5.api.register_dict_to_class("own.Error", lambda cls, data: OSError(*data["args"]))
    try:
        data = stock[name].dumps(_exception("own.Error", 5, "own"))
        found = BY_NAME[name].loads(data)
        assert type(found) is OSError
        assert found.errno == 5
    finally:
        Pyro5.api.unregister_dict_to_class("own.Error")
