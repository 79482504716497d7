"""The end of a connection whose other end may have stopped to read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

LAST_WORDS_S: Final = 10.0
"""How long the other end may take to read what was sent before the end, in seconds."""


def hang_up(
    transport: asyncio.WriteTransport,
    loop: asyncio.AbstractEventLoop,
    on_close: Callable[[Callable[..., None]], object],
    *,
    at_once: bool = False,
) -> None:
    """Close when what waits has been sent; if that takes too long, without.

    A transport by itself waits for ever, and holds its socket.

    Args:
        transport: what to close.
        loop: where it lives.
        on_close: has a function called when the connection has ended.
        at_once: send nothing more.
    """
    if at_once:
        transport.abort()
        return
    waits = not transport.is_closing() and transport.get_write_buffer_size() > 0
    transport.close()
    if waits:
        timer = loop.call_later(LAST_WORDS_S, transport.abort)
        on_close(lambda *_: timer.cancel())
