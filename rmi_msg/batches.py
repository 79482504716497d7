"""Batches of messages that fit one call, and the results of calls as results of their parts.

A *group* is what one caller gave at once: (id, text) pairs. Groups that wait together travel
together, as far as one call's bounds allow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, NamedTuple

from rmi_msg.checks import BATCH_MESSAGES_MAX, ID_CHARS_MAX
from rmi_msg.stores import Word
from rmi_runtime import errors

BATCH_CHARS_MAX: Final = 4 * 1024 * 1024
"""Most characters of text in one call, if it is more than one message.

At most four bytes of UTF-8 each, so that a call stays well under the largest Pyro message."""

Pair = tuple[str, str]
Group = Sequence[Pair]
Put = Callable[[Group], Awaitable[Sequence[Word]]]


_CHAR_BYTES: Final = 4
_ID_BYTES: Final = _CHAR_BYTES * ID_CHARS_MAX + 16  # and what is around it and its text
_CALL_BYTES: Final = 1024  # of its method, and what else comes with it


class CallLimits(NamedTuple):
    """What one call may carry, if it is more than one message.

    Attributes:
        messages: most messages.
        chars: most characters of their texts.
    """

    messages: int = BATCH_MESSAGES_MAX
    chars: int = BATCH_CHARS_MAX

    @classmethod
    def within(cls, size_bytes: int) -> CallLimits:
        """Return the limits of calls that fit a Pyro message: half of it for ids, half for texts.

        Args:
            size_bytes: the largest Pyro message that is taken.
        """
        half = (size_bytes - _CALL_BYTES) // 2
        return cls(
            max(1, min(BATCH_MESSAGES_MAX, half // _ID_BYTES)),
            min(BATCH_CHARS_MAX, half // _CHAR_BYTES),
        )


USUAL: Final = CallLimits()


def parts(group: Group, limits: CallLimits = USUAL) -> Iterator[Group]:
    """Cut a group into runs that fit one call each, by number and by characters.

    Yields:
        Runs of at least one message, in order.
    """
    if len(group) <= limits.messages and _chars(group) <= limits.chars:
        if group:
            yield group
        return
    start = chars = 0
    for place, (_, text) in enumerate(group):
        full = place - start >= limits.messages or chars + len(text) > limits.chars
        if full and place > start:
            yield group[start:place]
            start, chars = place, 0
        chars += len(text)
    yield group[start:]


def _chars(group: Group) -> int:
    return sum([len(text) for _, text in group])


def packed(groups: Sequence[Group], limits: CallLimits = USUAL) -> Iterator[list[Group]]:
    """Pack whole groups into calls.

    Args:
        groups: each fits one call by itself, as :func:`parts` makes them.
        limits: of one call.

    Yields:
        Lists of at least one group, in order, that fit one call together.
    """
    run: list[Group] = []
    count = chars = 0
    for group in groups:
        group_chars = _chars(group)
        full = count + len(group) > limits.messages or chars + group_chars > limits.chars
        if full and run:
            yield run
            run, count, chars = [], 0, 0
        run.append(group)
        count += len(group)
        chars += group_chars
    if run:
        yield run


def all_full(words: Sequence[Word]) -> bool:
    """Whether there was room for none of some messages, and none was there."""
    return all(word == "full" for word in words)


def no_room() -> errors.StoreFull:
    """Return the error of a message that found no room, while others of its call were there."""
    return errors.StoreFull("the store has no room for it; nothing was done")


async def put_groups(
    put: Put, groups: Sequence[Group], limits: CallLimits = USUAL
) -> list[Sequence[Word] | BaseException]:
    """Put groups in as few calls as they fit, one after the other.

    Args:
        put: puts (id, text) pairs that fit one call, and returns a word per pair.
        groups: each fits one call by itself.
        limits: of one call.

    Returns:
        Per group, in order, its words, or the error of the call it was in.
    """
    results: list[Sequence[Word] | BaseException] = []
    for run in packed(groups, limits):
        together = run[0] if len(run) == 1 else [pair for group in run for pair in group]
        try:
            words = await put(together)
        except Exception as error:
            results += [error] * len(run)
            continue
        start = 0
        for group in run:
            results.append(words[start : start + len(group)])
            start += len(group)
    return results
