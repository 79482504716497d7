"""What Pyro5's daemon has and the drop-in has not: refused with a word on what to do instead."""

from __future__ import annotations

from typing import Any, Final

from rmi_runtime.daemon.objects import NotCopied

_FOREIGN_LOOPS: Final = "for an event loop of your own use rmi_runtime.Daemon, on any asyncio loop"
_INTERNALS: Final = "rmi_runtime.Daemon.stats() tells what a daemon does"

INSTEAD: Final = {
    "events": _FOREIGN_LOOPS,
    "selector": _FOREIGN_LOOPS,
    "serveSimple": "use rmi_runtime.compat.serve",
    "streaming_responses": _INTERNALS,
    "transportServer": _INTERNALS,
}
"""What to do in place of using these members of Pyro5's daemon."""


class WithoutSome(NotCopied):
    """Base class of the drop-in: refuses what that does not offer."""

    def __getattr__(self, name: str) -> Any:
        if name in INSTEAD:
            raise AttributeError(_refusal(name))
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def combine(self, daemon: Any) -> None:
        """Refuse: run each daemon's request loop in a thread of its own."""
        raise TypeError("daemons are not combined here: run each request loop in its own thread")


def _refusal(name: str) -> str:
    return f"a daemon of rmi_runtime.compat has no {name!r}: {INSTEAD[name]}"
