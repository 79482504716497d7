"""Who is where: name servers, announcing under a lease, and asking any of several."""

from rmi_runtime.registry.broadcast import answering_broadcasts
from rmi_runtime.registry.client import Announcer, NameServers
from rmi_runtime.registry.nameserver import OWN_TAGS, NameServer
from rmi_runtime.registry.namestore import NameKeeper
from rmi_runtime.registry.nametable import Entry

__all__ = [
    "OWN_TAGS",
    "Announcer",
    "Entry",
    "NameKeeper",
    "NameServer",
    "NameServers",
    "answering_broadcasts",
]
