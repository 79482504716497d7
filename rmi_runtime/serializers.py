"""Pyro5's serializers, made fit for bytes from strangers.

serpent, json and msgpack are Pyro5's own classes with three changes, all on the way in:

- a serialized proxy becomes our :class:`~rmi_runtime.proxy.Proxy`, which dials nobody until one
  of its methods is awaited; serialized daemons and serializers are refused;
- an exception becomes the one of our tree that its ``code`` names, or the builtin or Pyro5
  exception it says it is; any other becomes :class:`RemoteError` instead of being lost, and
  none may end the process (``SystemExit``, ``KeyboardInterrupt``);
- the number of elements is bounded before anything is parsed, because parsing blocks the loop.

marshal is not here: it is not made for untrusted bytes.
"""

from __future__ import annotations

import builtins
import sqlite3
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgpack
from Pyro5 import core
from Pyro5 import errors as pyro_errors
from Pyro5.errors import SerializeError
from Pyro5.serializers import JsonSerializer as StockJson
from Pyro5.serializers import MsgpackSerializer as StockMsgpack
from Pyro5.serializers import SerpentSerializer as StockSerpent

from rmi_runtime import errors

Call = tuple[str, str, Any, Any]
"""Object id, method name, positional arguments, keyword arguments."""

_SEPARATORS: Final = b",[({:"


class RemoteError(errors.Indefinite):
    """The remote method raised an exception whose class is not known here.

    ``fields`` holds ``exception`` (the class's full name) and ``traceback`` (a list of lines).
    """

    code = "remote_error"


def _make_proxy(state: Any) -> Any:
    from rmi_runtime.proxy import Proxy  # noqa: PLC0415  (proxies need serializers, and these them)

    return Proxy._from_state(state)


def _plain_attributes(data: Mapping[str, Any]) -> dict[str, Any]:
    attributes = data.get("attributes")
    if not isinstance(attributes, Mapping):
        return {}
    return {
        name: value
        for name, value in attributes.items()
        if isinstance(name, str) and not name.startswith("__")
    }


def _exception_class(name: str) -> type[BaseException] | None:
    """Return the class that an exception's full name stands for, if it is one of the known."""
    module, _, short = name.rpartition(".")
    found: Any = None
    if module in ("builtins", "exceptions", ""):
        found = getattr(builtins, short, None)
    elif module == "Pyro5.errors":
        found = getattr(pyro_errors, short, None)
    elif module == "sqlite3" and short.endswith("Error"):
        found = getattr(sqlite3, short, None)
    elif name == "struct.error":
        found = struct.error
    if not isinstance(found, type) or not issubclass(found, BaseException):
        return None
    # What would end the process that receives it is not raised there.
    return found if issubclass(found, (Exception, GeneratorExit)) else None


def exception_from_dict(data: Mapping[str, Any]) -> BaseException:
    """Rebuild an exception from Pyro5's dictionary form.

    Args:
        data: ``{"__class__", "__exception__", "args", "attributes"}``.

    Returns:
        An error of our tree, a builtin or Pyro5 exception, or a :class:`RemoteError`.
    """
    attributes = _plain_attributes(data)
    traceback = attributes.get("_pyroTraceback")
    error: BaseException | None = errors.from_wire(data)
    if error is None:
        name = str(data.get("__class__", ""))
        args = data.get("args")
        args = tuple(args) if isinstance(args, (list, tuple)) else ()
        cls = _exception_class(name)
        if cls is None:
            text = ", ".join(str(arg) for arg in args)
            lines = [str(line) for line in traceback] if isinstance(traceback, list) else []
            error = RemoteError(f"{name}: {text}", exception=name, traceback=lines)
        else:
            error = cls(*args)
            for attribute, value in attributes.items():
                setattr(error, attribute, value)
    if traceback:
        error._pyroTraceback = traceback  # type: ignore[attr-defined]
    return error


