"""Calls of remote objects: the asyncio proxy, and one for plain scripts."""

from rmi_runtime.proxy.proxy import Proxy
from rmi_runtime.proxy.results import RemoteStream
from rmi_runtime.proxy.sync_proxy import SyncProxy

__all__ = ["Proxy", "RemoteStream", "SyncProxy"]
