"""asyncio for Pyro5: a daemon and proxies that speak Pyro5's wire protocol, hardened.

Everything that code outside this package uses is here.
"""

from Pyro5.core import URI
from Pyro5.server import behavior, callback, expose, oneway

from rmi_runtime import errors
from rmi_runtime.context import (
    ANONYMOUS,
    SERVICE,
    Call,
    Connection,
    Identity,
    allow,
    call_as,
    current_call,
)
from rmi_runtime.daemon import Daemon
from rmi_runtime.limits import DaemonLimits
from rmi_runtime.proxy import Proxy
from rmi_runtime.proxy_results import RemoteStream
from rmi_runtime.sqlite import SqliteThread, open_reader
from rmi_runtime.sync_proxy import SyncProxy
from rmi_runtime.version import __version__

__all__ = [
    "ANONYMOUS",
    "SERVICE",
    "URI",
    "Call",
    "Connection",
    "Daemon",
    "DaemonLimits",
    "Identity",
    "Proxy",
    "RemoteStream",
    "SqliteThread",
    "SyncProxy",
    "__version__",
    "allow",
    "behavior",
    "call_as",
    "callback",
    "current_call",
    "errors",
    "expose",
    "oneway",
    "open_reader",
]
