"""Message ids: the one under which a message is kept once, however often it is posted.

An id is any string of 1 to 200 printable characters. Three kinds are made here:

- of a text (the seed's form interface): ``uuid5(NAMESPACE_DNS, text)``, so that the same text is
  the same message;
- of a caller's key (``Idempotency-Key``): a uuid5 in a name space of our own, so that no key can
  be made to meet the id of a text;
- new: a uuid7, whose leading time keeps fresh ids next to each other in an index.

Both layouts are those of RFC 9562.
"""

from __future__ import annotations

import os
import time
import uuid
from typing import Final

_KEY_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "idempotency-key.rmi_msg")


def message_id(text: str) -> str:
    """Return the id of *text* on the seed's interface: ``uuid5(NAMESPACE_DNS, text)``.

    Args:
        text: the message; it must be encodable as UTF-8.

    Returns:
        The 36 characters of the uuid: ``487e0156-a04c-5aeb-b42c-52c752bc2dd7`` for ``msg1``.
    """
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, text))


def keyed_message_id(key: str) -> str:
    """Return the id that belongs to an idempotency key.

    Args:
        key: the caller's key. Whoever serves several callers who do not trust each other puts the
            caller's name in front, or one could post under the key of another.

    Returns:
        The 36 characters of a uuid5 that is never that of a text.
    """
    return str(uuid.uuid5(_KEY_NAMESPACE, key))


def new_message_id() -> str:
    """Return a fresh id: a uuid7 of the present millisecond."""
    return str(uuid7(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10), "big")))


def uuid7(unix_ms: int, random_bits: int) -> uuid.UUID:
    """Lay out a uuid7 (RFC 9562, section 5.7).

    Args:
        unix_ms: milliseconds since 1970; the lowest 48 bits are used.
        random_bits: at least 74 random bits; the lowest 74 are used.

    Returns:
        The uuid: 48 bits of time, version, 12 random bits, variant, 62 random bits.
    """
    value = (unix_ms & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (random_bits >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | random_bits & (1 << 62) - 1
    return uuid.UUID(int=value)
