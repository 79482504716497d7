"""Pyro5's serializers, made fit for bytes from strangers.

serpent, json and msgpack are Pyro5's own classes with three changes, all on the way in:

- a serialized proxy becomes what the owner of the serializer wants, usually our
  :class:`~rmi_runtime.proxy.proxy.Proxy`, which dials nobody until one of its methods is awaited;
  serialized daemons and serializers are refused;
- an exception becomes the one of our tree that its ``code`` names, or the builtin or Pyro5
  exception it says it is; any other becomes :class:`RemoteError` instead of being lost, and
  none may end the process (``SystemExit``, ``KeyboardInterrupt``). Converters registered with
  ``Pyro5.api.register_dict_to_class`` come before all this, as with stock Pyro5;
- the number of elements is bounded before anything is parsed, because parsing blocks the loop.

marshal is not here: it is not made for untrusted bytes.
"""

from __future__ import annotations

import builtins
import re
import sqlite3
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from math import isfinite
from typing import Any, Final

import msgpack
from Pyro5 import core
from Pyro5 import errors as pyro_errors
from Pyro5.errors import SerializeError
from Pyro5.serializers import JsonSerializer as StockJson
from Pyro5.serializers import MsgpackSerializer as StockMsgpack
from Pyro5.serializers import SerializerBase
from Pyro5.serializers import SerpentSerializer as StockSerpent

from rmi_runtime import errors
from rmi_runtime.wire import literals
from rmi_runtime.wire.unreadable import explain_unreadable

Call = tuple[str, str, Any, Any]
"""Object id, method name, positional arguments, keyword arguments."""

MakeProxy = Callable[[Any], Any]
"""Makes a proxy of the state that a peer sent; see :meth:`rmi_runtime.Proxy._from_state`."""

_TAG: Final = b"__class__"  # a payload without it has no objects to make
_SERPENT_HEAD: Final = b"# serpent utf-8 python3.2\n"
_LONG_CHARS: Final = 256
_SCALARS: Final = frozenset({type(None), bool, int, str})
_SEQUENCES: Final = (list, tuple)
_PLAIN_DEPTH: Final = 8
# One packer does for values that need no hook: nothing else runs in the middle of packing them.
_HOOKLESS: Final = frozenset({type(None), bool, bytes, str})
_NUMBERS_TOO: Final = _HOOKLESS | {int, float}
# Long integers and complex numbers travel as msgpack's extension types, which begin so.
_extension: Final = re.compile(rb"[\xc7-\xc9\xd4-\xd8]").search
_pack_hookless: Final = msgpack.Packer(use_bin_type=True).pack
_NOTES: Final = "__notes__"  # the one special attribute of exceptions that may travel (PEP 678)

# Pyro5 keeps its users' converters in a private registry, asked before anything else.
_CONVERTERS: Final = "_SerializerBase__custom_dict_to_class_registry"
_converters: Final[Mapping[str, Callable[[str, Any], Any]]] = getattr(SerializerBase, _CONVERTERS)


class RemoteError(errors.Indefinite):
    """The remote method raised an exception whose class is not known here.

    ``fields`` holds ``exception`` (the class's full name) and ``traceback`` (a list of lines).
    """

    code = "remote_error"


def _plain_attributes(data: Mapping[str, Any]) -> dict[str, Any]:
    attributes = data.get("attributes")
    if not isinstance(attributes, Mapping):
        return {}
    plain = {
        name: value
        for name, value in attributes.items()
        if isinstance(name, str) and not name.startswith("__")
    }
    notes = attributes.get(_NOTES)
    if isinstance(notes, (list, tuple)) and all(isinstance(note, str) for note in notes):
        plain[_NOTES] = list(notes)
    return plain


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
    # What would end the process or the coroutine that receives it is not raised there.
    return found if issubclass(found, Exception) else None


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
        try:
            if cls is not None:
                error = cls(*args)
        except Exception:  # its class wants other arguments than it carries
            error = None
        if error is None:
            text = ", ".join(str(arg) for arg in args)
            lines = [str(line) for line in traceback] if isinstance(traceback, list) else []
            error = RemoteError(f"{name}: {text}", exception=name, traceback=lines)
        for attribute, value in attributes.items():
            setattr(error, attribute, value)
    if traceback:
        error._pyroTraceback = traceback  # type: ignore[attr-defined]
    return error


