"""Request ids: made by whoever wants something done once.

They rise with time (the layout of UUID version 7, RFC 9562 section 5.7: 48 bits of milliseconds,
then a counter and randomness). That keeps the newest ids together at the end of the store's index,
so that an index of ten million takes a new id as fast as an empty one.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from typing import Final

_lock = threading.Lock()
_last = [0, 0]  # milliseconds, counter within them

_COUNTER_MAX = 0xFFF
_BATCH_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "batch-key.rmi_bank")


def new_request_id() -> str:
    """Return a new request id: a UUID (version 7) as text, above all made before by this process.

    Returns:
        36 characters.
    """
    with _lock:
        now_ms = max(time.time_ns() // 1_000_000, _last[0])
        counter = _last[1] + 1 if now_ms == _last[0] else 0
        if counter > _COUNTER_MAX:  # more than 4,096 within a millisecond borrow from the next
            now_ms, counter = now_ms + 1, 0
        _last[:] = now_ms, counter
    stamp = f"{now_ms:012x}"
    tail = f"{int.from_bytes(os.urandom(8), 'big') & 0x3FFF_FFFF_FFFF_FFFF | 1 << 63:016x}"
    return f"{stamp[:8]}-{stamp[8:]}-7{counter:03x}-{tail[:4]}-{tail[4:]}"


def keyed_request_id(key: str, place: int) -> str:
    """Return the request id of an operation in a batch that has one key for all of it.

    The same batch sent again under its key is then the same operations.

    Args:
        key: the batch's ``Idempotency-Key``.
        place: of the operation in the batch, from 0.

    Returns:
        The 36 characters of a uuid5.
    """
    return str(uuid.uuid5(_BATCH_NAMESPACE, f"{place} {key}"))
