"""Blocks: the log that keeps the order of arrival, as values. Plain code.

The log is a row of blocks, numbered from 0. A block lists ids in their order of arrival. Only the
last block may grow, while it is open and small; then it is closed, and the next one begins. Each
names the one before it by a digest: who reads two of them knows whether they belong together.

A place in the log is a block's number and an index in it: the place before which a reader stands.
As a cursor it is written ``block.index``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from rmi_msg.checks import bad_cursor

GROWING_IDS_MAX: Final = 100
"""A block with more ids than this does not grow: every growth writes the whole block anew."""

BLOCK_IDS_MAX: Final = 1024
"""Most ids in one block."""

_DIGITS_MAX: Final = 15


class Block(msgspec.Struct, frozen=True):
    """One block, as JSON in the map of blocks.

    Attributes:
        base: how many ids all blocks before it have.
        ids: its ids, in order of arrival.
        closed: it will not grow any more.
        before: digest of the block before it, as that was closed.
    """

    base: int
    ids: tuple[str, ...]
    closed: bool = False
    before: str = ""

    @property
    def end(self) -> int:
        """How many ids the log has up to and with this block."""
        return self.base + len(self.ids)

    def mark(self, offset: int) -> str:
        """Return the digest of what the log had, in this block and before, up to *offset*."""
        return digest("\n".join((self.before, str(offset), *self.ids[:offset])))

    def can_take(self, count: int) -> bool:
        """Say whether *count* more ids may be added to this block."""
        return not self.closed and len(self.ids) + count <= GROWING_IDS_MAX

    def grown(self, ids: Sequence[str]) -> Block:
        """Return this block with *ids* added."""
        return Block(self.base, (*self.ids, *ids), False, self.before)

    def shut(self) -> Block:
        """Return this block closed."""
        return Block(self.base, self.ids, True, self.before)

    def successor(self, ids: Sequence[str]) -> Block:
        """Return the block that comes after this one, which is closed, with *ids* in it."""
        return Block(self.end, tuple(ids), False, digest(pack(self)))


class Place(NamedTuple):
    """A place in the log: before id *offset* (from 0) of block *block*."""

    block: int
    offset: int

    def __str__(self) -> str:
        return f"{self.block}.{self.offset}"


START: Final = Place(0, 0)

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Block)


def pack(block: Block) -> str:
    """Return *block* as the JSON text that is stored."""
    return _encoder.encode(block).decode()


def digest(text: str) -> str:
    """Return what a block says of the one before it, which is *text*."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def unpack(text: str) -> Block:
    """Return the block that *text* is.

    Raises:
        msgspec.MsgspecError: it is none.
    """
    return _decoder.decode(text)


def misfits(first: int, row: Sequence[str]) -> dict[int, tuple[str, str]]:
    """Return those blocks in *row*, from *first* on, that do not fit the one before.

    Returns:
        The number of each, with the digest of the one before, and the one that it names.
    """
    pairs = enumerate(pairwise(row), first + 1)
    named = {number: (digest(one), unpack(then).before) for number, (one, then) in pairs}
    return {number: both for number, both in named.items() if both[0] != both[1]}


def parse_cursor(cursor: str | None) -> Place:
    """Return the place that a page's cursor names; None is the beginning.

    Raises:
        InvalidRequest: it names none.
    """
    if cursor is None:
        return START
    block, offset = parse_numbers(cursor, 2)
    return Place(block, offset)


def parse_numbers(cursor: str, count: int) -> list[int]:
    """Return the numbers of a cursor, which dots separate.

    Args:
        cursor: what a client sent.
        count: how many there must be.

    Raises:
        InvalidRequest: there are not so many, or other things.
    """
    parts = cursor.split(".")
    if len(parts) != count or not all(
        part.isascii() and part.isdigit() and len(part) <= _DIGITS_MAX for part in parts
    ):
        raise bad_cursor(cursor)
    return [int(part) for part in parts]