def _to_object(data: Mapping[str, Any], stock: Callable[[Any], Any], make_proxy: MakeProxy) -> Any:
    """Turn a dictionary with a ``__class__`` into the object it stands for, or refuse it."""
    name = data.get("__class__")
    if not isinstance(name, str):
        raise SerializeError("refused: the name of a serialized class is not a string")
    if name in _converters:
        return _converters[name](name, data)
    if name == "Pyro5.client.Proxy":
        return make_proxy(data.get("state"))
    if name == "Pyro5.core._ExceptionWrapper":
        inner = data.get("exception")
        if isinstance(inner, Mapping):
            inner = _to_object(inner, stock, make_proxy)
        return core._ExceptionWrapper(inner)
    if data.get("__exception__") or name.startswith("Pyro5.errors."):
        return exception_from_dict(data)
    if name.startswith(("Pyro5.server.", "Pyro5.util.")):
        raise SerializeError(f"refused: {name} objects do not travel to this peer")
    return stock(data)


class _Guarded:
    """What the three serializers have in common.

    Args:
        make_proxy: what serialized proxies become; None refuses them.
    """

    name = ""

    def __init__(self, make_proxy: MakeProxy | None = None) -> None:
        self._make_proxy = make_proxy or _refuse_proxy

    def dict_to_class(self, data: Any) -> Any:
        """Turn a tagged dictionary into an object (hook of Pyro5's base class)."""
        return _to_object(data, super().dict_to_class, self._make_proxy)  # type: ignore[misc]

    def dump_piece(self, data: Any) -> bytes:
        """Return *data* as one item of what ``join_pieces`` makes."""
        piece: bytes = self.dumps(data)  # type: ignore[attr-defined]
        return piece

    def load_blob(self, payload: bytes, elements_max: int | None) -> Any:
        """Read the arguments of a call that was kept serialized; they may be any value."""
        return self._load(payload, elements_max)[2]  # type: ignore[attr-defined]

    def load_bounded(self, payload: bytes, elements_max: int) -> Any:
        """Read what a stranger sent: a value that holds so many others, and no keys that collide.

        Raises whatever the data provokes, always an ``Exception``.
        """
        literals.check_elements(payload, elements_max)
        return self.loads(payload)  # type: ignore[attr-defined]


class SerpentSerializer(_Guarded, StockSerpent):  # type: ignore[misc]
    """serpent: Python literals as text; Pyro5's default. Read without Python's own parser."""

    name = "serpent"

    def dumps(self, data: Any) -> bytes:
        """Return *data* as serpent's text."""
        if type(data) is str and len(data) > _LONG_CHARS:
            return _SERPENT_HEAD + literals.quote(data)
        if type(data) in _SCALARS or _is_plain(data, _PLAIN_DEPTH):
            return _SERPENT_HEAD + repr(data).encode("utf-8")
        text: bytes = super().dumps(data)
        return text

    def dump_piece(self, data: Any) -> bytes:
        """Return *data* as one item of what :meth:`join_pieces` makes."""
        return self.dumps(data).removeprefix(_SERPENT_HEAD)

    def join_pieces(self, pieces: Sequence[bytes]) -> bytes:
        """Return what :meth:`dumps` of a list would be."""
        return b"%b[%b]" % (_SERPENT_HEAD, b",".join(pieces))

    def loads(self, data: bytes) -> Any:
        """Read a value."""
        return self._load(data, None)

    def load_call(self, payload: bytes, elements_max: int | None) -> Call:
        """Read a call. Raises whatever the data provokes, always an ``Exception``."""
        if elements_max is None or len(payload) <= elements_max:
            plain = literals.plain_call(payload)
            if plain is not None:
                return plain
        return _checked_call(self._load(payload, elements_max))

    def _load(self, payload: bytes, elements_max: int | None) -> Any:
        value = literals.loads(payload, elements_max)
        return self.recreate_classes(value) if _TAG in payload else value


class JsonSerializer(_Guarded, StockJson):  # type: ignore[misc]
    """json: for peers that speak nothing else."""

    name = "json"

    def join_pieces(self, pieces: Sequence[bytes]) -> bytes:
        """Return what :meth:`dumps` of a list would be."""
        return b"[%b]" % b",".join(pieces)

    def load_call(self, payload: bytes, elements_max: int | None) -> Call:
        """Read a call. Raises whatever the data provokes, always an ``Exception``."""
        return _checked_call(self._load(payload, elements_max))

    def _load(self, payload: bytes, elements_max: int | None) -> Any:
        if elements_max is not None and len(payload) > elements_max:
            literals.check_elements(payload, elements_max)
        return self.loadsCall(payload)


