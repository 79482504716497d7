"""Pyro5's own ``Daemon`` and ``serve``, with the asyncio daemon underneath.

A program written for Pyro5 changes one import, and stays as it is otherwise::

    from rmi_runtime.compat import Daemon, expose

    with Daemon() as daemon:
        uri = daemon.register(Thing)
        daemon.requestLoop()

Plain methods run on threads, as many as ``Pyro5.config.THREADPOOL_SIZE`` says, so they may block;
``async def`` methods run on the loop. Everything else that Pyro5 takes from its configuration
(HOST, NATHOST, SSL and its certificates, COMPRESSION, MAX_MESSAGE_SIZE, ITER_STREAMING and the two
bounds of streams, SERVERTYPE, DETAILED_TRACEBACK) is taken from there, when the daemon is made.
Serialized proxies that arrive become Pyro5's own, blocking ones.

What is different on purpose is listed in ``docs/compatibility.md``.
"""

from Pyro5 import config
from Pyro5.api import (
    URI,
    BatchProxy,
    Proxy,
    SerializedBlob,
    SerializerBase,
    behavior,
    callback,
    current_context,
    expose,
    locate_ns,
    oneway,
    register_class_to_dict,
    register_dict_to_class,
    resolve,
    type_meta,
    unregister_class_to_dict,
    unregister_dict_to_class,
)
from Pyro5.nameserver import start_ns, start_ns_loop

from rmi_runtime.compat.daemon import Daemon, serve
from rmi_runtime.daemon.daemon_object import DaemonObject

__all__ = [
    "URI",
    "BatchProxy",
    "Daemon",
    "DaemonObject",
    "Proxy",
    "SerializedBlob",
    "SerializerBase",
    "behavior",
    "callback",
    "config",
    "current_context",
    "expose",
    "locate_ns",
    "oneway",
    "register_class_to_dict",
    "register_dict_to_class",
    "resolve",
    "serve",
    "start_ns",
    "start_ns_loop",
    "type_meta",
    "unregister_class_to_dict",
    "unregister_dict_to_class",
]
