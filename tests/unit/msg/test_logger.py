"""What a logger says of a call that its store takes in several parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from rmi_msg.checks import TEXT_SIZE_BYTES_MAX
from rmi_msg.lines import LineLog
from rmi_msg.logger import LoggerObject
from rmi_msg.stores import Message, Page, Word
from rmi_runtime import errors

LONG = [(str(number), "x" * TEXT_SIZE_BYTES_MAX) for number in range(20)]  # more than one part


class FullStore:
    """A store that has room for so many parts.

    Args:
        room: for how many.
        error: what it says then.
        known: what it says of messages when it is asked which it has.
    """

    def __init__(
        self,
        room: int,
        error: errors.RmiError,
        known: dict[str, Word] | errors.RmiError | None = None,
    ) -> None:
        self.room = room
        self._error = error
        self._known = {} if known is None else known

    async def put_many(self, messages: Sequence[tuple[str, str]], logger: str) -> list[Word]:
        if not self.room:
            raise self._error
        self.room -= 1
        return ["new"] * len(messages)

    async def known(self, messages: Sequence[tuple[str, str]]) -> list[Word]:
        if isinstance(self._known, errors.RmiError):
            raise self._known
        return [self._known.get(id, "full") for id, _ in messages]

    async def page(self, after: str | None, limit: int) -> Page[Message]:
        return Page([], None)


@pytest.mark.parametrize(
    ("room", "told"), [(0, errors.Unavailable), (1, errors.Interrupted), (2, None)]
)
async def test_what_was_stored_in_part_is_not_said_to_be_without_effect(
    tmp_path: Path, room: int, told: type[errors.RmiError] | None
) -> None:
    with LineLog(tmp_path / "log") as log:
        logger = LoggerObject(
            "msg.logger.1", FullStore(room, errors.Unavailable("the disk is full")), log
        )
        if told is None:
            assert await logger.put_many(LONG) == ["new"] * 20
        else:
            with pytest.raises(told, match="disk is full"):
                await logger.put_many(LONG)


FULL = errors.StoreFull("the disk is full")


@pytest.mark.parametrize("room", [0, 1])
@pytest.mark.parametrize("known", [{}, {"3": "same"}, {"19": "other"}])
async def test_what_found_no_room_is_told_from_what_is_there(
    tmp_path: Path, room: int, known: dict[str, Word]
) -> None:
    with LineLog(tmp_path / "log") as log:
        logger = LoggerObject("msg.logger.1", FullStore(room, FULL, known), log)
        if not room and not known:
            with pytest.raises(errors.StoreFull, match="disk is full"):
                await logger.put_many(LONG)
            return
        words = await logger.put_many(LONG)
    count = words.count("new")
    assert (count > 0) == (room > 0)
    assert words == ["new"] * count + [known.get(id, "full") for id, _ in LONG[count:]]


async def test_nothing_is_said_to_be_without_effect_when_what_is_there_cannot_be_read(
    tmp_path: Path,
) -> None:
    with LineLog(tmp_path / "log") as log:
        store = FullStore(0, FULL, errors.Unavailable("no member answers"))
        logger = LoggerObject("msg.logger.1", store, log)
        with pytest.raises(errors.Interrupted, match=r"disk is full.*no member answers.*same ids"):
            await logger.put_many(LONG[:1])
