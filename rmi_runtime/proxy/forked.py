"""What a process does with the connections and loops that it has from its parent by ``os.fork``.

The two processes share each socket, and the kernel's table of sockets that a loop waits for. Who
closes such a loop, or a connection through it, in the child strikes the socket off that table, and
the parent waits for ever. Python does so by itself when the last reference goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os


def never_free(*things: object) -> None:
    """Keep objects, and all that they refer to, until the process ends.

    Args:
        things: loops and whatever lives on them; nobody may use them any more.
    """
    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def drop_descriptor(number: int) -> None:
    """Close this process's end of a socket without a word to its loop or to the peer.

    Else the peer would not see it end when the parent closes it.

    Args:
        number: the file descriptor; below 0 for none.
    """
    if number >= 0:
        with contextlib.suppress(OSError):  # closed already
            os.close(number)
