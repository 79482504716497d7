"""What was consumed, as values: portions of the order of arrival, one per claim. Plain code.

The order of consumption is a log like the order of arrival (:mod:`~rmi_msg.hazelcast.order`), whose
ids are portions. So a thousand messages are entered by one step, and stand in the log once.

As a cursor of pages, a place among consumed messages is written ``block.offset``, before a whole
portion, or ``block.offset.count``: so many messages behind that.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from rmi_msg.hazelcast.blocks import START, Place, parse_cursor, parse_numbers


class Portion(msgspec.Struct, frozen=True, array_like=True):
    """A claim that was consumed.

    Attributes:
        token: of the claim: no two portions have the same.
        first: where it begins in the order of arrival.
        end: the place behind its last id.
        by: Pyro name of who consumed it.
        at: when (ISO 8601, UTC).
    """

    token: int
    first: Place
    end: Place
    by: str
    at: str

    def packed(self) -> str:
        """Return it as the text that stands in the log."""
        return msgspec.json.encode(self).decode()


class Within(NamedTuple):
    """A place in the order of consumption: so many messages behind a place before a portion."""

    place: Place
    passed: int

    @property
    def marked(self) -> Place:
        """The place whose mark its cursor has: behind the portion, if some of that is passed."""
        return Place(self.place.block, self.place.offset + bool(self.passed))

    def __str__(self) -> str:
        return f"{self.place}.{self.passed}" if self.passed else str(self.place)


def unpack(text: str) -> Portion:
    """Return the portion that *text* is.

    Raises:
        msgspec.MsgspecError: it is none.
    """
    return msgspec.json.decode(text, type=Portion)


def parse_within(cursor: str | None) -> Within:
    """Return the place that a cursor names; None is the beginning.

    Raises:
        InvalidRequest: it names none.
    """
    if cursor is None:
        return Within(START, 0)
    if cursor.count(".") < 2:
        return Within(parse_cursor(cursor), 0)
    block, offset, count = parse_numbers(cursor, 3)
    return Within(Place(block, offset), count)
