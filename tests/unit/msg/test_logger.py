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
    """A store that has room for so many parts."""

    def __init__(self, room: int) -> None:
        self.room = room

    async def put_many(self, messages: Sequence[tuple[str, str]], logger: str) -> list[Word]:
        if not self.room:
            raise errors.Unavailable("the disk is full")
        self.room -= 1
        return ["new"] * len(messages)

    async def page(self, after: str | None, limit: int) -> Page[Message]:
        return Page([], None)


@pytest.mark.parametrize(
    ("room", "told"), [(0, errors.Unavailable), (1, errors.Interrupted), (2, None)]
)
async def test_what_was_stored_in_part_is_not_said_to_be_without_effect(
    tmp_path: Path, room: int, told: type[errors.RmiError] | None
) -> None:
    with LineLog(tmp_path / "log") as log:
        logger = LoggerObject("msg.logger.1", FullStore(room), log)
        if told is None:
            assert await logger.put_many(LONG) == ["new"] * 20
        else:
            with pytest.raises(told, match="disk is full"):
                await logger.put_many(LONG)