def _to_object(data: Mapping[str, Any], stock: Callable[[Any], Any]) -> Any:
    """Turn a dictionary with a ``__class__`` into the object it stands for, or refuse it."""
    name = data.get("__class__")
    if not isinstance(name, str):
        raise SerializeError("refused: the name of a serialized class is not a string")
    if name == "Pyro5.client.Proxy":
        return _make_proxy(data.get("state"))
    if name == "Pyro5.core._ExceptionWrapper":
        inner = data.get("exception")
        return core._ExceptionWrapper(
            exception_from_dict(inner) if isinstance(inner, Mapping) else inner
        )
    if data.get("__exception__") or name.startswith("Pyro5.errors."):
        return exception_from_dict(data)
    if name.startswith(("Pyro5.server.", "Pyro5.util.")):
        raise SerializeError(f"refused: {name} objects do not travel to this peer")
    return stock(data)


def _check_elements(payload: bytes, elements_max: int | None) -> None:
    """Refuse text with more separators than *elements_max*, before it is parsed."""
    if elements_max is None or len(payload) <= elements_max:
        return
    elements = sum(payload.count(separator) for separator in _SEPARATORS)
    if elements > elements_max:
        raise SerializeError(
            f"refused: the data has more than {elements_max} elements; send less at once"
        )


class SerpentSerializer(StockSerpent):  # type: ignore[misc]
    """serpent: Python literals as text; Pyro5's default."""

    def load_call(self, payload: bytes, elements_max: int | None) -> Call:
        """Read a call. Raises whatever the data provokes, always an ``Exception``."""
        _check_elements(payload, elements_max)
        return _checked_call(self.loadsCall(payload))

    @classmethod
    def dict_to_class(cls, data: Any) -> Any:
        """Turn a tagged dictionary into an object (hook of Pyro5's base class)."""
        return _to_object(data, super().dict_to_class)


class JsonSerializer(StockJson):  # type: ignore[misc]
    """json: for peers that speak nothing else."""

    def load_call(self, payload: bytes, elements_max: int | None) -> Call:
        """Read a call. Raises whatever the data provokes, always an ``Exception``."""
        _check_elements(payload, elements_max)
        return _checked_call(self.loadsCall(payload))

    @classmethod
    def dict_to_class(cls, data: Any) -> Any:
        """Turn a tagged dictionary into an object (hook of Pyro5's base class)."""
        return _to_object(data, super().dict_to_class)


class MsgpackSerializer(StockMsgpack):  # type: ignore[misc]
    """msgpack: the fastest of the safe ones; what our own proxies speak."""

    def dumps(self, data: Any) -> bytes:
        """Return *data* as msgpack."""
        packed: bytes = msgpack.packb(data, use_bin_type=True, default=self.default)
        return packed

    def loads(self, data: bytes) -> Any:
        """Read a value."""
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=False,
            object_hook=self.object_hook,
            ext_hook=self.ext_hook,
        )

    def load_call(self, payload: bytes, elements_max: int | None) -> Call:
        """Read a call. Raises whatever the data provokes, always an ``Exception``."""
        bound = len(payload) if elements_max is None else elements_max
        call = msgpack.unpackb(
            payload,
            raw=False,
            strict_map_key=False,
            max_array_len=bound,
            max_map_len=bound,
            object_hook=self.object_hook,
            ext_hook=self.ext_hook,
        )
        return _checked_call(call)

    @classmethod
    def dict_to_class(cls, data: Any) -> Any:
        """Turn a tagged dictionary into an object (hook of Pyro5's base class)."""
        return _to_object(data, super().dict_to_class)


Serializer = SerpentSerializer | JsonSerializer | MsgpackSerializer


def _checked_call(call: Any) -> Call:
    if not isinstance(call, (list, tuple)) or len(call) != 4:
        raise SerializeError("a call is (object id, method, arguments, keyword arguments)")
    object_id, method, args, kwargs = call
    if not isinstance(object_id, str) or not isinstance(method, str):
        raise SerializeError("the object id and the method name of a call are strings")
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, (dict, type(None))):
        raise SerializeError("the arguments of a call are a list, and a dictionary or None")
    return object_id, method, args, kwargs


_serpent, _json, _msgpack = SerpentSerializer(), JsonSerializer(), MsgpackSerializer()

BY_NAME: Final[Mapping[str, Serializer]] = {
    "serpent": _serpent,
    "json": _json,
    "msgpack": _msgpack,
}
BY_ID: Final[Mapping[int, Serializer]] = {s.serializer_id: s for s in BY_NAME.values()}
