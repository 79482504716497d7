"""Errors of the messages, hung below those of the runtime.

InvalidRequest ... LogBegunAnew       log_begun_anew       422 ValueError   a cursor's log is lost
Conflict ......... MessageIdReused    message_id_reused    422 ValueError   an id has another text
"""

from __future__ import annotations

from rmi_runtime import errors


class MessageIdReused(errors.Conflict):
    """The id is that of a message with another text; that one stays. ``fields['id']`` names it."""

    code = "message_id_reused"
    http_status = 422


class LogBegunAnew(errors.InvalidRequest):
    """A cursor is of a log that was lost: read from the beginning. ``fields['field']`` names it."""

    code = "log_begun_anew"
