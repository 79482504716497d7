"""Posts of a gateway whose facades do not answer."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from rmi_msg.batches import BATCH_CHARS_MAX
from rmi_msg.checks import TEXT_SIZE_BYTES_MAX
from rmi_msg.gateway_messages import MessageGateway
from rmi_runtime import Endpoints, errors


class Frozen:
    """Facades that take calls, and answer none."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    async def call(
        self, method: str, *args: Any, timeout_s: float = 10.0, repeatable: bool = False
    ) -> Any:
        self.waits_s.append(timeout_s)
        await asyncio.sleep(timeout_s)
        raise errors.CallTimeout("no answer")


async def test_large_posts_that_go_together_share_the_time_of_one_call() -> None:
    frozen = Frozen()
    gateway = MessageGateway(cast(Endpoints, frozen), timeout_s=0.1, concurrency=1)
    text = "x" * TEXT_SIZE_BYTES_MAX
    calls = 4
    count = calls * (BATCH_CHARS_MAX // TEXT_SIZE_BYTES_MAX)
    posts = [gateway.post(text, f"id-{n}") for n in range(count)]
    ended = await asyncio.gather(*posts, return_exceptions=True)
    assert sum(frozen.waits_s) < 0.2
    kinds = [type(end) for end in ended]
    assert set(kinds) == {errors.CallTimeout, errors.Unavailable}
    assert kinds == sorted(kinds, key=lambda kind: kind is errors.Unavailable), "those never sent"
