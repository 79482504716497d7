"""What a message, an id and a page request must look like.

Everything that enters this room is checked here once, by whoever takes it from outside: the gateway
for HTTP, the facade and the loggers for Pyro. All bounds of the messages are in this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from rmi_msg.errors import LogBegunAnew
from rmi_runtime import errors

TEXT_SIZE_BYTES_MAX: Final = 256 * 1024
"""Longest text, in bytes of UTF-8. The shortest is one character."""

ID_CHARS_MAX: Final = 200
"""Longest id, in characters."""

BATCH_MESSAGES_MAX: Final = 1024
"""Most messages in one call."""

PAGE_LIMIT_MAX: Final = 1000
"""Most messages on one page."""

PAGE_LIMIT_DEFAULT: Final = 100

CURSOR_CHARS_MAX: Final = 200
"""Longest cursor, in characters."""

_Id = Annotated[str, Meta(min_length=1, max_length=ID_CHARS_MAX)]
_Text = Annotated[str, Meta(min_length=1, max_length=TEXT_SIZE_BYTES_MAX)]


def check_text(text: object, field: str = "text") -> str:
    """Return *text* if it may be a message.

    Args:
        text: what the caller gave.
        field: what to call it in the error.

    Returns:
        The same text.

    Raises:
        InvalidRequest: it is no string, empty, longer than 262,144 bytes of UTF-8, or it has lone
            surrogates, which are no characters.
    """
    if not isinstance(text, str):
        raise _invalid(field, f"must be a string, not {type(text).__name__}")
    if not text:
        raise _invalid(field, "must have at least one character; it is empty")
    if text.isascii():
        size_bytes = len(text)
    else:
        try:
            size_bytes = len(text.encode("utf-8"))
        except UnicodeEncodeError as error:
            raise _invalid(
                field, f"has a lone surrogate at {error.start}, which no UTF-8 can carry"
            ) from None
    if size_bytes > TEXT_SIZE_BYTES_MAX:
        raise _invalid(
            field, f"has {size_bytes} bytes of UTF-8; at most {TEXT_SIZE_BYTES_MAX} are taken"
        )
    return text


def check_id(id: object, field: str = "id") -> str:
    """Return *id* if it may be a message id: 1 to 200 printable characters, such as a uuid.

    Args:
        id: what the caller gave.
        field: what to call it in the error.

    Returns:
        The same id.

    Raises:
        InvalidRequest: it is anything else.
    """
    if not isinstance(id, str):
        raise _invalid(field, f"must be a string, not {type(id).__name__}")
    if not 0 < len(id) <= ID_CHARS_MAX:
        raise _invalid(field, f"has {len(id)} characters; from 1 to {ID_CHARS_MAX} are taken")
    if not id.isprintable():
        raise _invalid(field, "has characters that cannot be printed; use letters and digits")
    return id


def check_batch(messages: object, field: str = "messages") -> list[tuple[str, str]]:
    """Return a batch of messages as (id, text) pairs, or refuse all of it.

    Args:
        messages: a list of [id, text] pairs, at most 1,024.
        field: what to call it in the error; a wrong message is named ``messages[3].text``.

    Returns:
        The pairs, in the same order.

    Raises:
        InvalidRequest: it is no such list, or one of the messages is not valid. None was taken.
    """
    if not isinstance(messages, (list, tuple)):
        raise _invalid(field, f"must be a list of [id, text] pairs, not {type(messages).__name__}")
    if len(messages) > BATCH_MESSAGES_MAX:
        raise _invalid(
            field,
            f"are {len(messages)}; one call takes at most {BATCH_MESSAGES_MAX}: send several",
        )
    return _plain_pairs(messages) or _each_checked(messages, field)


def _plain_pairs(messages: Sequence[object]) -> list[tuple[str, str]] | None:
    """Return the pairs if they are good at a glance, as nearly all are; else one has to look."""
    try:
        pairs = msgspec.convert(messages, list[tuple[_Id, _Text]])
    except msgspec.ValidationError:
        return None
    return pairs if all(id.isprintable() and text.isascii() for id, text in pairs) else None


def _each_checked(messages: Sequence[object], field: str) -> list[tuple[str, str]]:
    checked = []
    for place, pair in enumerate(messages):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise _invalid(f"{field}[{place}]", "must be an [id, text] pair")
        id = check_id(pair[0], f"{field}[{place}].id")
        checked.append((id, check_text(pair[1], f"{field}[{place}].text")))
    return checked


def check_limit(limit: object) -> int:
    """Return *limit* if a page may have so many messages.

    Raises:
        InvalidRequest: it is not an integer from 1 to 1,000.
    """
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise _invalid("limit", f"must be an integer, not {type(limit).__name__}")
    if not 1 <= limit <= PAGE_LIMIT_MAX:
        raise _invalid("limit", f"is {limit}; from 1 to {PAGE_LIMIT_MAX} are served on one page")
    return limit


def check_after(after: object) -> str | None:
    """Return *after* if it may be a cursor; only the store that made it can tell what it means.

    Raises:
        InvalidRequest: it is neither None nor a string of 1 to 200 ASCII characters.
    """
    if after is None:
        return None
    if not isinstance(after, str):
        raise _invalid("after", f"must be a string or null, not {type(after).__name__}")
    # No store gives out any others, and not all of them can be passed on to one.
    if not (0 < len(after) <= CURSOR_CHARS_MAX and after.isascii()):
        raise bad_cursor(after)
    return after


def bad_cursor(after: str) -> errors.InvalidRequest:
    """Return the error for a cursor that no page ever gave out."""
    shown = ascii(after) if len(after) <= 40 else f"{after[:40]!a}…"
    return _invalid("after", f"{shown} is no cursor: give the `next` of the page before, or none")


def log_begun_anew() -> LogBegunAnew:
    """Return the error for a cursor of a log that is lost."""
    return LogBegunAnew(
        "after is a place of a log that is lost, wholly or there: the log was begun anew, or is an "
        "older copy. Read from its beginning, without after, and skip what you know by id",
        field="after",
    )


def _invalid(field: str, what: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"{field} {what}", field=field)
