"""The asyncio daemon: from a client's bytes to a method of an object, and back."""

from rmi_runtime.daemon.daemon import Daemon

__all__ = ["Daemon"]
