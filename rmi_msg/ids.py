"""Message ids: the one under which a message is kept once, however often it is posted.

An id is any string of 1 to 200 printable characters. Three kinds are made here:

- of a text (the seed's form interface): ``uuid5(NAMESPACE_DNS, text)``, so that the same text is
  the same message;
- of a caller's key (``Idempotency-Key``): a uuid5 in a name space of our own, so that no key can
  be made to meet the id of a text;
- new: a uuid7, whose leading time keeps fresh ids next to each other in an index.

Both layouts are those of RFC 9562. They are laid out here as text: every message needs one, and the
standard library's objects cost three times as much.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from typing import Final

_TEXTS: Final = uuid.NAMESPACE_DNS.bytes
_KEYS: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "idempotency-key.rmi_msg").bytes
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def message_id(text: str) -> str:
    """Return the id of *text* on the seed's interface: ``uuid5(NAMESPACE_DNS, text)``.

    Args:
        text: the message; it must be encodable as UTF-8.

    Returns:
        The 36 characters of the uuid: ``487e0156-a04c-5aeb-b42c-52c752bc2dd7`` for ``msg1``.
    """
    return uuid5(_TEXTS, text)


def keyed_message_id(key: str) -> str:
    """Return the id that belongs to an idempotency key.

    Args:
        key: the caller's key. Whoever serves several callers who do not trust each other puts the
            caller's name in front, or one could post under the key of another.

    Returns:
        The 36 characters of a uuid5 that is never that of a text.
    """
    return uuid5(_KEYS, key)


def new_message_id() -> str:
    """Return a fresh id: a uuid7 of the present millisecond."""
    return uuid7(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10), "big"))


def uuid5(namespace: bytes, name: str) -> str:
    """Return the uuid5 of a name (RFC 9562, section 5.5).

    Args:
        namespace: its 16 bytes.
        name: of any length; it must be encodable as UTF-8.
    """
    found = hashlib.sha1(namespace + name.encode(), usedforsecurity=False).hexdigest()
    variant = _VARIANT[found[16]]
    return f"{found[:8]}-{found[8:12]}-5{found[13:16]}-{variant}{found[17:20]}-{found[20:32]}"


def uuid7(unix_ms: int, random_bits: int) -> str:
    """Lay out a uuid7 (RFC 9562, section 5.7).

    Args:
        unix_ms: milliseconds since 1970; the lowest 48 bits are used.
        random_bits: at least 74 random bits; the lowest 74 are used.

    Returns:
        The uuid: 48 bits of time, version, 12 random bits, variant, 62 random bits.
    """
    stamp = f"{unix_ms & (1 << 48) - 1:012x}"
    tail = f"{0b10 << 62 | random_bits & (1 << 62) - 1:016x}"
    return f"{stamp[:8]}-{stamp[8:]}-7{random_bits >> 62 & 0xFFF:03x}-{tail[:4]}-{tail[4:]}"
