"""Who tokens belong to, remembered for a moment.

Whoever is shown tokens asks through one of these, and remembers for :data:`REMEMBERED_S`. A gateway
or facade asks a business object, and that one the data object, so that a revoked token is refused
everywhere after two such times at most (and see :data:`rmi_runtime.daemon.handshake.KNOWN_S`).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from rmi_runtime.context import Identity
from rmi_runtime.errors import Indefinite, Unavailable

REMEMBERED_S = 1.0
ENTRIES_MAX = 16_384

Ask = Callable[[str], Awaitable[dict[str, Any] | None]]
"""Finds ``{"client", "role"}`` for a token's hash, or None."""


class Identities:
    """Asks once for what many want to know, and remembers the answer, also if it is no.

    Args:
        ask: where the answers come from.
        remembered_s: for how long an answer is good.
        entries_max: most answers kept; those used longest ago go first.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        remembered_s: float = REMEMBERED_S,
        entries_max: int = ENTRIES_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._remembered_s = remembered_s
        self._entries_max = entries_max
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Identity | None]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Identity | None]] = {}

    async def find(self, token_hash: str) -> Identity | None:
        """Return whose token it is; None if it is fake, revoked or expired.

        Raises:
            Unavailable: no reply came. Asking changes nothing, and whoever asks has begun nothing.
            Exception: else what asking raised. Nothing is remembered then.
        """
        known = self._known.get(token_hash)
        if known is not None and self._clock() < known[0]:
            self._known.move_to_end(token_hash)
            return known[1]
        asking = self._asking.get(token_hash)
        if asking is None:
            asking = asyncio.get_running_loop().create_task(self._learn(token_hash))
            self._asking[token_hash] = asking
            asking.add_done_callback(partial(self._asked, token_hash))
        return await asyncio.shield(asking)

    def _asked(self, token_hash: str, asking: asyncio.Task[Identity | None]) -> None:
        self._asking.pop(token_hash, None)
        if not asking.cancelled():
            asking.exception()  # heard, also if all who wanted to know have given up

    async def _learn(self, token_hash: str) -> Identity | None:
        asked_s = self._clock()  # the answer is no younger than the question
        try:
            found = await self._ask(token_hash)
        except Indefinite as error:
            raise Unavailable("nobody could say whose token it is; nothing was done") from error
        identity = Identity("client", found["client"], found["role"]) if found else None
        self._known[token_hash] = (asked_s + self._remembered_s, identity)
        self._known.move_to_end(token_hash)
        while len(self._known) > self._entries_max:
            self._known.popitem(last=False)
        return identity