class MsgpackSerializer(_Guarded, StockMsgpack):  # type: ignore[misc]
    """msgpack: the fastest of the safe ones; what our own proxies speak."""

    name = "msgpack"

    def dumps(self, data: Any) -> bytes:
        """Return *data* as msgpack."""
        if type(data) in _HOOKLESS:
            scalar: bytes = _pack_hookless(data)
            return scalar
        packed: bytes = msgpack.packb(data, use_bin_type=True, default=self.default)
        return packed

    def join_pieces(self, pieces: Sequence[bytes]) -> bytes:
        """Return what :meth:`dumps` of a list would be."""
        head: bytes = msgpack.Packer().pack_array_header(len(pieces))
        return head + b"".join(pieces)

    def dumpsCall(
        self, obj: str, method: str, vargs: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> bytes:
        """Return a call as msgpack."""
        call = (obj, method, vargs, kwargs)
        if not kwargs and _NUMBERS_TOO.issuperset(map(type, vargs)):
            try:
                plain: bytes = _pack_hookless(call)
            except OverflowError:
                pass  # an integer for the hook
            else:
                return plain
        packed: bytes = msgpack.packb(call, use_bin_type=True, default=self.default)
        return packed

    def loads(self, data: bytes) -> Any:
        """Read a value."""
        hook = self.object_hook if _TAG in data else None
        try:
            return msgpack.unpackb(
                data, raw=False, strict_map_key=False, object_hook=hook, ext_hook=self.ext_hook
            )
        except TypeError as error:
            explain_unreadable(error, len(data))
            raise

    def load_call(self, payload: bytes, elements_max: int | None) -> Call:
        """Read a call. Raises whatever the data provokes, always an ``Exception``."""
        return _checked_call(self._load_bounded(payload, elements_max))

    def load_blob(self, payload: bytes, elements_max: int | None) -> Any:
        """Read the arguments of a call that was kept serialized; they may be any value."""
        _, _, data, _ = self._load_bounded(payload, elements_max)
        return data

    def load_bounded(self, payload: bytes, elements_max: int) -> Any:
        """Read what a stranger sent: see the other serializers."""
        return self._load_bounded(payload, elements_max)

    def _load_bounded(self, payload: bytes, elements_max: int | None) -> Any:
        bound = len(payload) if elements_max is None else elements_max
        hook, pairs_hook = (self.object_hook if _TAG in payload else None), None
        if elements_max is not None and _extension(payload):
            hook, pairs_hook = None, self._checked_dict
        try:
            return msgpack.unpackb(
                payload,
                raw=False,
                strict_map_key=False,
                max_array_len=bound,
                max_map_len=bound,
                object_hook=hook,
                object_pairs_hook=pairs_hook,
                ext_hook=self.ext_hook,
            )
        except (TypeError, ValueError) as error:
            explain_unreadable(error, bound)
            raise

    def _checked_dict(self, pairs: list[tuple[Any, Any]]) -> Any:
        """Make a dictionary whose keys may be of the types whose hashes a stranger can choose."""
        literals.check_keys([key for key, _ in pairs])
        return self.object_hook(dict(pairs))


Serializer = SerpentSerializer | JsonSerializer | MsgpackSerializer


def _is_plain(value: Any, depth: int) -> bool:
    """Tell whether Python's own text form of a value is serpent's too."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is float:
        return isfinite(value)
    inside: Collection[Any]
    if kind is dict and _SCALARS.issuperset(map(type, value)):
        inside = value.values()
    elif kind in _SEQUENCES or (kind is set and value):  # an empty set is written as a tuple
        inside = value
    else:
        return False
    return _SCALARS.issuperset(map(type, inside)) or (
        depth > 0 and all(_is_plain(one, depth - 1) for one in inside)
    )


def _checked_call(call: Any) -> Call:
    if type(call) not in _SEQUENCES or len(call) != 4:
        raise SerializeError("a call is (object id, method, arguments, keyword arguments)")
    object_id, method, args, kwargs = call
    if not isinstance(object_id, str) or not isinstance(method, str):
        raise SerializeError("the object id and the method name of a call are strings")
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, (dict, type(None))):
        raise SerializeError("the arguments of a call are a list, and a dictionary or None")
    return object_id, method, args, kwargs


def _refuse_proxy(state: Any) -> Any:
    raise SerializeError("refused: proxies do not travel to this peer")


def _received_proxy(serializer: str) -> MakeProxy:
    """Return what makes our proxies, speaking the serializer in which they came."""

    def make(state: Any) -> Any:
        from rmi_runtime.proxy.proxy import Proxy  # noqa: PLC0415  (proxies need serializers as well)

        return Proxy._from_state(state, serializer=serializer)

    return make


_CLASSES: Final = (SerpentSerializer, JsonSerializer, MsgpackSerializer)


def make_serializers(make_proxy: Callable[[str], MakeProxy]) -> Mapping[str, Serializer]:
    """Return a set of serializers, by name.

    Args:
        make_proxy: given a serializer's name, returns what serialized proxies become in it.
    """
    return {cls.name: cls(make_proxy(cls.name)) for cls in _CLASSES}


BY_NAME: Final = make_serializers(_received_proxy)
BY_ID: Final[Mapping[int, Serializer]] = {s.serializer_id: s for s in BY_NAME.values()}

# Errors of our tree keep their code wherever they are inside a result, not only when raised.
SerializerBase.register_class_to_dict(errors.RmiError, errors.to_wire)
