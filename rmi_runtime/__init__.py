"""asyncio for Pyro5: a daemon and proxies that speak Pyro5's wire protocol, hardened.

Everything that code outside this package uses is here.
"""

import logging

from Pyro5.core import URI
from Pyro5.server import behavior, callback, expose, oneway

from rmi_runtime import errors
from rmi_runtime.balance import Endpoints, EndpointView
from rmi_runtime.coalesce import Coalescer
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
from rmi_runtime.credentials import (
    Identities,
    ServiceAuthenticator,
    TlsContexts,
    client_context,
    hash_token,
    load_or_create_cluster_key,
    load_tls,
    new_token,
    same_secret,
    server_context,
)
from rmi_runtime.daemon import Daemon
from rmi_runtime.files import (
    EarlyCheckpoints,
    LogLimits,
    OperationLog,
    SqliteThread,
    StoreFiles,
    StoreGone,
    StoreLost,
    check_tables,
    lengthen_log,
    open_reader,
    write_private,
)
from rmi_runtime.limits import DaemonLimits
from rmi_runtime.metrics import MetricsRegistry
from rmi_runtime.proxy import Proxy, RemoteStream, SyncProxy
from rmi_runtime.registry import (
    OWN_TAGS,
    Announcer,
    Entry,
    NameKeeper,
    NameServer,
    NameServers,
    answering_broadcasts,
)
from rmi_runtime.service import (
    TROUBLE,
    ServiceContext,
    cancelled_by,
    collect_rarely,
    run_service,
    signal_ready,
    stop_on_signals,
)
from rmi_runtime.settings import (
    Loaded,
    Settings,
    SettingsError,
    is_loopback,
    load_settings,
    split_address,
)
from rmi_runtime.version import __version__

# As a library should, and as Pyro5 does: silent unless the program sets up logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "ANONYMOUS",
    "OWN_TAGS",
    "SERVICE",
    "TROUBLE",
    "URI",
    "Announcer",
    "Call",
    "Coalescer",
    "Connection",
    "Daemon",
    "DaemonLimits",
    "EarlyCheckpoints",
    "EndpointView",
    "Endpoints",
    "Entry",
    "Identities",
    "Identity",
    "Loaded",
    "LogLimits",
    "MetricsRegistry",
    "NameKeeper",
    "NameServer",
    "NameServers",
    "OperationLog",
    "Proxy",
    "RemoteStream",
    "ServiceAuthenticator",
    "ServiceContext",
    "Settings",
    "SettingsError",
    "SqliteThread",
    "StoreFiles",
    "StoreGone",
    "StoreLost",
    "SyncProxy",
    "TlsContexts",
    "__version__",
    "allow",
    "answering_broadcasts",
    "behavior",
    "call_as",
    "callback",
    "cancelled_by",
    "check_tables",
    "client_context",
    "collect_rarely",
    "current_call",
    "errors",
    "expose",
    "hash_token",
    "is_loopback",
    "lengthen_log",
    "load_or_create_cluster_key",
    "load_settings",
    "load_tls",
    "new_token",
    "oneway",
    "open_reader",
    "run_service",
    "same_secret",
    "server_context",
    "signal_ready",
    "split_address",
    "stop_on_signals",
    "write_private",
]
