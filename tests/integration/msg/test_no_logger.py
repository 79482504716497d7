"""Posts while there is no logger: each is refused in its caller's own time, or waits for one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rmi_runtime import errors
from tests.integration.msg.system import message_system


async def test_who_has_less_time_than_others_is_refused_for_certain_and_they_wait_on(
    tmp_path: Path,
) -> None:
    async with message_system(tmp_path) as system:
        await system.facade()
        async with system.endpoints("msg.facade.") as facades:

            async def post(id: str, timeout_s: float) -> list[str]:
                words: list[str] = await facades.call(
                    "post_many", [(id, "text")], timeout_s=timeout_s, repeatable=True
                )
                return words

            patient = asyncio.create_task(post("a", 30))
            with pytest.raises(errors.Unavailable, match=r"msg\.logger\.") as refused:
                await post("b", 1)
            assert refused.value.definite
            assert "post_many: 1 messages, failed: " in "".join(system.lines("msg.facade.1"))
            await system.logger(1)
            assert await patient == ["new"]
            assert await post("b", 10) == ["new"]
