"""What the HTTP routes use to post and read messages: single posts that travel as batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rmi_msg.batches import USUAL, CallLimits, Pair, no_room, parts
from rmi_msg.checks import (
    PAGE_LIMIT_DEFAULT,
    check_after,
    check_id,
    check_limit,
    check_text,
)
from rmi_msg.stores import Word
from rmi_runtime import Coalescer, Endpoints, errors


class MessageGateway:
    """Posts and reads through the facades. Posts that wait together go as one call.

    Args:
        endpoints: the services ``msg.facade.*``; stays open when this is closed.
        queue_max: most posts that wait for a facade at once.
        concurrency: most calls with posts under way at once.
        timeout_s: how long posts that go together may take, and how long they may wait before that.
        limits: of one call to a facade.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        queue_max: int = 16384,
        concurrency: int = 2,
        timeout_s: float = 10.0,
        limits: CallLimits = USUAL,
    ) -> None:
        self._endpoints = endpoints
        self._timeout_s = timeout_s
        self._limits = limits
        self._posts: Coalescer[Pair, Word] = Coalescer(
            self._send,
            batch_max=limits.messages,
            queue_max=queue_max,
            concurrency=concurrency,
            wait_s_max=timeout_s,
        )

    async def post(self, text: str, id: str) -> Word:
        """Store one message.

        Args:
            text: 1 to 262,144 bytes of UTF-8.
            id: 1 to 200 printable characters; see :mod:`rmi_msg.ids`.

        Returns:
            ``new``; ``same``, if it was there already; or ``other``, if its id is that of a message
            with another text, which stays.

        Raises:
            InvalidRequest: text or id is wrong; ``fields['field']`` says which.
            Overloaded: too many posts are waiting.
            StoreFull: the store has no room; nothing was done.
            Unavailable: nobody could store it; nothing was done.
            Indefinite: it may have been stored; repeat it with the same id.
        """
        return await self._posts.submit_nowait((check_id(id), check_text(text)))

    async def page(
        self, after: str | None = None, limit: int = PAGE_LIMIT_DEFAULT
    ) -> dict[str, Any]:
        """Read messages in their order of arrival; see :meth:`FacadeObject.page`."""
        return await self._read("page", after, limit)

    async def consumed(
        self, after: str | None = None, limit: int = PAGE_LIMIT_DEFAULT
    ) -> dict[str, Any]:
        """Read what was consumed; see :meth:`FacadeObject.consumed`."""
        return await self._read("consumed", after, limit)

    async def aclose(self) -> None:
        """Take nothing new, and return when all posts are answered."""
        await self._posts.aclose()

    async def _read(self, method: str, after: object, limit: object) -> dict[str, Any]:
        page: dict[str, Any] = await self._endpoints.call(
            method, check_after(after), check_limit(limit), repeatable=True
        )
        return page

    async def _send(self, messages: list[Pair]) -> Sequence[Word | BaseException]:
        results: list[Word | BaseException] = []
        end_s = time.monotonic() + self._timeout_s
        for part in parts(messages, self._limits):
            try:
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    raise errors.Unavailable("those before it took all the time; it was not sent")
                words: list[Word] = await self._endpoints.call(
                    "post_many", part, timeout_s=left_s, repeatable=True
                )
                results += [no_room() if word == "full" else word for word in words]
            except Exception as error:
                results += [error] * len(part)
        return results
