"""The objects of one daemon, by id, and what of them is exposed."""

from __future__ import annotations

import inspect
import threading
import uuid
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from Pyro5.core import DAEMON_NAME
from Pyro5.errors import DaemonError
from Pyro5.serializers import serializers as stock_serializers
from Pyro5.server import _get_exposed_members, _pyro_obj_to_auto_proxy, _reset_exposed_members


class Instances(dict[type, Any]):
    """Objects that were made of registered classes: for one connection, or for all.

    Attributes:
        making: held while one is made, which may happen on several threads. Others go on: what a
            class does when an object is made may take long, or call this daemon.
    """

    __slots__ = ("making",)

    def __init__(self) -> None:
        super().__init__()
        self.making = threading.RLock()


class NotCopied:
    """Base class of daemons: the objects registered there can be copied and pickled.

    They refer to their daemon. A deep copy, or what comes out of a pickle, has none, and is
    registered nowhere. (With stock it has a daemon that is of no use.)
    """

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()


class ObjectTable:
    """Registered objects and classes.

    Args:
        daemon_object: the daemon's own object, registered from the start and for good.
    """

    def __init__(self, daemon_object: Any) -> None:
        self._objects: dict[str, Any] = {DAEMON_NAME: daemon_object}
        self._singles = Instances()

    def __len__(self) -> int:
        return len(self._objects)

    def ids(self) -> list[str]:
        """Return the ids of all registered objects."""
        return list(self._objects)

    def by_id(self) -> Mapping[str, Any]:
        """Return the objects and classes that live, by their ids."""
        found = {name: self._resolve(name) for name in list(self._objects)}
        return {name: obj for name, obj in found.items() if obj is not None}

    def add(
        self, obj_or_class: Any, name: str | None, daemon: Any, *, force: bool, weak: bool
    ) -> str:
        """Register an object; see :meth:`rmi_runtime.Daemon.register`.

        Returns:
            Its id.
        """
        name = name or "obj_" + uuid.uuid4().hex
        if not isinstance(name, str):
            raise TypeError("the name of an object is a string, or None to have one made up")
        is_class = inspect.isclass(obj_or_class)
        if is_class:
            if weak:
                raise TypeError("classes cannot be held weakly: register an object")
            if not hasattr(obj_or_class, "_pyroInstancing"):
                obj_or_class._pyroInstancing = ("session", None)
        if not force:
            known_id = getattr(obj_or_class, "_pyroId", "")
            if known_id and self._resolve(known_id) is obj_or_class:
                raise DaemonError("object or class already has a Pyro id")
            if name in self._objects:
                raise DaemonError("an object or class is already registered with that id")
        obj_or_class._pyroId = name
        obj_or_class._pyroDaemon = weakref.proxy(daemon)
        for serializer in stock_serializers.values():  # ours are their subclasses
            serializer.register_type_replacement(
                obj_or_class if is_class else type(obj_or_class), _pyro_obj_to_auto_proxy
            )
        self._objects[name] = known = weakref.ref(obj_or_class) if weak else obj_or_class
        if weak:
            weakref.finalize(obj_or_class, self._forget, name, known)
        return name

    def _forget(self, name: str, known: weakref.ref[Any]) -> None:
        """Forget an object that is gone, unless another one has its id by now."""
        if self._objects.get(name) is known:
            del self._objects[name]

    def discard(self, obj_or_name: Any) -> None:
        """Forget an object. One that is unknown here is no error; the daemon's own object stays.

        As with stock, an object that is forgotten by its id keeps that id and its daemon: programs
        go on with ``obj._pyroId``, say to remove it at a name server.

        Raises:
            DaemonError: the object has never been registered.
        """
        is_name = isinstance(obj_or_name, str)
        name = obj_or_name if is_name else getattr(obj_or_name, "_pyroId", None)
        if not isinstance(name, str):
            raise DaemonError("object isn't registered in this daemon")
        if name == DAEMON_NAME or name not in self._objects:
            return
        known = self._resolve(name)
        del self._objects[name]
        if is_name or known is None or getattr(known, "_pyroId", None) != name:
            return
        del known._pyroId
        del known._pyroDaemon

    def id_of(self, obj_or_name: Any) -> str:
        """Return an object's id; a string is returned as it is.

        Raises:
            DaemonError: the object is not registered here.
        """
        if isinstance(obj_or_name, str):
            return obj_or_name
        name = getattr(obj_or_name, "_pyroId", None)
        if not isinstance(name, str) or name not in self._objects:
            raise DaemonError("object isn't registered in this daemon")
        return name

    def metadata(self, object_id: str) -> dict[str, set[str]]:
        """Return the exposed ``methods``, ``attrs`` and ``oneway`` methods of an object.

        As stock does, it warns of one that exposes nothing.

        Raises:
            DaemonError: no such object.
        """
        obj = self._known(object_id)
        found: dict[str, set[str]] = _get_exposed_members(obj)
        if not (found["methods"] or found["attrs"]):
            name = (obj if isinstance(obj, type) else type(obj)).__name__
            warnings.warn(f"{name} exposes nothing: its methods want @expose", stacklevel=2)
        return found

    def reset_metadata(self, obj_or_name: Any) -> None:
        """Forget what is known of an object's members, because its class has changed."""
        name = self.id_of(obj_or_name)
        if name in self._objects:
            _reset_exposed_members(self._known(name))

    def target(self, object_id: str, session: Instances) -> Any:
        """Return the object that a call of *object_id* is for.

        Args:
            object_id: as registered.
            session: the objects made for the caller's connection so far; one may be added.

        Raises:
            DaemonError: no such object.
        """
        obj = self._objects.get(object_id)
        if obj is None or isinstance(obj, (weakref.ref, type)):
            obj = self._known(object_id)
            return self._instance(obj, session) if isinstance(obj, type) else obj
        return obj

    def makes(self, object_id: str, session: Instances) -> bool:
        """Tell whether :meth:`target` would make an object now, which runs code of its class."""
        cls = self._objects.get(object_id)
        if not isinstance(cls, type):
            return False
        mode, _ = cls._pyroInstancing  # type: ignore[attr-defined]
        return mode == "percall" or cls not in self._instances(mode, session)

    def _instance(self, cls: Any, session: Instances) -> Any:
        mode, creator = cls._pyroInstancing
        if mode == "percall":
            return _create(cls, creator)
        instances = self._instances(mode, session)
        instance = instances.get(cls)
        if instance is None:
            with instances.making:
                instance = instances.get(cls)
                if instance is None:
                    instance = instances[cls] = _create(cls, creator)
        return instance

    def _instances(self, mode: str, session: Instances) -> Instances:
        return self._singles if mode == "single" else session

    def _known(self, object_id: str) -> Any:
        obj = self._resolve(object_id)
        if obj is None:
            raise DaemonError("unknown object")
        return obj

    def _resolve(self, object_id: str) -> Any:
        obj = self._objects.get(object_id)
        return obj() if isinstance(obj, weakref.ref) else obj


def _create(cls: Any, creator: Callable[[Any], Any] | None) -> Any:
    if creator is None:
        return cls()
    instance = creator(cls)
    if not isinstance(instance, cls):
        raise TypeError("instance creator returned object of different type")
    return instance
